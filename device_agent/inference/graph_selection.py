"""The graphs of one loaded model: which of them answer, and whether XNNPACK has packed them.

A model has a graph for one row and one for a batch, and both once more with a search that takes less, where it has one.
All give the same answers; what is chosen here is time against memory. Checks no rows, and settles nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.inference.graph import Signature
from device_agent.inference.graph_runner import Pair, require_steps, unusable
from device_agent.inference.interpreter import Loader, delegate
from device_agent.inference.interpreter_pool import MAX_SHARED
from device_agent.shared.console.quiet import quiet
from device_agent.shared.protocol import constants, model_info
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.system import memory

#: Rows that a large model answers where it is mapped before it is packed: about as long as packing takes.
PACK_AFTER = 32


class Graphs:
    """The graphs of a model file in a TFLite runtime.

    Args:
        path: the model.
        info: its knn.json.
        runtime: as `Loader.find` takes it.
        threads: of the runtime; for a small model, among how many a batch is divided.
        packed: whether XNNPACK may take the graphs, None for what suits the model and the free memory.
        stream: it is asked for single rows.
        search: one of `contract.SEARCHES`, where the model has it; None for what is fastest.

    Attributes:
        waits: rows to be answered before the model is packed; 0 where it is, or never will be.
        loader: of the runtime.

    Raises:
        ModelUnusable: this runtime cannot load it.
        DeviceUnfit: no such runtime is installed.
    """

    def __init__(
        self,
        path: str,
        info: model_info.KnnInfo,
        runtime: str | type,
        threads: int,
        *,
        packed: bool | None,
        stream: bool,
        search: str | None,
    ) -> None:
        size = Path(path).stat().st_size
        small = size <= MAX_SHARED
        self.loader = Loader.find(path, runtime, 1 if small else threads)
        self.loader.require_version(info)
        self._info, self._asked, self.waits = info, search, 0
        self._threads = threads if small else 1
        number = 4 if info.quantized is None else 5  # bytes of it, those of its eight bits among them
        self._weights = number * info.n_train * info.searched if info.searched else size
        self._large = self._weights > memory.SMALL
        if packed is None:
            packed = memory.may_pack(self._weights) and not (stream and self._large)
            if packed and self._large:
                packed, self.waits = False, PACK_AFTER
        self._packed = packed
        self._second: Pair | None = None
        self._begin()

    @property
    def one(self) -> Signature:
        """The graph for one row."""
        return self._first.one

    @property
    def batch_rows(self) -> int:
        """How many rows the graph for a batch takes."""
        return self._first.batch_rows

    @property
    def search(self) -> str:
        """Which of `contract.SEARCHES` answers a batch first."""
        return self._first.search

    @property
    def alone(self) -> str:
        """Which of them answers one row first."""
        return self._first.alone

    @property
    def delegate(self) -> str | None:
        """XNNPACK, where it runs at least a part of the model."""
        return delegate(self._interpreter)

    def note(self, rows: int) -> None:
        """Counts rows that a large model is asked for, and packs it once they are enough."""
        if rows == 1 and self.alone == constants.QUANTIZED:
            return  # as fast from where it is mapped, in a fraction of the memory
        self.waits = max(0, self.waits - rows)
        if self.waits or not memory.may_pack(self._weights):
            return
        self._packed = True
        try:
            with quiet():
                self._begin()
        except ModelUnusable:  # what answers now goes on
            self._packed = False

    def run(self, queries: NDArray[np.float32], parts: dict[str, NDArray[Any]]) -> None:
        """Writes the graphs' outputs for (n, n_features) finite rows into `parts`, (n, ...) each, by their names.

        What a search that takes less leaves in doubt is asked of the full one: farther off than the rows of training,
        eight bits have coarser steps, and there are no cells. Float64 would settle it in many times the time.
        """
        self._first.run(queries, parts)
        full = self.search == self.alone == constants.FULL
        doubtful = () if full else np.flatnonzero(~parts[constants.OUTPUT_CERTAIN])
        if not len(doubtful):
            return
        if self._second is None:
            self._second = self._take(constants.FULL, constants.FULL)
        again = {name: part[doubtful] for name, part in parts.items()}
        self._second.run(queries[doubtful], again)
        for name, part in parts.items():
            part[doubtful] = again[name]

    def _begin(self) -> None:
        """Loads the model, in the place of what was loaded before."""
        try:
            interpreter = self.loader.load(self._packed)
            if self._info.quantized is not None:  # also where they are not what answers now
                require_steps(interpreter)
        except (ValueError, RuntimeError, KeyError, OSError) as error:
            raise unusable(self.loader, error) from None
        self._interpreter, self._second = interpreter, None
        self._first = self._take(*self._choose())

    def _choose(self) -> tuple[str, str]:
        """Returns what a batch and one row go by."""
        search = self._asked or (constants.CELLS if self._info.cells is not None else constants.QUANTIZED)
        if self._info.batch_rows(search) is None:
            return constants.FULL, constants.FULL
        if self._asked or search == constants.CELLS or self.loader.packs_quantized or self.delegate is None:
            return search, search
        # Packed, and by an XNNPACK without kernels for eight bits: float32 is faster, but for one row of a large model,
        # for which all of it is read.
        return constants.FULL, search if self._large else constants.FULL

    def _take(self, search: str, alone: str) -> Pair:
        return Pair(
            self._interpreter,
            self.loader,
            self._info,
            packed=self._packed,
            search=search,
            alone=alone,
            threads=self._threads,
        )

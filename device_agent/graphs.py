"""The graphs of one loaded model: which of them answer, and whether XNNPACK has packed them.

A model has a graph for one row and one for a batch, and both once more with a search in eight bits where that can pay.
All give the same answers; what is chosen here is time against memory. Checks no rows, and settles nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent import contract, memory
from device_agent.errors import ModelUnusable
from device_agent.interpreter import Loader, delegate
from device_agent.quiet import quiet
from device_agent.signature import Signature
from device_agent.team import MAX_SHARED, Team

#: Rows that a large model answers where it is mapped before it is packed: about as long as packing takes.
PACK_AFTER = 32

OUTPUTS = {
    contract.OUTPUT_LABEL: np.int32,
    contract.OUTPUT_PROBABILITIES: np.float32,
    contract.OUTPUT_INDICES: np.int32,
    contract.OUTPUT_DISTANCES: np.float32,
    contract.OUTPUT_CERTAIN: np.bool_,
}


class Graphs:
    """The graphs of a model file in a TFLite runtime.

    Args:
        path: the model.
        info: its knn.json.
        runtime: as `Loader.find` takes it.
        threads: of the runtime; for a small model, among how many a batch is divided.
        packed: whether XNNPACK may take the graphs, None for what suits the model and the free memory.
        stream: it is asked for single rows.
        quantized: whether the search is in eight bits, None for what is faster.

    Attributes:
        one: the graph for one row.
        batch_rows: how many rows the other takes.
        quantized: whether both search in eight bits.
        waits: rows to be answered before the model is packed; 0 where it is, or never will be.
        loader: of the runtime.

    Raises:
        ModelUnusable: this runtime cannot load it.
        DeviceUnfit: no such runtime is installed.
    """

    def __init__(
        self,
        path: str,
        info: contract.KnnInfo,
        runtime: str | type,
        threads: int,
        *,
        packed: bool | None,
        stream: bool,
        quantized: bool | None,
    ) -> None:
        size = Path(path).stat().st_size
        small = size <= MAX_SHARED
        self.loader = Loader.find(path, runtime, 1 if small else threads)
        self.loader.require_version(info)
        self._info, self._quantized, self.waits = info, quantized, 0
        self._weights = 4 * info.n_train * info.searched if info.searched else size
        large = self._weights > memory.SMALL
        if packed is None:
            packed = memory.may_pack(self._weights) and not (stream and large)
            if packed and large:
                packed, self.waits = False, PACK_AFTER
        self._packed = packed
        self._batch: Signature | None = None
        self._team = Team(threads if small else 1)
        self._begin()

    def note(self, rows: int) -> None:
        """Counts rows that a large model is asked for, and packs it once they are enough."""
        if rows == 1 and self.quantized and self.loader.packs_quantized:
            return  # as fast from where it is mapped, in a fraction of the memory
        self.waits = max(0, self.waits - rows)
        if not self.waits and memory.may_pack(self._weights):
            self._packed = True
            with quiet():
                self._begin()

    @property
    def delegate(self) -> str | None:
        """XNNPACK, where it runs at least a part of the model."""
        return delegate(self._interpreter)

    def run(self, queries: NDArray[np.float32], parts: dict[str, NDArray[Any]]) -> None:
        """Writes the graphs' outputs for (n, n_features) finite rows into `parts`, (n, ...) each, by their names."""
        count, batch = len(queries), self.batch_rows
        # A batch that is not even a third full costs more than its rows one by one.
        alone = count % batch if (count % batch) * 3 <= batch else 0
        chunks = range(0, count - alone, batch)
        if chunks:
            if self._batch is None:  # a stream of single rows does without its memory
                self._batch = self._take_batch(self._interpreter)

            def work(signature: Signature, start: int) -> None:
                _fill(signature, queries[start : start + batch], parts, start)

            self._team.run(self._batch, chunks, work, self._make_batch)
        for start in range(count - alone, count):
            _fill(self.one, queries[start : start + 1], parts, start)

    def _begin(self) -> None:
        """Loads the model, in the place of what was loaded before."""
        try:
            interpreter = self.loader.load(self._packed)
            self._choose(interpreter)
            one = self._take_signature(interpreter, contract.SIGNATURE_ONE)
            _require_shapes(one, 1, self._info)
        except (ValueError, RuntimeError, KeyError, OSError) as error:
            raise ModelUnusable(
                f"{self.loader.name} {self.loader.version} cannot load {self.loader.path}: {str(error).strip()}",
                hint="build the release again with this knnkit, or provision the board's runtime again",
            ) from None
        self._interpreter, self.one, self._batch = interpreter, one, None

    def _choose(self, interpreter: Any) -> None:
        """Chooses the search: in float32 where XNNPACK has packed the weights, and has no kernels for eight bits."""
        quantized = self._quantized
        if quantized is None:
            quantized = self.loader.packs_quantized or delegate(interpreter) is None
        rows = self._info.quantized if quantized else None
        self.quantized, self.batch_rows = rows is not None, self._info.batch if rows is None else rows

    def _take_signature(self, interpreter: Any, name: str) -> Signature:
        full = name + contract.QUANTIZED if self.quantized else name
        return Signature(interpreter, full, contract.INPUT_ROWS, OUTPUTS)

    def _make_batch(self) -> Signature:
        return self._take_batch(self.loader.load(self._packed))

    def _take_batch(self, interpreter: Any) -> Signature:
        made = self._take_signature(interpreter, contract.SIGNATURE_BATCH)
        try:
            _require_shapes(made, self.batch_rows, self._info)
        except ValueError as error:
            raise ModelUnusable(f"{self.loader.path}: {error}") from None
        return made


def _fill(signature: Signature, chunk: NDArray[np.float32], parts: dict[str, NDArray[Any]], start: int) -> None:
    """Writes the answers to `chunk` into `parts` from row `start` on."""
    used = len(chunk)
    signature.rows[:used] = chunk  # what the batch before left in the other rows is finite, and not read
    signature.run()
    for name, part in parts.items():
        part[start : start + used] = signature.outputs[name][:used]


def _require_shapes(signature: Signature, rows: int, info: contract.KnnInfo) -> None:
    expected = {
        contract.OUTPUT_LABEL: (rows,),
        contract.OUTPUT_PROBABILITIES: (rows, len(info.classes)),
        contract.OUTPUT_INDICES: (rows, info.k),
        contract.OUTPUT_DISTANCES: (rows, info.k),
        contract.OUTPUT_CERTAIN: (rows,),
    }
    found = {name: view.shape for name, view in signature.outputs.items()}
    batches = (info.batch, 1 if info.quantized is None else info.quantized)
    if signature.rows.shape != (rows, info.n_features) or found != expected or min(batches) < 1:
        raise ValueError("its graph has other shapes than knn.json says")

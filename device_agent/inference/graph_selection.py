"""Chooses a model's graphs, and whether XNNPACK packs their weights.

A model has a graph for one row and a graph for a batch. A model with a cheaper search (cells or int8) has both graphs
for that search, too. All graphs give the same answers, but differ in time and memory. XNNPACK multiplies faster by
packed weights, which are a copy. Does not check rows, and does not recompute uncertain rows in float64.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.inference.graph import Graph
from device_agent.inference.graph_runner import GraphRunner, require_steps, unusable
from device_agent.inference.interpreter import Loader, delegate
from device_agent.inference.interpreter_pool import MAX_SHARED
from device_agent.inference.numpy_knn import NumpySearch
from device_agent.shared.arguments import flag, require
from device_agent.shared.console.streams import quiet
from device_agent.shared.protocol import constants, model_info
from device_agent.shared.protocol.documents import Searched
from device_agent.shared.protocol.errors import BadInput, ModelUnusable
from device_agent.shared.protocol.record import replace
from device_agent.system import memory

#: Rows that a model answers before it is packed: together they take about as long as packing.
PACK_AFTER = 32
_IN_NUMPY = (constants.NUMPY, constants.GROUPS)


class Graphs:
    """The graphs of a model file in a TFLite runtime.

    Args:
        loader: loads the model. Its threads are those of the runtime; for a small model, those that share a batch.
        packed: whether XNNPACK may pack (copy) the weights; None chooses by the model's size and the free memory.
        stream: whether most queries are single rows. Weights that are not large are then packed at once.
        rare: whether only single rows use the graphs, because NumPy answers batches.
        search: search for batches, one of `constants.SEARCHES`, used if the model has it; None: usually the fastest.
        alone: search for single rows; None: the same as `search`.

    Attributes:
        waits: number of rows still to answer before the weights are packed; 0 if they are packed or never will be.

    Raises:
        ModelUnusable: this runtime cannot load the model.
    """

    def __init__(
        self,
        loader: Loader,
        info: model_info.KnnInfo,
        *,
        packed: bool | None,
        stream: bool,
        search: str | None,
        alone: str | None = None,
        rare: bool = False,
    ) -> None:
        size = Path(loader.path).stat().st_size
        small = size <= MAX_SHARED
        self.loader = replace(loader, threads=1) if small else loader
        self._info, self._requested, self.waits = info, (search, alone or search), 0
        self._threads = loader.threads if small else 1
        value_bytes = 4 if info.quantized is None else 5  # float32, and int8 if the model has it
        self._weights = value_bytes * info.n_train * info.searched if info.searched else size
        self._large = self._weights > memory.SMALL
        if packed is not None:
            self._packed = packed
        elif stream or (rare and self._large) or self._weights <= memory.AT_ONCE:
            self._packed = not self._large and memory.may_pack(self._weights)
        else:
            self._packed, self.waits = False, PACK_AFTER
        self._second: GraphRunner | None = None
        self._begin()

    @property
    def one(self) -> Graph:
        """The graph for one row."""
        return self._first.one

    @property
    def batch_rows(self) -> int:
        """Number of rows of the batch graph."""
        return self._first.batch_rows

    @property
    def search(self) -> str:
        """The search that batches go through first, one of `constants.SEARCHES`."""
        return self._first.search

    @property
    def alone(self) -> str:
        """The search that single rows go through first, one of `constants.SEARCHES`."""
        return self._first.alone

    @property
    def delegate(self) -> str | None:
        """Name of XNNPACK if this library of fast kernels runs at least a part of the model, else None."""
        return delegate(self._interpreter)

    def note(self, rows: int) -> None:
        """Counts `rows` queries; packs the weights when `waits` reaches 0, if enough memory is free.

        Does not count single rows of a large model if the int8 search answers them.
        """
        if rows == 1 and self._large and self.alone == constants.QUANTIZED:
            return  # does not count: as fast from the mapped file, in a fraction of the memory
        self.waits = max(0, self.waits - rows)
        if self.waits or not memory.may_pack(self._weights):
            return
        self._packed = True
        try:
            self._begin()
        except ModelUnusable:  # the unpacked graphs continue to answer
            self._packed = False

    def run(self, queries: NDArray[np.float32], parts: dict[str, NDArray[Any]]) -> None:
        """Answers (n, n_features) finite float32 rows; writes the outputs into the (n, ...) arrays of `parts`, by name.

        Rows that a cheaper search (int8, or cells of a grid) leaves uncertain go through the full search. There may be
        many: far from the training rows, int8 has coarser steps, and the grid ends. In float64 they would take many
        times longer.
        """
        self._first.run(queries, parts)
        full = self.search == self.alone == constants.FULL
        doubtful = () if full else np.flatnonzero(~parts[constants.OUTPUT_CERTAIN])
        if not len(doubtful):
            return
        if self._second is None:
            self._second = self._make(constants.FULL, constants.FULL)
        again = {name: part[doubtful] for name, part in parts.items()}
        self._second.run(queries[doubtful], again)
        for name, part in parts.items():
            part[doubtful] = again[name]

    def _begin(self) -> None:
        """Loads the model and builds its graphs; replaces the interpreter that was loaded before."""
        try:
            with quiet():
                interpreter = self.loader.load(self._packed)
            if self._info.quantized is not None:  # also if the int8 search does not answer now
                require_steps(interpreter)
        except (ValueError, RuntimeError, KeyError, OSError) as error:
            raise unusable(self.loader, error) from None
        self._interpreter, self._second = interpreter, None
        self._first = self._make(*self._choose())

    def _choose(self) -> tuple[str, str]:
        """Returns the search for a batch and the search for one row: those requested, else those usually fastest.

        The full search replaces a requested one that the model does not have.
        """
        asked, alone = self._requested
        if asked and alone:
            return self._having(asked), self._having(alone)
        search = constants.CELLS if self._info.cells is not None else constants.QUANTIZED
        if self._info.batch_rows(search) is None:
            return constants.FULL, constants.FULL
        if search == constants.CELLS or self.loader.packs_quantized or self.delegate is None:
            return search, search
        # Packed by an XNNPACK without int8 kernels: float32 is faster, except for one row of a large model, which waits
        # for memory: all weights are read for it.
        return constants.FULL, search if self._large else constants.FULL

    def _having(self, search: str) -> str:
        return constants.FULL if self._info.batch_rows(search) is None else search

    def _make(self, search: str, alone: str) -> GraphRunner:
        return GraphRunner(
            self._interpreter,
            self.loader,
            self._info,
            packed=self._packed,
            search=search,
            alone=alone,
            threads=self._threads,
        )


def make_searches(
    loader: Loader, info: model_info.KnnInfo, *, packed: bool | None, stream: bool, search: str | Searched | None
) -> tuple[Graphs | NumpySearch, NumpySearch | None, tuple[str | None, str | None]]:
    """Makes the objects that search a model file; returns (`graphs`, `in_numpy`, (`batch`, `alone`)).

    `in_numpy` is None if no row is searched in NumPy. If all rows are, as for a model with `float64` in knn.json,
    `graphs` is the same object, and no runtime loads the file. `batch` and `alone` are the search in NumPy for batches
    and for single rows, `constants.NUMPY` (all training rows) or GROUPS (groups of near rows); None: `graphs` answers.

    Args:
        loader: has the path of the model file; loads it into a TFLite runtime, if it is not the loader of NumPy.
        info: the metadata in the model file (knn.json).
        packed: whether XNNPACK may pack (copy) the weights; None chooses by the model's size and the free memory.
        stream: whether most queries are single rows.
        search: one of `constants.WAYS`; or a record of the fastest searches measured on this board, which is ignored
            if the runtime has changed; None: usually the fastest.
    """
    is_way = isinstance(search, str) and search in constants.WAYS
    hint = f"None, or one of {', '.join(constants.WAYS)}"
    require(search is None or isinstance(search, Searched) or is_way, "search", search, BadInput, hint)
    packed, stream = None if packed is None else flag(packed, "packed", BadInput), flag(stream, "stream", BadInput)
    batch = alone = None if isinstance(search, Searched) else search
    if isinstance(search, Searched) and search.runtime == f"{loader.name} {loader.version}":
        batch, alone = search.batch, search.alone
    usual = constants.NUMPY if info.groups is None else constants.GROUPS
    only = loader.name == constants.NUMPY or info.float64 is not None
    ways = [way if way in _IN_NUMPY and info.has(way) else usual if only else None for way in (batch, alone)]
    blocks = None
    if any(ways):
        blocks = NumpySearch(loader, info)
        if all(ways):
            return blocks, blocks, (ways[0], ways[1])
    first, second = (None if way in _IN_NUMPY else way for way in (batch, alone))
    rare = ways[0] is not None
    found = Graphs(loader, info, packed=packed, stream=stream, search=first or second, alone=second, rare=rare)
    return found, blocks, (ways[0], ways[1])

"""TfliteKNN: one nearest-neighbour model in a TFLite runtime, whichever of the two the board has.

Reads the model by path, so that it is mapped and not copied. Every answer is either proven by the graph (its
`certain` output) or settled again in float64 (`exact`). Checks rows before the graph sees them; never
parses text, and never decides whether a model may run: that is `device_agent.shared.trust`.
"""

from __future__ import annotations

import platform
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from device_agent.inference.exact import ExactKnn
from device_agent.inference.graph_runner import unusable
from device_agent.inference.graph_selection import Graphs
from device_agent.shared.protocol import constants, reports
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.release.model_file import read_info as read_info

_FEW = 32


# Named tuples, since one is made for every row of a stream: a frozen dataclass takes three times as long.
class Neighbors(NamedTuple):
    """The k nearest training rows of each query, by (distance, training index).

    Attributes:
        indices: (n, k) int32, rows of the training set.
        distances: (n, k) float32, in the model's metric.
    """

    indices: NDArray[np.int32]
    distances: NDArray[np.float32]


class Answers(NamedTuple):
    """What the classifier says of each query.

    Attributes:
        label: (n,) int32, class index, `contract.UNKNOWN` where the row was rejected.
        probabilities: (n, n_classes) float32, the share of the votes.
        indices: (n, k) int32, rows of the training set.
        distances: (n, k) float32, in the model's metric.
    """

    label: NDArray[np.int32]
    probabilities: NDArray[np.float32]
    indices: NDArray[np.int32]
    distances: NDArray[np.float32]


#: What is answered, in the order of `Answers` and of `Neighbors`.
_ANSWERS = (
    constants.OUTPUT_LABEL,
    constants.OUTPUT_PROBABILITIES,
    constants.OUTPUT_INDICES,
    constants.OUTPUT_DISTANCES,
)
_LABEL = (constants.OUTPUT_LABEL,)
_NEIGHBORS = (constants.OUTPUT_INDICES, constants.OUTPUT_DISTANCES)
_FLOAT32 = np.dtype(np.float32)
#: A named tuple's own constructor takes twice as long.
_new = tuple.__new__


class TfliteKNN:
    """A nearest-neighbour classifier in a `.tflite` file, fed with raw rows.

    One object serves one thread. `info` is the model's knn.json, `runtime` says what runs it, and `settled` counts the
    rows that float32 left in doubt and float64 settled.

    Args:
        path: the model; also `/proc/self/fd/N` of a file that was opened before.
        num_threads: of the runtime; for a model under 8 MB, among how many threads a batch is divided.
        runtime: `auto`, `tflite_runtime` or `ai_edge_litert`; or an Interpreter class.
        packed: whether XNNPACK may take the graphs. It holds a copy of the weights for each that it takes; without it
            they are read where the file is mapped, and a large model's batches take several times as long. None packs
            a small model at once, and one with over 32 MB of weights when it has been asked for as many rows as packing
            takes time for, if half of the free memory stays free; single rows count only where eight bits are none.
        stream: it is asked for single rows: where `packed` does not say, a model that is not small is never packed.
        search: one of `contract.SEARCHES`, where the model has it; the answers are the same. None takes what is faster
            as a rule: cells; eight bits with LiteRT, where XNNPACK has not packed the model, and for one row of a
            large one; else the full search.

    Raises:
        ModelUnusable: the file is not a knnkit model, or this runtime is too old for it.
        DeviceUnfit: no TFLite runtime is installed.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        num_threads: int = 1,
        runtime: str | type = "auto",
        packed: bool | None = None,
        stream: bool = False,
        search: str | None = None,
    ) -> None:
        self.path = str(path)
        self.info = read_info(path)
        self.settled = 0
        self._graphs = Graphs(self.path, self.info, runtime, num_threads, packed=packed, stream=stream, search=search)
        self._take()
        self._exact: ExactKnn | None = None

    @property
    def search(self) -> str:
        """Which of `contract.SEARCHES` answers a batch, at this moment."""
        return self._graphs.search

    @property
    def search_alone(self) -> str:
        """Which of them answers one row."""
        return self._graphs.alone

    @property
    def batch(self) -> int:
        """How many rows the graph for a batch takes, at this moment; more are answered in several of them."""
        return self._graphs.batch_rows

    def neighbors(self, rows: ArrayLike) -> Neighbors:
        """Returns the k nearest training rows of each of the (n, n_features) raw `rows`.

        Raises:
            BadInput: wrong number of columns, or a value that is not finite.
        """
        if self._ask_one(rows):
            indices, distances = self._neighbors
            return _new(Neighbors, (indices.copy(), distances.copy()))
        return Neighbors(*self._ask(rows, _NEIGHBORS))

    def predict(self, rows: ArrayLike) -> NDArray[Any]:
        """Returns (n,) labels as they were in the training data; rejected rows are `contract.UNKNOWN_LABEL`.

        Raises:
            BadInput: wrong number of columns, or a value that is not finite.
        """
        label = self.labels(rows)
        if self.info.reject is not None:
            return np.array([*self.info.classes, constants.UNKNOWN_LABEL], dtype=object)[label]
        classes: NDArray[Any] = np.array(self.info.classes)
        return classes[label]

    def labels(self, rows: ArrayLike) -> NDArray[np.int32]:
        """Returns (n,) class indices, `contract.UNKNOWN` where rejected, of raw rows: the label of `classify` alone.

        Raises:
            BadInput: wrong number of columns, or a value that is not finite.
        """
        if self._ask_one(rows):
            return np.asarray(self._answers[0].copy())
        return self._ask(rows, _LABEL)[0]

    def predict_proba(self, rows: ArrayLike) -> NDArray[np.float32]:
        """Returns (n, n_classes) float32: each class's share of the neighbours' votes.

        Raises:
            BadInput: wrong number of columns, or a value that is not finite.
        """
        return self.classify(rows).probabilities

    def classify(self, rows: ArrayLike) -> Answers:
        """Returns label, probabilities, neighbours and distances of each of the (n, n_features) raw `rows`.

        Raises:
            BadInput: wrong number of columns, or a value that is not finite.
        """
        if self._ask_one(rows):
            label, probabilities, indices, distances = self._answers
            return _new(Answers, (label.copy(), probabilities.copy(), indices.copy(), distances.copy()))
        return Answers(*self._ask(rows, _ANSWERS))

    def _take(self) -> None:
        """Takes up what answers now."""
        one, loader = self._graphs.one, self._graphs.loader
        self._one = one
        self._answers = tuple(one.outputs[name] for name in _ANSWERS)
        self._neighbors = tuple(one.outputs[name] for name in _NEIGHBORS)
        self._certain = one.outputs[constants.OUTPUT_CERTAIN].data
        self.runtime = reports.RuntimeInfo(
            loader.name, loader.version, self._graphs.delegate, platform.python_version(), np.__version__
        )

    def _note(self, rows: int) -> None:
        """Tells the graphs how many rows are asked for, while that matters."""
        self._graphs.note(rows)
        if self._one is not self._graphs.one:
            self._take()

    def _ask_one(self, rows: ArrayLike) -> bool:
        """Has the graph answer one float32 row in place; returns whether it could, and was certain.

        Whatever else `rows` may be is left to `_ask`. Arrays of a handful of numbers cost more than the numbers, and
        all in all more than the graph of a small model: hence no array is made here.
        """
        one = self._one
        if type(rows) is not np.ndarray or rows.dtype is not _FLOAT32 or rows.shape != one.shape:
            return False
        if self._graphs.waits:
            self._note(1)
            one = self._one
        one.memory[:] = rows.tobytes()
        # A row's square is finite only if the row is; `dot` would warn of its overflow under NumPy 2. Calling it takes
        # as long as adding up a few numbers in Python.
        if not isfinite(sum(one.numbers) if len(one.numbers) <= _FEW else np.vdot(one.flat, one.flat)):
            return False
        try:
            one.run()
        except RuntimeError as error:
            raise unusable(self._graphs.loader, error, "run") from None
        return bool(self._certain[0])

    def _ask(self, rows: ArrayLike, names: tuple[str, ...]) -> tuple[NDArray[Any], ...]:
        """Returns the outputs `names` of any number of rows: checked before, and settled where not certain."""
        queries = check_rows(rows, self.info.n_features)
        if self._graphs.waits:
            self._note(len(queries))
        views = {name: self._one.outputs[name] for name in (*names, constants.OUTPUT_CERTAIN)}
        parts = {name: np.empty((len(queries), *view.shape[1:]), view.dtype) for name, view in views.items()}
        self._graphs.run(queries, parts)
        if not parts[constants.OUTPUT_CERTAIN].all():
            self._settle(queries, parts)
        return tuple(parts[name] for name in names)

    def _settle(self, queries: NDArray[np.float32], parts: dict[str, NDArray[Any]]) -> None:
        exact = self._get_exact()
        for row in np.flatnonzero(~parts[constants.OUTPUT_CERTAIN]):
            settled = exact.answer(queries[row])
            for name in parts.keys() & settled.keys():
                parts[name][row] = settled[name]
            self.settled += 1

    def exactly(self, row: NDArray[np.float32]) -> dict[str, Any]:
        """Returns the model's outputs for one raw (n_features,) float32 row in float64, by output name.

        Raises:
            ModelUnusable: the tables for it are damaged.
        """
        return self._get_exact().answer(row)

    def _get_exact(self) -> ExactKnn:
        if self._exact is None:
            self._exact = ExactKnn(self.path, self.info)
        return self._exact


def check_rows(rows: ArrayLike, n_features: int) -> NDArray[np.float32]:
    """Returns `rows` as (n, n_features) contiguous float32.

    Raises:
        BadInput: wrong shape, not numbers, or a value that is not finite in float32; names the first row and column.
    """
    queries: NDArray[np.float32]
    if type(rows) is np.ndarray and rows.dtype == np.float32:
        queries = np.ascontiguousarray(rows)
    else:
        try:
            with np.errstate(over="ignore"):
                queries = np.ascontiguousarray(rows, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise BadInput(f"the rows are not a table of numbers: {error}") from None
    if queries.ndim != 2 or queries.shape[1] != n_features:
        raise BadInput(f"expected rows of {n_features} numbers, found an array of shape {queries.shape}")
    finite = np.isfinite(queries)
    if not finite.all():
        row, column = (int(place[0]) for place in np.nonzero(~finite))
        raise BadInput(f"row {row}, column {column}: {queries[row, column]} is not a finite float32 number")
    return queries

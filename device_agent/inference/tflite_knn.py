"""k-nearest-neighbours classifier from a `.tflite` file.

Runs in either TFLite runtime, or in NumPy alone. Opens the model by path: the file is mapped, not copied. The graph
proves each answer (its `certain` output), or `exact` computes it again in float64. Checks rows first; never parses
text, and never decides whether a model may run (`device_agent.shared.trust` does).
"""

from __future__ import annotations

import platform
from array import array
from math import inf, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from device_agent.inference.answers import Answers as Answers
from device_agent.inference.answers import Voted, labels_of, queries_of, shares_of, with_votes
from device_agent.inference.graph_runner import unusable
from device_agent.inference.graph_selection import make_searches
from device_agent.inference.interpreter import Loader
from device_agent.inference.numpy_knn import NumpySearch
from device_agent.shared import arguments, label_sets, regression
from device_agent.shared.protocol import constants, reports
from device_agent.shared.protocol.documents import Searched
from device_agent.shared.protocol.errors import BadInput, ModelUnusable
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.queries import Neighbors, Origin, accuracy, answers_by_name, in_doubt, narrow, origin_of
from device_agent.shared.release.model_file import kept_open
from device_agent.shared.release.model_file import read_info as read_info

if TYPE_CHECKING:
    from device_agent.inference.exact import ExactKnn
    from device_agent.shared.embedding.chain import Chain

_FEW, _FARTHEST = 32, 1e17  # numbers that Python adds faster than NumPy; beyond it, a graph of cells found no row
_ANSWERS, _LABEL = constants.ANSWERS, (constants.OUTPUT_LABEL,)
_NEIGHBORS = (constants.OUTPUT_INDICES, constants.OUTPUT_DISTANCES)
_FLOAT32, _FLOAT64, _MAX_FLOAT32 = np.dtype(np.float32), np.dtype(np.float64), np.finfo(np.float32).max
_new = tuple.__new__  # a named tuple's own constructor takes twice as long


class TfliteKNN:
    """A nearest-neighbour classifier in a `.tflite` file that takes raw rows.

    One object serves one thread. `info` is the model's knn.json, `runtime` describes the runtime, and `settled` counts
    the rows that float32 left uncertain. A model with a table also takes raw cells: frames and dictionaries by name of
    column, other rows by position. Rows with a number for each feature, not for each column, count as encoded already.

    Args:
        path: the model file; `/proc/self/fd/N` for a file that is open already.
        num_threads: threads of the runtime; in NumPy, and for a model under 8 MB, threads that share a batch.
        runtime: `auto`, `tflite_runtime`, `ai_edge_litert` or `numpy`; or an Interpreter class. In a process that has
            loaded TensorFlow, `auto` chooses TensorFlow's own; without a TFLite runtime, it chooses NumPy.
        packed: whether XNNPACK may pack the weights: copy them. Unpacked weights are read from the mapped file; batches
            of a large model then take several times as long. None packs up to 4 MB at once, more after `PACK_AFTER`
            rows (over 32 MB, only if half of the free memory stays free; single rows answered in int8 do not count).
        stream: most queries are single rows: with `packed=None`, weights over 32 MB are never packed, others at once.
        search: one of `constants.WAYS` that the model has, or a record of the fastest measured on this board. All
            give equal answers. None chooses what is usually fastest: grid cells; else int8, if the runtime is LiteRT or
            the weights are not packed, and for single rows of a large model; else the full search.

    Raises:
        ModelUnusable: the file is not a knnkit model, or this runtime is too old for it.
        DeviceUnfit: the runtime is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        num_threads: int = 1,
        runtime: str | type = "auto",
        packed: bool | None = None,
        stream: bool = False,
        search: str | Searched | None = None,
    ) -> None:
        self.path = arguments.path_text(path, "path", BadInput)
        self.info = read_info(self.path)
        self._origin = _origin(self.info, self.path)
        self.requested, self.settled = search, 0
        self.chain: Chain | None = None  # of a release with stages (`serving.load`)
        self._file = kept_open(self, self.path)
        self._near = self.info.near if self.info.k > 1 else None
        self._votes = self.info.targets is not None and bool(self.info.targets.classes)
        loader = Loader.find(self._file, runtime, num_threads)
        loader.require_version(self.info)
        found = make_searches(loader, self.info, packed=packed, stream=stream, search=search)
        self._graphs, self._blocks, self._by_blocks = found
        self._exact = self._blocks.exact if self._blocks is self._graphs else None
        self._exactly = False  # whether float64 has answered the row that `_ask_one` has asked
        self.use(cells=self.info.table is not None)
        self._share, self._least = (near.share, near.share * near.least) if (near := self._near) else (0.0, 0.0)
        self._take()

    def use(self, *, cells: bool) -> None:
        """Sets whether rows may be raw cells, such as text; `serving.load` sets False: its rows are encoded before."""
        self.takes_cells = cells
        self._row_type: Any = None if cells or self._by_blocks[1] else _FLOAT32 if self._origin is None else _FLOAT64

    @property
    def search(self) -> str:
        """The search that answers batches at present, one of `constants.WAYS`."""
        return self._by_blocks[0] or self._graphs.search

    @property
    def search_alone(self) -> str:
        """The search that answers single rows at present, one of `constants.WAYS`."""
        return self._by_blocks[1] or self._graphs.alone

    @property
    def batch(self) -> int:
        """Number of rows of the batch graph at present; more rows are answered in several batches."""
        return self._graphs.batch_rows

    @property
    def classes_(self) -> NDArray[Any]:
        """The (n_classes,) labels, in the order of `predict_proba`'s columns."""
        return np.array(self.info.classes)

    def __repr__(self) -> str:
        """Returns name, path, size and runtime of the model, for a notebook."""
        info = self.info
        what = f"{len(info.classes)} classes"
        if info.targets is not None:
            what = f"{'labels' if info.targets.classes else 'targets'} {', '.join(info.targets.names)}"
        size = f"{info.n_train} rows x {info.n_features} features, {what}"
        how = f"{info.how}, {self.runtime.name} {self.runtime.version}"
        return f"<TfliteKNN {info.name!r} from {self.path}: {size}, {how}>"

    def __reduce__(self) -> Any:
        """Raises TypeError: a copy would share the open file and the runtime's memory."""
        raise TypeError(f"a TfliteKNN cannot be copied or pickled; open the file again: TfliteKNN({self.path!r})")

    def neighbors(self, rows: ArrayLike) -> Neighbors:
        """Returns the k nearest training rows of each of the (n, n_features) raw `rows`.

        Raises:
            BadInput: the rows have wrong columns, or a value that is not finite.
        """
        if self._ask_one(rows):
            indices, distances = self._neighbors
            found = _new(Neighbors, (indices.copy(), distances.copy()))
            return found if self._exactly or self._is_ordered() else self._in_order(found)
        return Neighbors(*self._ask(rows, _NEIGHBORS))

    def predict(self, rows: ArrayLike) -> NDArray[Any]:
        """Returns (n,) labels as in the training data; `constants.UNKNOWN_LABEL` for rejected rows.

        A regression gives (n,) float64 values, or (n, t) for t targets, NaN for rejected rows. t label columns give
        (n, t) labels.

        Raises:
            BadInput: the rows have wrong columns, or a value that is not finite.
        """
        if self.info.targets is not None:
            values = self.values_of(self.classify(rows))
            return labels_of(self, values) if self.info.targets.classes else regression.as_column(values)
        label = self.labels(rows)
        if self.info.may_be_unknown:
            return np.array([*self.info.classes, constants.UNKNOWN_LABEL], dtype=object)[label]
        return np.asarray(self.classes_[label])

    def score(self, rows: ArrayLike, labels: ArrayLike) -> float:
        """Returns the share of raw `rows` whose answers equal `labels`; for a regression, R².

        `labels` are (n,), or (n, t) for several columns: all t of a row must be equal. A data frame's columns are found
        by their names.

        Raises:
            BadInput: the rows have wrong columns or labels, or a value that is not finite.
        """
        targets = self.info.targets
        measure = accuracy if targets is None or targets.classes else regression.r_squared
        return measure(self.predict(rows), answers_by_name(labels, targets.names if targets else (), BadInput))

    def values_of(self, answers: Answers) -> NDArray[np.float64]:
        """Returns (n, t) float64: the values of t targets; for label columns, positions of labels in `Targets.classes`.

        Raises:
            BadInput: the model is a classifier with one label column.
        """
        found = self.get_exact().regressor
        if isinstance(answers, Voted):
            return answers.values
        if found is not None:
            return found.values(answers)
        raise BadInput("the model predicts classes, not values", hint="call predict(rows)")

    def labels(self, rows: ArrayLike) -> NDArray[np.int32]:
        """Returns (n,) int32 class indices of raw rows, `constants.UNKNOWN` if rejected; faster than `classify`.

        Raises:
            BadInput: the rows have wrong columns, or a value that is not finite.
        """
        return np.asarray(self._answers[0].copy()) if self._ask_one(rows) else self._ask(rows, _LABEL)[0]

    def predict_proba(self, rows: ArrayLike) -> Any:
        """Returns (n, n_classes) float32, the share of each class in the neighbours' votes.

        With several label columns, returns a list of such arrays, one for each column.

        Raises:
            BadInput: the rows have wrong columns, or a value that is not finite; or the model has no classes.
        """
        if self.info.targets is not None and self.info.targets.classes:
            return shares_of(self, self.classify(rows))
        if self.info.targets is not None:
            raise BadInput("the model predicts values; it has no classes", hint="call predict(rows)")
        return self.classify(rows).probabilities

    def classify(self, rows: ArrayLike) -> Answers:
        """Returns label, probabilities, neighbours and distances for (n, n_features) raw `rows`.

        Raises:
            BadInput: the rows have wrong columns, or a value that is not finite.
        """
        if self.info.label_sets is None and not self._votes and self._ask_one(rows):
            label, probabilities, indices, distances = self._answers
            found = _new(Answers, (label.copy(), probabilities.copy(), indices.copy(), distances.copy()))
            return found if self._exactly or self._is_ordered() else self._in_order(found)
        answers = Answers(*self._ask(rows, _ANSWERS))
        return with_votes(self, rows, answers) if self._votes else answers

    def _take(self) -> None:
        one, loader = self._graphs.one, self._graphs.loader
        self._one = one
        self._answers = tuple(one.outputs[name] for name in _ANSWERS)
        self._written: list[Any] = [(name, one.outputs[name].reshape(-1).data) for name in _ANSWERS]
        self._neighbors = tuple(one.outputs[name] for name in _NEIGHBORS)
        self._certain = one.outputs[constants.OUTPUT_CERTAIN].data
        self._far: Any = one.outputs[constants.OUTPUT_DISTANCES].reshape(-1).data
        self.runtime = reports.RuntimeInfo(
            loader.name, loader.version, self._graphs.delegate, platform.python_version(), np.__version__
        )

    def _note(self, rows: int) -> None:
        self._graphs.note(rows)
        if self._one is not self._graphs.one:
            self._take()

    def _ask_one(self, rows: ArrayLike) -> bool:
        """Answers one (1, n_features) row into the cached views; returns False if the caller must call `_ask` instead.

        Takes only a float32 array (float64 if `origin` must be subtracted). Float64 code answers an uncertain row; but
        for a row outside the grid of cells, returns False, since `_ask` tries the full search first.
        """
        one = self._one
        if type(rows) is not np.ndarray or rows.dtype is not self._row_type or rows.shape != one.shape:
            return False
        if self._graphs.waits:
            self._note(1)
            one = self._one
        one.memory[:] = (rows if self._origin is None else narrow(rows, self._origin)).tobytes()
        # A row whose square is finite is finite. `vdot` does not warn; it takes as long as adding a few Python numbers.
        if not isfinite(sum(one.numbers) if len(one.numbers) <= _FEW else np.vdot(one.flat, one.flat)):
            return False
        try:
            one.run()
        except RuntimeError as error:
            raise unusable(self._graphs.loader, error, "run") from None
        self._exactly = not self._certain[0]
        if not self._exactly or not self._far[-1] < _FARTHEST:
            return not self._exactly  # without a cell, another graph may be certain
        settled = self.get_exact().settle(one)
        for name, view in self._written if settled else ():
            view[:] = array(view.format, settled[name])
        self.settled += 1
        return True

    def _ask(self, rows: ArrayLike, names: tuple[str, ...]) -> tuple[NDArray[Any], ...]:
        """Checks raw rows; returns the outputs called `names`, (n, ...) each. Float64 code answers uncertain rows."""
        queries = queries_of(self.info, rows, self._origin, cells=self.takes_cells)
        if self._graphs.waits:
            self._note(len(queries))
        views = {name: self._one.outputs[name] for name in (*names, constants.OUTPUT_CERTAIN)}
        parts = {name: np.empty((len(queries), *view.shape[1:]), view.dtype) for name, view in views.items()}
        few = len(queries) * 3 <= self._graphs.batch_rows  # a graph answers so few one by one
        if self._blocks is not None and (way := self._by_blocks[few]):
            self._blocks.run(queries, parts, way)
            return tuple(parts[name] for name in names)
        self._graphs.run(queries, parts)
        if self.info.label_sets is not None and names is _ANSWERS:
            parts[constants.OUTPUT_CERTAIN] &= ~label_sets.doubtful(self.info, parts[names[1]], parts[names[3]])
        certain = parts[constants.OUTPUT_CERTAIN]
        if self._near and constants.OUTPUT_DISTANCES in names:
            close = certain & in_doubt(parts[constants.OUTPUT_DISTANCES], self._near)
            self._order(queries, close, parts[constants.OUTPUT_INDICES], parts[constants.OUTPUT_DISTANCES])
        if not certain.all():
            self._settle(queries, parts)
        return tuple(parts[name] for name in names)

    def _is_ordered(self) -> bool:
        """Whether the neighbours that `_ask_one` found are surely in order of distance; faster than `in_doubt`."""
        if self._near is None:
            return True
        far = self._far.tolist()
        gap, last = max(self._share * far[-1], self._least), -inf
        for distance in far:
            if not distance - last > gap:
                return False
            last = distance
        return True

    def _in_order(self, found: Any) -> Any:
        """Sorts the neighbours in `found`, the answer to the row that `_ask_one` answered, and returns it."""
        if not self.get_exact().confirms(self._one.rows, self._neighbors[0][0]):
            self._order(self._one.rows, np.array([True]), found.indices, found.distances)
        return found

    def _order(
        self,
        rows: NDArray[np.float32],
        close: NDArray[np.bool_],
        indices: NDArray[np.int32],
        distances: NDArray[np.float32],
    ) -> None:
        """Sorts in place, by float64 distance, the neighbours of rows marked in `close`; `rows`: raw minus `origin`."""
        if self.info.lattice and close.any():
            close[close] = ~self.get_exact().is_exact(rows[close], distances[close, -1])
        if close.any():
            indices[close], exact = self.get_exact().order(rows[close], indices[close])
            distances[close] = np.minimum(exact, _MAX_FLOAT32)

    def _settle(self, queries: NDArray[np.float32], parts: dict[str, NDArray[Any]]) -> None:
        doubtful = ~parts[constants.OUTPUT_CERTAIN]
        settled = self.get_exact().answers(queries[doubtful])
        for name in parts.keys() & settled.keys():
            parts[name][doubtful] = settled[name]
        self.settled += int(doubtful.sum())

    def exactly(self, row: NDArray[Any]) -> dict[str, Any]:
        """Returns the float64 outputs, by name, for one raw row; ModelUnusable if the exact tables are damaged."""
        return self.get_exact().answer(narrow(row, self._origin))

    def get_exact(self) -> ExactKnn:
        """Returns the float64 classifier of the file; raises ModelUnusable if its exact tables are damaged."""
        if self._exact is None:
            self._exact = (self._blocks or NumpySearch(self._graphs.loader, self.info)).exact
        return self._exact


def _origin(info: KnnInfo, path: str) -> Origin:
    if info.origin is not None and len(info.origin) != info.n_features:
        said = f"{path}: knn.json: origin has {len(info.origin)} numbers for {info.n_features} features"
        raise ModelUnusable(said, hint="build the release again")
    return origin_of(info.origin)

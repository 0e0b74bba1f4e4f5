"""Lookup table from grid cells to proven labels.

For models of one or two scaled features. A cell gets a label if float64 bounds on the distances to the training rows
prove that label for every point of the cell. Other cells are halved while that is worth the time. The graph answers
rows in undecided cells and outside the grid. Used by long runs that need only labels, and by the golden check.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.inference.exact import ExactKnn
from device_agent.inference.tflite_knn import Answers, TfliteKNN
from device_agent.shared.cell_bounds import EITHER_WAY, UNDECIDED, Bounds, Box, Cells, Float32, Float64, Ints, cut_box
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol.constants import UNKNOWN
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.protocol.record import record
from device_agent.shared.queries import check_rows, origin_of

#: With three features, a map takes ten times as long, and decides fewer cells.
MAX_FEATURES = 2
#: Beyond these, a map takes longer than most runs, or more memory than the model.
MAX_ROWS = 1 << 14
MAX_CLASSES = 64

#: Work limit, in distance bounds per training row: about the time of the graph for 10,000 rows.
_BOUNDS_PER_ROW = 1500
_MARGIN = 1.0 / 4  # of the training rows' extent, on each side


@record
class LabelMap:
    """The labels of the cells of a grid."""

    centre: Float32  # (p,) float32, subtracted from each row, after the model's `origin` (a fixed row in knn.json)
    first: Float32  # (p,) float32 lower corner of the grid, as an offset from the centre
    per_unit: Float32  # (p,) float32, number of cells per unit of each coordinate
    #: int8, for each cell its class index, `constants.UNKNOWN` or UNDECIDED. The cells at the border are UNDECIDED, and
    #: stand for everything outside.
    table: NDArray[np.int8]

    def look_up(self, rows: Float32) -> NDArray[np.int8]:
        """Returns (n,) int8 for finite (n, p) raw rows minus `origin`: class index, UNKNOWN or UNDECIDED."""
        cell = np.zeros(len(rows), np.int32)
        for axis, count in enumerate(self.table.shape):
            with np.errstate(over="ignore"):  # far outside
                place = rows[:, axis] - self.centre[axis]
                place -= self.first[axis]
                place *= self.per_unit[axis]
                place += 1
            np.clip(place, 0, count - 0.5, out=place)
            cell *= count
            cell += place.astype(np.int32)
        return self.table.reshape(-1).take(cell)

    def labels(self, model: TfliteKNN, rows: NDArray[Any]) -> NDArray[np.int32]:
        """Returns the (n,) class indices that `model.labels` gives raw `rows`; calls it for rows in undecided cells.

        Raises:
            BadInput: the rows have wrong columns, or a value that is not finite.
        """
        queries = check_rows(rows, model.info.feature_names, origin_of(model.info.origin))
        found = self.look_up(queries).astype(np.int32)
        left = np.flatnonzero(found == UNDECIDED)
        if len(left):
            found[left] = model.labels(rows[left])
        return found


def labeller(model: TfliteKNN) -> Callable[[TfliteKNN, NDArray[Any]], NDArray[np.int32]]:
    """Returns a function (model, raw rows) -> (n,) class indices; it uses a label map if that saves time."""
    found = map_of(model)
    return TfliteKNN.labels if found is None else found.labels


def with_mapped_labels(model: TfliteKNN, golden: Golden, answers: Answers) -> Answers:
    """Returns the model's `answers` to the golden rows, with the label map's label where it differs from the host's.

    So the golden check, which compares labels with the host's (`golden.label`), also finds an error of the map. Other
    rows keep the model's label. Without a map (see `map_of`), `answers` are returned as they are.
    """
    found = map_of(model)
    if found is None:
        return answers
    mapped = found.labels(model, golden.rows)
    return answers._replace(label=np.where(mapped != golden.label, mapped, answers.label))


def map_of(model: TfliteKNN) -> LabelMap | None:
    """Returns a new label map of the model; None if it would not save time (`pays`), or cannot be drawn exactly."""
    parts = ExactKnn(model.path, model.info).scaled_rows() if pays(model.info) else None
    return None if parts is None else draw(*parts, model.info)


def pays(info: KnnInfo) -> bool:
    """Whether a label map saves more time than it takes to draw: only with few features, rows and classes."""
    few = info.targets is None and info.float64 is None and len(info.classes) <= MAX_CLASSES
    return few and info.n_features <= MAX_FEATURES and info.n_train <= MAX_ROWS


def draw(training: Float32, classes: Ints, centre: Float32, scale: Float64, info: KnnInfo) -> LabelMap | None:
    """Returns a new label map; None if float32 is too coarse to find the cell of a row.

    `training` are (n, p) training rows as offsets from the (p,) centre, `classes` their (n,) class indices; `scale` is
    the (p,) factor of each coordinate in model space. The same model always gives the same map.
    """
    box = Box.around(training, scale, _MARGIN)
    if box is None:
        return None
    proof = _Proof(training, classes, box.weight, info)
    table = cut_box(proof.examine, box, len(training), np.int8, _BOUNDS_PER_ROW)
    return LabelMap(centre, box.first, box.per_unit(table.shape), np.pad(table, 1, constant_values=UNDECIDED))


class _Proof:
    """Proves labels that hold for every point of a cell, from bounds on the cell's distances to the training rows.

    Computes with squared distances (manhattan: distances) between rows whose coordinates are multiplied by `weight`.
    `classes` are the (n,) class indices of the training rows.
    """

    def __init__(self, training: Float32, classes: Ints, weight: Float64, info: KnnInfo) -> None:
        self._rows = len(training)
        self._bounds = Bounds(training, weight, manhattan=info.metric == "manhattan")
        self._classes = np.append(classes, 0).astype(np.int32)
        self._k, self._n_classes = info.k, len(info.classes)
        self._votes_are_equal = info.weights == "uniform"
        self._thresholds: Float64 | None = None
        if info.reject is not None:
            thresholds = np.array(info.reject.thresholds)
            self._thresholds = thresholds * thresholds if info.metric == "euclidean" else thresholds

    def examine(self, cells: Cells, middle: Float64, half: Float64) -> tuple[NDArray[np.int8], Cells]:
        """Returns (m,) int8 labels of `cells`, and the UNDECIDED cells, each with the rows that may be neighbours.

        `middle` are the (m, p) centres of the cells, `half` is (p,) half of their sides.
        """
        near, far = self._bounds.take(cells.candidates, middle, half)
        # At least k rows are this near to every point of the cell: a row whose least distance is greater never votes.
        limit = np.partition(far, self._k - 1, axis=1)[:, self._k - 1] * (1.0 + EITHER_WAY)
        possible = near <= limit[:, None]
        labels = self._elect(self._classes[cells.candidates], near, far, possible)
        if self._thresholds is not None:
            labels = self._reject(labels, np.partition(near, self._k - 1, axis=1)[:, self._k - 1], limit)
        rest = np.flatnonzero(labels == UNDECIDED)
        return labels, cells.subset(rest, possible, self._rows)

    def _elect(self, classes: Ints, near: Float64, far: Float64, possible: NDArray[np.bool_]) -> NDArray[np.int8]:
        """Returns (m,) int8: the class that wins the vote at every point of each cell, or `UNDECIDED`.

        The arguments are (m, c), for c candidate rows of each cell: the row's class, its least (`near`) and greatest
        (`far`) distance to a point of the cell, and whether some point may have it as a neighbour (`possible`).
        """
        lowest = np.where(possible, classes, self._n_classes).min(axis=1)
        agreed = lowest == np.where(possible, classes, -1).max(axis=1)
        labels = np.where(agreed, lowest, UNDECIDED).astype(np.int8)
        rest = np.flatnonzero(~agreed)
        if self._votes_are_equal and len(rest):
            labels[rest] = self._count(classes[rest], near[rest], far[rest], possible[rest])
        return labels

    def _count(self, classes: Ints, near: Float64, far: Float64, possible: NDArray[np.bool_]) -> NDArray[np.int8]:
        """Returns (m,) int8: the class that wins whichever k of the possible rows are the neighbours, or `UNDECIDED`.

        For neighbours with equal votes. The arguments are (m, c), for c candidate rows of each cell: the row's class,
        its least (`near`) and greatest (`far`) distance to a point of the cell, and whether it may be a neighbour.
        """
        k = self._k
        # A row is a sure neighbour if at most k rows, itself included, can be as near as its own greatest distance.
        others = np.partition(near, k, axis=1)[:, k] if near.shape[1] > k else np.full(len(near), np.inf)
        sure = possible & (far * (1.0 + EITHER_WAY) < others[:, None])
        votes = self._tally(classes, sure)
        more = self._tally(classes, possible) - votes
        free = k - votes.sum(axis=1, keepdims=True)
        least = votes + np.maximum(0, free - (more.sum(axis=1, keepdims=True) - more))
        most = votes + np.minimum(free, more)
        winner = least.argmax(axis=1)
        cells = np.arange(len(winner))
        most[cells, winner] = -1
        rival = most.argmax(axis=1)
        lead = least[cells, winner] - most[cells, rival]
        return np.where((lead > 0) | ((lead == 0) & (winner < rival)), winner, UNDECIDED).astype(np.int8)

    def _tally(self, classes: Ints, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        slots = (np.arange(len(classes)) * self._n_classes)[:, None] + classes
        counts = np.bincount(slots[chosen], minlength=len(classes) * self._n_classes)
        return counts.reshape(len(classes), self._n_classes)

    def _reject(self, labels: NDArray[np.int8], near: Float64, far: Float64) -> NDArray[np.int8]:
        """Returns (m,) labels, with UNKNOWN for a cell that lies beyond the reject threshold of its label.

        The distance from a point of a cell to its k-th neighbour is at least (m,) `near` and at most `far`. If the
        threshold is between these two, the cell becomes UNDECIDED. A cell of `labels` that was UNDECIDED before becomes
        UNKNOWN if it lies beyond the thresholds of all labels.
        """
        assert self._thresholds is not None
        own = np.where(labels == UNDECIDED, self._thresholds.max(), self._thresholds[labels])
        beyond = near > own * (1.0 + EITHER_WAY)
        within = (labels != UNDECIDED) & (far <= own)
        return np.where(beyond, UNKNOWN, np.where(within, labels, UNDECIDED)).astype(np.int8)

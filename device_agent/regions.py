"""A label map: the cells of a model's space in which every row has the same label, so that looking up is answering.

For a model of one or two features that are only scaled. A cell is decided where bounds on the distances from
anywhere in it to the training rows leave only one label, in float64; it is halved where they do not, as long as that
pays. A row in an undecided cell, or off the map, is left to the graph. Numpy alone; never guesses, and knows nothing
but labels: no neighbours, no shares.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from device_agent.contract import UNKNOWN, KnnInfo
from device_agent.record import record

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]
Ints = NDArray[np.int32]

#: What the map says of a row that it leaves to the graph.
UNDECIDED = -2
#: In three dimensions a map takes ten times as long, and decides less.
MAX_FEATURES = 2
#: Beyond these, a map takes longer than most runs, or more memory than a model.
MAX_ROWS = 1 << 14
MAX_CLASSES = 64

_MAX_CELLS = 1 << 18
_MAX_PER_AXIS = 1 << 12
#: Bounds on distances that a map may take, for each training row: about as long as the graph takes for 10,000 rows.
_BOUNDS_PER_ROW = 1500
_CHUNK = 1 << 14  # bounds taken at a time
_MARGIN = 1.0 / 4  # of the training rows' extent, on each side
#: A cell is proven for a little more than what is looked up in it: finding the cell in float32 rounds by less.
_OVERLAP = 2.0**-9
#: Distances closer than this, relative, may be ordered either way: far above rounding and what counts as a tie.
_EITHER_WAY = 1e-6


@record
class LabelMap:
    """The labels of the cells of a box.

    Attributes:
        centre: (p,) subtracted from a raw row first, as the definition of the model's space has it.
        first: (p,) where the cells begin, as an offset from the centre.
        per_unit: (p,) how many cells there are to a unit of each coordinate.
        table: class index, `contract.UNKNOWN` or UNDECIDED of each cell; one more on each side stands for all outside.
    """

    centre: Float32
    first: Float32
    per_unit: Float32
    table: NDArray[np.int8]

    def look_up(self, rows: Float32) -> NDArray[np.int8]:
        """Returns (n,) labels of raw, finite (n, p) rows: class index, `contract.UNKNOWN`, or UNDECIDED."""
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


def pays(info: KnnInfo) -> bool:
    """Whether a label map is worth drawing for a model."""
    return info.n_features <= MAX_FEATURES and info.n_train <= MAX_ROWS and len(info.classes) <= MAX_CLASSES


def draw(enrolled: Float32, classes: Ints, centre: Float32, scale: Float64, info: KnnInfo) -> LabelMap | None:
    """Returns the label map of (n, p) training rows, given as offsets from the centre; None where there can be none.

    The same model gives the same map. Takes time in proportion to the number of rows.
    """
    lowest, highest = enrolled.min(axis=0).astype(np.float64), enrolled.max(axis=0).astype(np.float64)
    weight = np.abs(scale)
    with np.errstate(all="ignore"):
        extent = (highest - lowest) * weight
        # A feature that never changes is as wide as the widest.
        width = np.where(extent > 0.0, extent, extent.max() or 1.0) / weight
        first = (lowest - _MARGIN * width).astype(np.float32)
        per_width = (1.0 / ((1.0 + 2.0 * _MARGIN) * width)).astype(np.float32)
    if not _is_sane(first, per_width, weight):
        return None
    proof = _Proof(enrolled, classes, weight, info)
    table = _paint(proof, first.astype(np.float64), 1.0 / per_width.astype(np.float64))
    per_unit = per_width * np.array(table.shape, np.float32)
    return LabelMap(centre, first, per_unit, np.pad(table, 1, constant_values=UNDECIDED))


def _is_sane(first: Float32, per_width: Float32, weight: Float64) -> bool:
    """Whether neither float32 in the look-up nor float64 in the proof comes near the ends of its range."""
    with np.errstate(all="ignore"):
        width = 1.0 / per_width.astype(np.float64)
        ranges = (width > 1e-30) & (width < 1e30) & (weight * width > 1e-60) & (weight * width < 1e60)
        return bool((ranges & (np.abs(first) < 2.0**20 * width)).all())


def _paint(proof: _Proof, first: Float64, width: Float64) -> NDArray[np.int8]:
    """Returns the labels of the cells between `first` and `first + width`, as fine as the budget allows."""
    counts = np.ones(len(width), np.int32)
    table = np.full(counts, UNDECIDED, np.int8)
    whole = _Cells(np.zeros((1, len(width)), np.int32), np.arange(proof.rows, dtype=np.int32)[None])
    level: Iterable[_Cells] = [whole]
    budget = _BOUNDS_PER_ROW * proof.rows
    while True:
        side = width / counts
        left = []
        for cells in level:
            labels, undecided = proof.examine(cells, first + (cells.at + 0.5) * side, side * (0.5 + _OVERLAP))
            table[tuple(cells.at.T)] = labels
            if len(undecided.at):
                left.append(undecided)
        split = np.where(side * proof.weight > 0.7 * (side * proof.weight).max(), 2, 1).astype(np.int32)
        counts = counts * split
        cost = sum(cells.candidates.size for cells in left) * int(split.prod())
        budget -= cost
        if not left or budget < 0 or counts.prod() > _MAX_CELLS or counts.max() > _MAX_PER_AXIS:
            return table
        for axis in np.flatnonzero(split == 2):
            table = np.repeat(table, 2, axis=axis)
        level = _split(left, split)


@record
class _Cells:
    """Cells of one level: (m, p) places, and the (m, c) training rows that may be neighbours in each.

    Lists are filled up with a row that is infinitely far away.
    """

    at: Ints
    candidates: Ints


def _split(parents: list[_Cells], split: Ints) -> Iterator[_Cells]:
    """Yields the cells that these are divided into, as many at a time as stay in the processor's cache."""
    offsets = np.stack(np.meshgrid(*map(np.arange, split), indexing="ij"), axis=-1).reshape(-1, len(split))
    for cells in parents:
        step = max(1, _CHUNK // (cells.candidates.shape[1] * len(offsets)))
        for start in range(0, len(cells.at), step):
            at, candidates = cells.at[start : start + step], cells.candidates[start : start + step]
            children = (at[:, None] * split + offsets).reshape(-1, len(split)).astype(np.int32)
            yield _Cells(children, np.repeat(candidates, len(offsets), axis=0))


class _Proof:
    """What bounds on the distances to the training rows say of all rows in a cell.

    Works in weighted coordinates, and with squared distances (for manhattan, distances).
    """

    def __init__(self, enrolled: Float32, classes: Ints, weight: Float64, info: KnnInfo) -> None:
        self.rows, self.weight = len(enrolled), weight
        self._points = [np.append(points, np.inf) for points in (enrolled * weight).T]
        self._classes = np.append(classes, 0).astype(np.int32)
        self._k, self._n_classes = info.k, len(info.classes)
        self._votes_are_equal = info.weights == "uniform"
        self._manhattan = info.metric == "manhattan"
        self._thresholds: Float64 | None = None
        if info.reject is not None:
            thresholds = np.array(info.reject.thresholds)
            self._thresholds = thresholds * thresholds if info.metric == "euclidean" else thresholds

    def examine(self, cells: _Cells, middle: Float64, half: Float64) -> tuple[NDArray[np.int8], _Cells]:
        """Returns the (m,) labels of cells with these (m, p) middles and half sides, and those that are undecided."""
        near, far = self._bounds(cells.candidates, middle * self.weight, half * self.weight)
        limit = np.partition(far, self._k - 1, axis=1)[:, self._k - 1] * (1.0 + _EITHER_WAY)
        possible = near <= limit[:, None]
        labels = self._elect(self._classes[cells.candidates], near, far, possible)
        if self._thresholds is not None:
            labels = self._reject(labels, np.partition(near, self._k - 1, axis=1)[:, self._k - 1], limit)
        rest = np.flatnonzero(labels == UNDECIDED)
        return labels, _Cells(cells.at[rest], _pack(cells.candidates[rest], possible[rest], self.rows))

    def _bounds(self, candidates: Ints, middle: Float64, half: Float64) -> tuple[Float64, Float64]:
        """Returns the least and the greatest distance between a cell and each of its candidates, (m, c) each."""
        near, far = np.zeros(candidates.shape), np.zeros(candidates.shape)
        for axis, points in enumerate(self._points):
            away = np.abs(points[candidates] - middle[:, axis, None])
            beyond, across = np.maximum(away - half[axis], 0.0), away + half[axis]
            near += beyond if self._manhattan else beyond * beyond
            far += across if self._manhattan else across * across
        return near, far

    def _elect(self, classes: Ints, near: Float64, far: Float64, possible: NDArray[np.bool_]) -> NDArray[np.int8]:
        """Returns the class that wins wherever in the cell a row is, (m,)."""
        lowest = np.where(possible, classes, self._n_classes).min(axis=1)
        agreed = lowest == np.where(possible, classes, -1).max(axis=1)
        labels = np.where(agreed, lowest, UNDECIDED).astype(np.int8)
        rest = np.flatnonzero(~agreed)
        if self._votes_are_equal and len(rest):
            labels[rest] = self._count(classes[rest], near[rest], far[rest], possible[rest])
        return labels

    def _count(self, classes: Ints, near: Float64, far: Float64, possible: NDArray[np.bool_]) -> NDArray[np.int8]:
        """Returns the class that has the most votes, whichever of the possible rows are the neighbours, (m,)."""
        k = self._k
        # Neighbours for sure: no more than k rows, themselves among them, can be as near as they are at most.
        others = np.partition(near, k, axis=1)[:, k] if near.shape[1] > k else np.full(len(near), np.inf)
        sure = possible & (far * (1.0 + _EITHER_WAY) < others[:, None])
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
        """Returns how many of the chosen rows of each cell are of each class, (m, n_classes)."""
        slots = (np.arange(len(classes)) * self._n_classes)[:, None] + classes
        counts = np.bincount(slots[chosen], minlength=len(classes) * self._n_classes)
        return counts.reshape(len(classes), self._n_classes)

    def _reject(self, labels: NDArray[np.int8], near: Float64, far: Float64) -> NDArray[np.int8]:
        """Applies the thresholds, from the least and the greatest distance of the k-th neighbour."""
        assert self._thresholds is not None
        own = np.where(labels == UNDECIDED, self._thresholds.max(), self._thresholds[labels])
        beyond = near > own * (1.0 + _EITHER_WAY)
        within = (labels != UNDECIDED) & (far <= own)
        return np.where(beyond, UNKNOWN, np.where(within, labels, UNDECIDED)).astype(np.int8)


def _pack(candidates: Ints, possible: NDArray[np.bool_], filler: int) -> Ints:
    """Returns the possible candidates of each cell, in an array as narrow as the longest list."""
    counts = np.count_nonzero(possible, axis=1)
    cell, _ = chosen = np.nonzero(possible)
    place = np.arange(len(cell)) - np.repeat(np.cumsum(counts) - counts, counts)
    packed = np.full((len(counts), counts.max(initial=0)), filler, np.int32)
    packed[cell, place] = candidates[chosen]
    return packed

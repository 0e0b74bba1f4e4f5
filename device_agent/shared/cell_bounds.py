"""Adaptive grid over a box, with distance bounds per cell.

Finds out what holds for all queries in a part of the space, such as "only these training rows can be neighbours". The
caller decides what to prove about a cell, from float64 bounds on the distances between all points of the cell and the
training rows. A cell for which the proof fails is halved along its longer sides; each half has fewer rows to consider.
Rows and cells are offsets from a centre, which the caller has subtracted. Needs only NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.record import record

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]
Ints = NDArray[np.int32]

#: Table entry of a cell for which nothing was proven.
UNDECIDED = -2
#: Distances that differ by less than this share may be ordered either way. A float64 bound is off by about 1e-15 of
#: itself, and ties end at 2^-40: 1e-6 is far above both.
EITHER_WAY = 1e-6

_MAX_CELLS = 1 << 18
_MAX_PER_AXIS = 1 << 12
_CHUNK = 1 << 14  # bounds per block of work
#: A cell is proven for this share of its side beyond each edge. With at most 2^12 cells per axis, the float32 look-up
#: (three roundings of a coordinate up to 2^12 cells, 2^-24 each) is off by at most 3 * 2^-12 of a side, under 2^-10.
_OVERLAP = 2.0**-9


@record
class Box:
    """The region that is divided into cells."""

    first: Float32  # (p,) float32 lower corner
    per_width: Float32  # (p,) float32, 1 / width of the box
    weight: Float64  # (p,) float64: distances are measured after each coordinate is multiplied by it

    @classmethod
    def around(cls, training: Float32, scale: Float64, margin: float) -> Box | None:
        """Returns the box around (n, p) training rows, plus `margin` times their extent on each side.

        `scale` has the (p,) factors that turn rows into model space. Returns None if float32 is too coarse to find the
        cell of a row.
        """
        lowest, highest = training.min(axis=0).astype(np.float64), training.max(axis=0).astype(np.float64)
        weight = np.abs(scale)
        with np.errstate(all="ignore"):
            extent = (highest - lowest) * weight
            # A constant feature gets the width of the widest.
            width = np.where(extent > 0.0, extent, extent.max() or 1.0) / weight
            first = (lowest - margin * width).astype(np.float32)
            per_width = (1.0 / ((1.0 + 2.0 * margin) * width)).astype(np.float32)
        box = cls(first, per_width, weight)
        return box if box._is_sane() else None

    def _is_sane(self) -> bool:
        """Whether all numbers are far enough from the limits of float32 and float64 for correct bounds."""
        with np.errstate(all="ignore"):
            width = 1.0 / self.per_width.astype(np.float64)
            ranges = (width > 1e-30) & (width < 1e30)
            ranges &= (self.weight * width > 1e-60) & (self.weight * width < 1e60)
            return bool((ranges & (np.abs(self.first) < 2.0**20 * width)).all())

    def per_unit(self, shape: tuple[int, ...]) -> Float32:
        """Returns (p,) float32: how many cells a length of 1 has along each axis, if the box has `shape` cells."""
        return self.per_width * np.array(shape, np.float32)


@record
class Cells:
    """m cells of one size."""

    at: Ints  # (m, p) their indices in the grid, one for each axis
    #: (m, c) indices of the training rows to consider in each cell, ascending, and padded at the end with the index of
    #: a row that is infinitely far away.
    candidates: Ints

    def subset(self, which: NDArray[np.int64], possible: NDArray[np.bool_], filler: int) -> Cells:
        """Returns the cells with the indices `which`, without candidates that are not `possible`, an (m, c) mask.

        `filler` is the row index that pads the lists of candidates.
        """
        return Cells(self.at[which], pack(self.candidates[which], possible[which], filler))


#: (cells, their (m, p) centres, (p,) half sides) -> ((m,) what is proven of each, the cells that stay undecided).
Examine = Callable[[Cells, Float64, Float64], tuple[NDArray[Any], Cells]]


def cut_box(examine: Examine, box: Box, rows: int, dtype: type, bounds_per_row: int) -> NDArray[Any]:
    """Cuts a box into ever smaller cells until `examine` has proved something of each, or a limit is reached.

    Args:
        examine: takes cells, their (m, p) centres and (p,) half widths; returns what it proved of each cell, and the
            cells of which it proved nothing.
        box: the region of the cells.
        rows: number of training rows.
        dtype: dtype of the result.
        bounds_per_row: limit of the work: at most `bounds_per_row * rows` pairs of a cell and a row are considered.

    Returns:
        An array with an axis for each coordinate: what `examine` proved of each cell, or UNDECIDED.
    """
    first, width = box.first.astype(np.float64), 1.0 / box.per_width.astype(np.float64)
    counts = np.ones(len(width), np.int32)
    table: NDArray[Any] = np.full(counts, UNDECIDED, dtype)
    whole = Cells(np.zeros((1, len(width)), np.int32), np.arange(rows, dtype=np.int32)[None])
    level: Iterable[Cells] = [whole]
    budget = bounds_per_row * rows
    while True:
        side = width / counts
        left = []
        for cells in level:
            proven, undecided = examine(cells, first + (cells.at + 0.5) * side, side * (0.5 + _OVERLAP))
            table[tuple(cells.at.T)] = proven
            if len(undecided.at):
                left.append(undecided)
        split = np.where(side * box.weight > 0.7 * (side * box.weight).max(), 2, 1).astype(np.int32)
        counts = counts * split
        cost = sum(cells.candidates.size for cells in left) * int(split.prod())
        budget -= cost
        if not left or budget < 0 or counts.prod() > _MAX_CELLS or counts.max() > _MAX_PER_AXIS:
            return table
        for axis in np.flatnonzero(split == 2):
            table = np.repeat(table, 2, axis=axis)
        level = _split(left, split)


def _split(parents: list[Cells], split: Ints) -> Iterator[Cells]:
    """Cuts each cell into `split` parts along each axis; yields the parts in blocks that fit the processor's cache."""
    offsets = np.stack(np.meshgrid(*map(np.arange, split), indexing="ij"), axis=-1).reshape(-1, len(split))
    for cells in parents:
        step = max(1, _CHUNK // (cells.candidates.shape[1] * len(offsets)))
        for start in range(0, len(cells.at), step):
            at, candidates = cells.at[start : start + step], cells.candidates[start : start + step]
            children = (at[:, None] * split + offsets).reshape(-1, len(split)).astype(np.int32)
            yield Cells(children, np.repeat(candidates, len(offsets), axis=0))


class Bounds:
    """Bounds on the squared distances (manhattan: plain) between cells and (n, p) training rows times (p,) `weight`."""

    def __init__(self, training: Float32, weight: Float64, *, manhattan: bool) -> None:
        self._weight, self._manhattan = weight, manhattan
        self._points = [np.append(points, np.inf) for points in (training * weight).T]

    def take(self, candidates: Ints, middle: Float64, half: Float64) -> tuple[Float64, Float64]:
        """Returns (m, c) lower and upper bounds on the squared distances (manhattan: plain) of cells to candidates.

        `candidates` are (m, c) indices of rows, `middle` (m, p) centres of the cells, `half` (p,) half their widths.
        Per coordinate, a point of a cell is at least |row - middle| - half and at most |row - middle| + half away.
        """
        middle, half = middle * self._weight, half * self._weight
        near, far = np.zeros(candidates.shape), np.zeros(candidates.shape)
        for axis, points in enumerate(self._points):
            away = np.abs(points[candidates] - middle[:, axis, None])
            beyond, across = np.maximum(away - half[axis], 0.0), away + half[axis]
            near += beyond if self._manhattan else beyond * beyond
            far += across if self._manhattan else across * across
        return near, far


def pack(candidates: Ints, possible: NDArray[np.bool_], filler: int) -> Ints:
    """Drops from (m, c) row indices, a list for each cell, those not `possible`; the index `filler` pads each list."""
    counts = np.count_nonzero(possible, axis=1)
    cell, _ = chosen = np.nonzero(possible)
    place = np.arange(len(cell)) - np.repeat(np.cumsum(counts) - counts, counts)
    packed = np.full((len(counts), counts.max(initial=0)), filler, np.int32)
    packed[cell, place] = candidates[chosen]
    return packed

"""Grid of cells, each listing its possible neighbours.

For models of one or two features. A query is compared only with the rows listed for its cell. Float64 bounds on
distances (`cell_bounds`) prove that each list holds the k + 1 nearest rows of every query in the cell. A cell whose
list would be too long has an empty list, and so has the area outside the grid: queries there are compared with all
rows. Plain NumPy; the result is the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.cell_bounds import EITHER_WAY, UNDECIDED, Bounds, Box, Cells, cut_box
from knnkit.model.reference.space import Float32, Float64, Space

Ints = NDArray[np.int32]

#: Fewest training rows for which a look-up is less work than all differences.
LEAST_ROWS = 256
#: In three coordinates, lists take ten times the space. Time and memory of a build grow with the rows.
_MOST_COORDINATES = 2
_MOST_ROWS = 1 << 16
#: List lengths to try, shortest first; no list is longer than half of the training rows.
_LENGTHS = (16, 32, 64, 128, 256)
#: List places per neighbour, at least.
_LEAST_PER_NEIGHBOR = 4
#: Size limit of the tables in bytes: 128 KB and 100 per training value, 16 MB at most.
_MOST_BYTES, _BYTES, _BYTES_EACH = 16 << 20, 128 << 10, 100
#: Work limit of a build: distance bounds per training row and list length.
_BOUNDS_PER_ROW = 400
_MARGIN = 1.0 / 16  # of the training rows' extent, added on each side
#: Least share of the training rows that lie in cells with a list.
_LISTED = 0.98
#: First coordinate of the filler row. Scaled by 1e-10 it is still 3e28 away, whose square overflows float32: no query
#: that the graph calls certain (distances under 1e18) can have the filler as a neighbour.
_LEAST_SCALE, FAR = 1e-10, np.float32(3e38)


@dataclass(frozen=True)
class CellLists:
    """The cells of a grid, and the training rows listed for each cell."""

    first: Float32  # (p,) float32 lower corner of the grid, as an offset from the centre
    per_unit: Float32  # (p,) float32 cells per unit of each coordinate
    table: Ints  # int32 list number of each cell; a border of one cell stands for the area outside the grid
    lists: Ints  # (m, length) int32 training row indices, ascending, padded with n_train

    @property
    def strides(self) -> Float32:
        """(p,) float32 whole numbers: how much a step to the next cell along each coordinate adds to the flat index."""
        return np.array([int(np.prod(self.table.shape[axis + 1 :])) for axis in range(self.table.ndim)], np.float32)

    @staticmethod
    def column(values: Float32, coordinate: int) -> Float32:
        """Returns (n + 1,) float32: n values of a coordinate, and the value of a filler row far from every query."""
        return np.append(values, FAR if coordinate == 0 else np.float32(0.0))


def find_cells(space: Space, enrolled: Float32, k: int) -> CellLists | None:
    """Returns cells with lists as short as possible; None if no length of lists works.

    A length works if the lists fit the size limit, and most of the (n, p) training rows are in cells that have a list.
    """
    count, width = enrolled.shape
    if space.steps or width > _MOST_COORDINATES or not LEAST_ROWS <= count <= _MOST_ROWS:
        return None
    if np.abs(space.scale).min() < _LEAST_SCALE:
        return None
    box = Box.around(enrolled, space.scale, _MARGIN)
    if box is None:
        return None
    room = min(_MOST_BYTES, _BYTES + _BYTES_EACH * enrolled.size)
    bounds = Bounds(enrolled, box.weight, manhattan=space.metric == "manhattan")
    for length in _LENGTHS:
        if _LEAST_PER_NEIGHBOR * (k + 1) <= length <= count // 2:
            lists = _Lists(bounds, count, k, length, room)
            table = cut_box(lists.examine, box, count, np.int32, _BOUNDS_PER_ROW)
            found = CellLists(box.first, box.per_unit(table.shape), lists.numbered(table), lists.joined())
            if found.table.nbytes + found.lists.nbytes <= room and _is_listed(found, enrolled):
                return found
    return None


class _Lists:
    """Builds the list of each cell: the rows that can be neighbours of a query in it, at most `length`.

    A cell with more of these rows is split, as long as all lists together take at most `room` bytes.
    """

    def __init__(self, bounds: Bounds, rows: int, k: int, length: int, room: int) -> None:
        self._bounds, self._rows, self._k, self._length = bounds, rows, k, length
        self._most = room // (4 * length)
        self._made: list[Ints] = []
        self._count = 0

    def examine(self, cells: Cells, middle: Float64, half: Float64) -> tuple[Ints, Cells]:
        """Returns the (m,) int32 list number of each cell, and the cells to split because their lists are too long.

        `middle` are the (m, p) centres of the cells, `half` half the (p,) lengths of their sides, with a small overlap.
        """
        near, far = self._bounds.take(cells.candidates, middle, half)
        # At least k + 1 rows are this near to every query in the cell (the (k + 1)-th least of the greatest distances).
        # So a row whose least distance is greater cannot be among the k + 1 nearest; EITHER_WAY covers the rounding.
        limit = np.partition(far, self._k, axis=1)[:, self._k] * (1.0 + EITHER_WAY)
        possible = near <= limit[:, None]
        short = np.count_nonzero(possible, axis=1) <= self._length
        numbers = np.full(len(cells.at), UNDECIDED, np.int32)
        listed = np.flatnonzero(short)
        numbers[listed] = self._count + np.arange(len(listed), dtype=np.int32)
        self._count += len(listed)
        lists = np.full((len(listed), self._length), self._rows, np.int32)
        found = cells.subset(listed, possible, self._rows).candidates
        lists[:, : found.shape[1]] = found
        self._made.append(lists)
        return numbers, cells.subset(np.flatnonzero(~short & (self._count <= self._most)), possible, self._rows)

    def numbered(self, table: Ints) -> Ints:
        """Returns the cells' list numbers `table` with a border; border and cells without a list get the empty list."""
        return np.pad(np.where(table == UNDECIDED, self._count, table), 1, constant_values=self._count)

    def joined(self) -> Ints:
        """Returns all lists in one (m, length) array; the empty list is the last."""
        empty = np.full((1, self._length), self._rows, np.int32)
        return np.concatenate([*self._made, empty])


def _is_listed(cells: CellLists, enrolled: Float32) -> bool:
    """Whether the share of training rows in cells with a list is at least `_LISTED`."""
    last = np.array(cells.table.shape) - 1
    place = np.clip((enrolled - cells.first) * cells.per_unit + 1, 0, last).astype(np.int32)
    numbers: Any = cells.table[tuple(place.T)]
    return bool((numbers < len(cells.lists) - 1).mean() >= _LISTED)

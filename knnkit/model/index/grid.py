"""Cells of a space of few coordinates, each with all training rows that can be neighbours of a query in it.

However many training rows there are, a query is measured against those of its cell alone. What each list leaves out is
proven by bounds on distances in float64 (`cell_bounds`): the k + 1 nearest rows of every query in the cell are
in its list. Where a list would be too long, and outside of all cells, it is empty, and the query is searched for among
all rows. Plain numpy; what ends up in the model is the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.cell_bounds import EITHER_WAY, UNDECIDED, Bounds, Box, Cells, paint
from knnkit.model.reference.space import Float32, Float64, Space

Ints = NDArray[np.int32]

#: Training rows from which on a look-up is less work than all differences.
LEAST_ROWS = 256
#: Coordinates up to which lists are made, since in three they take ten times the room; and training rows, since time
#: and memory of a build grow with them.
_MOST_COORDINATES = 2
_MOST_ROWS = 1 << 16
#: Lengths of lists, the shortest of which all are that the file has room for; none is longer than half of the rows.
_LENGTHS = (16, 32, 64, 128, 256)
#: Neighbours, for each of which a list has to have room for so many rows.
_LEAST_PER_NEIGHBOR = 4
#: Bytes of tables at most, those of a small model, and more for each number of the training rows.
_MOST_BYTES, _BYTES, _BYTES_EACH = 16 << 20, 128 << 10, 100
#: Bounds on distances that making them may take, for each training row and length.
_BOUNDS_PER_ROW = 400
_MARGIN = 1.0 / 16  # of the training rows' extent, on each side of the cells
#: Share of the training rows that must be in cells with a list.
_LISTED = 0.98
#: Scales that leave the row that fills up lists far away.
_LEAST_SCALE, _FAR = 1e-10, np.float32(3e38)


@dataclass(frozen=True)
class CellLists:
    """The cells, and their lists.

    Attributes:
        first: (p,) float32 where the cells begin, as an offset from the centre.
        per_unit: (p,) float32 how many cells there are to a unit of each coordinate.
        table: int32 number of each cell's list; one more cell on each side stands for all outside.
        lists: (m, length) int32 training rows, ascending, filled up with the number of them all.
    """

    first: Float32
    per_unit: Float32
    table: Ints
    lists: Ints

    @property
    def strides(self) -> Float32:
        """(p,) what a step along each coordinate adds to a cell's number, in whole float32 numbers."""
        return np.array([int(np.prod(self.table.shape[axis + 1 :])) for axis in range(self.table.ndim)], np.float32)

    @staticmethod
    def column(values: Float32, coordinate: int) -> Float32:
        """Returns (n + 1,) values of a coordinate of the training rows, behind them of a row that is near no query."""
        return np.append(values, _FAR if coordinate == 0 else np.float32(0.0))


def find_cells(space: Space, enrolled: Float32, k: int) -> CellLists | None:
    """Returns the cells with the shortest lists that the file has room for; None where that would not pay.

    Args:
        space: of the rows, in which nothing but a scale weights differences.
        enrolled: (n, p) float32 rows in it.
        k: neighbours that are asked for.
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
            table = paint(lists.examine, box, count, np.int32, _BOUNDS_PER_ROW)
            found = CellLists(box.first, box.per_unit(table.shape), lists.numbered(table), lists.joined())
            if found.table.nbytes + found.lists.nbytes <= room and _is_listed(found, enrolled):
                return found
    return None


class _Lists:
    """Makes the lists, cell by cell; a cell is halved while its list is longer than `length`, and there is room."""

    def __init__(self, bounds: Bounds, rows: int, k: int, length: int, room: int) -> None:
        self._bounds, self._rows, self._k, self._length = bounds, rows, k, length
        self._most = room // (4 * length)
        self._made: list[Ints] = []
        self._count = 0

    def examine(self, cells: Cells, middle: Float64, half: Float64) -> tuple[Ints, Cells]:
        """Returns the (m,) numbers of the lists of cells, and the cells whose lists are too long yet."""
        near, far = self._bounds.take(cells.candidates, middle, half)
        # Of all rows, k + 1 are no farther than this from any query in the cell.
        limit = np.partition(far, self._k, axis=1)[:, self._k] * (1.0 + EITHER_WAY)
        possible = near <= limit[:, None]
        short = np.count_nonzero(possible, axis=1) <= self._length
        numbers = np.full(len(cells.at), UNDECIDED, np.int32)
        listed = np.flatnonzero(short)
        numbers[listed] = self._count + np.arange(len(listed), dtype=np.int32)
        self._count += len(listed)
        lists = np.full((len(listed), self._length), self._rows, np.int32)
        found = cells.left(listed, possible, self._rows).candidates
        lists[:, : found.shape[1]] = found
        self._made.append(lists)
        return numbers, cells.left(np.flatnonzero(~short & (self._count <= self._most)), possible, self._rows)

    def numbered(self, table: Ints) -> Ints:
        """Returns the table with a border, in which an empty list stands for what is outside or undecided."""
        return np.pad(np.where(table == UNDECIDED, self._count, table), 1, constant_values=self._count)

    def joined(self) -> Ints:
        """Returns all lists, and the empty one."""
        empty = np.full((1, self._length), self._rows, np.int32)
        return np.concatenate([*self._made, empty])


def _is_listed(cells: CellLists, enrolled: Float32) -> bool:
    """Whether nearly all training rows are in cells that have a list."""
    last = np.array(cells.table.shape) - 1
    place = np.clip((enrolled - cells.first) * cells.per_unit + 1, 0, last).astype(np.int32)
    numbers: Any = cells.table[tuple(place.T)]
    return bool((numbers < len(cells.lists) - 1).mean() >= _LISTED)

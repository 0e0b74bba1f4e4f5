"""Memory-mapped training rows, in blocks with gaps between them.

The rows lie in the model file in blocks of equal length, with equal gaps; the last block may be shorter. Rows
that were taught on the device may be appended. A row has an index (among the training rows) and a position (its index
if the gaps count as rows, too).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


class MappedRows:
    """The (n, p) float32 training rows.

    Args:
        table: the part of the file with all blocks, as (m, p) rows; between two blocks is a gap, read as `gap` rows.
        block: number of rows of a block; None: one block has all.
        gap: length of a gap, in rows.

    Attributes:
        blocks: the blocks without gaps, (r, p) each; read-only.
        pieces: the whole table with its gaps, then appended rows; a position counts the rows of all pieces.
    """

    def __init__(self, table: Float32, block: int | None = None, gap: int = 0) -> None:
        self._table, self._block, self._gap = table, block or max(1, len(table)), gap
        starts = range(0, len(table), self._block + gap)
        self.blocks = [table[start : start + self._block] for start in starts] or [table]
        self.pieces = [table]
        self._own, self._added = sum(map(len, self.blocks)), False

    @classmethod
    def open(cls, path: str, offsets: NDArray[Any], counts: list[int], width: int) -> MappedRows:
        """Returns the rows of a model file.

        Args:
            path: the file.
            offsets: (b,) first byte of each block in the file.
            counts: number of rows of each block.
            width: number p of columns.

        Raises:
            ValueError: the blocks are not at equal distances, or reach beyond the end of the file.
        """
        row_bytes = 4 * width
        apart = int(offsets[1] - offsets[0]) if len(counts) > 1 else counts[0] * row_bytes
        even = apart % row_bytes == 0 and apart >= counts[0] * row_bytes and bool((np.diff(offsets) == apart).all())
        if len(offsets) != len(counts) or not even or len({*counts[:-1]}) > 1 or counts[-1] > counts[0]:
            raise ValueError("the blocks of training rows are not at equal distances in the file")
        gap = apart // row_bytes - counts[0]
        shape = ((len(counts) - 1) * (counts[0] + gap) + counts[-1], width)
        # A plain array: those of the class memmap are slow to index.
        return cls(np.asarray(np.memmap(path, np.float32, "r", int(offsets[0]), shape)), counts[0], gap)

    def append(self, rows: Float32) -> None:
        """Adds (m, p) rows after the others. May be called only once."""
        self.blocks.append(rows)
        self.pieces.append(rows)
        self._added = True

    def take(self, chosen: NDArray[np.integer[Any]]) -> Float32:
        """Returns the (m, p) rows with the (m,) indices `chosen`."""
        own = np.minimum(chosen, self._own - 1) if self._added else chosen
        # On a 32-bit board, take() refuses indices of 64 bits.
        found: Float32 = self._table.take(self.positions(own).astype(np.intp, copy=False), axis=0)
        if self._added:
            added = chosen >= self._own
            found[added] = self.blocks[-1][chosen[added] - self._own]
        return found

    def take_few(self, chosen: list[int]) -> Float32:
        """Returns the (m, p) rows with the indices `chosen`, of which none was appended; faster than `take` for few."""
        return self._table.take([each + each // self._block * self._gap for each in chosen], axis=0)

    def positions(self, chosen: Any) -> Any:
        """Returns the (m,) positions of the rows `chosen`, (m,) indices, which do not count the gaps between blocks."""
        if not self._gap:
            return chosen
        own = np.minimum(chosen, self._own - 1) if self._added else chosen
        return chosen + own // self._block * self._gap

    def position(self, index: int) -> int:
        """Returns the position of the row with this index: the index plus the length of the gaps before it."""
        return index + min(index, self._own - 1) // self._block * self._gap

    def indices(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the (m,) indices of the rows at the (m,) `positions`, which also count the gaps."""
        own = np.minimum(positions, len(self._table) - 1)
        return positions - own // (self._block + self._gap) * self._gap if self._gap else positions

    def spread(self, values: Float32) -> Float32:
        """Returns `values`, one for each row, with infinities inserted for the gaps between the blocks of rows."""
        if not self._gap:
            return values
        found = np.full(sum(map(len, self.pieces)), np.inf, np.float32)
        found[self.positions(np.arange(len(values)))] = values
        return found

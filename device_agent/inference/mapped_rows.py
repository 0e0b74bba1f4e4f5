"""Memory-mapped training rows of a model file, in blocks.

The file has them in blocks of the same number of rows at equal distances; the last block may be shorter. Rows taught on
the device may follow them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


class MappedRows:
    """The (n, p) float32 training rows.

    Args:
        table: the blocks, with a gap between two.
        block: rows of a block; None: all.
        gap: rows of a gap.

    Attributes:
        blocks: the rows, (r, p) each; they must not be changed.
        pieces: the same with the gaps of the file between them; the place of a row is its number among them all.
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
            offsets: (b,) where each block starts, in bytes.
            counts: rows of each block.
            width: p.

        Raises:
            ValueError: the blocks are not at equal distances, or not in the file.
        """
        row_bytes = 4 * width
        apart = int(offsets[1] - offsets[0]) if len(counts) > 1 else counts[0] * row_bytes
        even = apart % row_bytes == 0 and apart >= counts[0] * row_bytes and bool((np.diff(offsets) == apart).all())
        if len(offsets) != len(counts) or not even or len({*counts[:-1]}) > 1 or counts[-1] > counts[0]:
            raise ValueError("its blocks of rows are not at equal distances")
        gap = apart // row_bytes - counts[0]
        shape = ((len(counts) - 1) * (counts[0] + gap) + counts[-1], width)
        # A plain array: those of the class memmap are slow to index.
        return cls(np.asarray(np.memmap(path, np.float32, "r", int(offsets[0]), shape)), counts[0], gap)

    def append(self, rows: Float32) -> None:
        """Adds (m, p) rows behind the others, once."""
        self.blocks.append(rows)
        self.pieces.append(rows)
        self._added = True

    def take(self, chosen: NDArray[np.integer[Any]]) -> Float32:
        """Returns the (m, p) rows with these (m,) numbers."""
        own = np.minimum(chosen, self._own - 1) if self._added else chosen
        # On a 32-bit board, take() refuses indices of 64 bits.
        found: Float32 = self._table.take(self.places(own).astype(np.intp, copy=False), axis=0)
        if self._added:
            added = chosen >= self._own
            found[added] = self.blocks[-1][chosen[added] - self._own]
        return found

    def places(self, chosen: Any) -> Any:
        """Returns the (m,) places of the rows with these (m,) numbers."""
        return chosen + np.minimum(chosen, self._own - 1) // self._block * self._gap if self._gap else chosen

    def place(self, number: int) -> int:
        """Returns the place of one row."""
        return number + min(number, self._own - 1) // self._block * self._gap

    def numbers(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the (m,) numbers of the rows at these (m,) places."""
        own = np.minimum(places, len(self._table) - 1)
        return places - own // (self._block + self._gap) * self._gap if self._gap else places

    def spread(self, values: Float32) -> Float32:
        """Returns (n,) values by place; infinity in a gap."""
        if not self._gap:
            return values
        found = np.full(sum(map(len, self.pieces)), np.inf, np.float32)
        found[self.places(np.arange(len(values)))] = values
        return found

"""Layout of the training rows in the model file.

The file stores the rows once, as one table, for two readers. The exact ranking reads single rows of the table. A batch
multiplies by blocks of rows that fit the processor's cache, which is fastest for a large matrix. The buffer of a block
lies inside that of the table. The format stores a buffer's length directly before it, so the table has a gap (unused
rows) before each block, to hold the length. Computes positions; reads and writes no file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knnkit.model.reference.space import Float32

#: Approximate bytes of a block, which must stay in the cache for the whole batch.
BLOCK_BYTES = 512 << 10
#: Most blocks and fewest rows of one: beyond, a further block costs more than its narrower TOPK_V2 saves.
MOST_BLOCKS = 16
BLOCK_ROWS = 110
#: Rows of a block are a multiple of this, which kernels of matrix products take at once.
_AT_ONCE = 16


def block_width(count: int, least: int, most: int = MOST_BLOCKS) -> int:
    """Returns the number of rows in a block if `count` rows are cut into as many blocks as allowed.

    Allowed are at most `most` blocks of at least `least` rows; the last block may have fewer.
    """
    return -(-count // max(1, min(most, count // least)))


@dataclass(frozen=True)
class Layout:
    """Blocks of `block` rows with a gap of `gap` unused rows before each; a gap of 0 means a single block."""

    block: int
    gap: int

    @classmethod
    def of(cls, rows: NDArray[Any]) -> Layout:
        """Returns the layout with which a file stores (n, p) rows: in blocks that fit the processor's cache."""
        count, row_bytes = len(rows), rows.shape[1] * rows.itemsize
        block = min(block_width(count, BLOCK_ROWS), max(1, BLOCK_BYTES // row_bytes))
        if block >= count:
            return cls(count, 0)
        # Gaps and blocks are multiples of 16 bytes, the alignment of a buffer.
        gap = 16 // math.gcd(16, row_bytes)
        return cls(-(-block // _AT_ONCE) * _AT_ONCE, gap)

    def blocks(self, count: int) -> list[tuple[int, int]]:
        """Returns (position of the first row in the table, number of rows) of each block of `count` training rows."""
        starts = range(0, count, self.block)
        return [(self.position(start), min(self.block, count - start)) for start in starts]

    def position(self, index: Any) -> Any:
        """Returns where training row `index` (an int, array or tensor) is in the table, counting the gaps before it."""
        return index + (index // self.block + 1) * self.gap if self.gap else index

    def index(self, position: Any) -> Any:
        """Returns the index of the training row at `position` of the table."""
        return position - (position // (self.block + self.gap) + 1) * self.gap if self.gap else position

    def parts(self, rows: NDArray[Any]) -> list[NDArray[Any]]:
        """Returns the (n + gaps, p) table of (n, p) `rows` as a list of gaps (zeros) and blocks (views of `rows`)."""
        gap = np.zeros((self.gap, *rows.shape[1:]), rows.dtype)
        blocks = [rows[start : start + self.block] for start in range(0, len(rows), self.block)]
        return [each for block in blocks for each in (gap, block)] if self.gap else [np.ascontiguousarray(rows)]

    def table(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Returns the (n + gaps, p) table of (n, p) `rows`, with a gap (rows of zeros) before each block."""
        return np.concatenate(self.parts(rows)) if self.gap else np.ascontiguousarray(rows)

    def column(self, values: Float32, filler: float) -> Float32:
        """Returns (n + gaps,) float32: (n,) `values` at their rows' positions, `filler` in the gaps before blocks."""
        blocks = self.blocks(len(values))
        table = np.full(blocks[-1][0] + blocks[-1][1], filler, np.float32)
        table[self.position(np.arange(len(values)))] = values
        return table


@dataclass(frozen=True)
class StoredRows:
    """The table of training rows as a file stores it: in blocks, with a gap (unused rows) before each."""

    #: (n, p) float32, or int8 multiples of `step`; or (n,) float32 or int32 with one number for each row.
    rows: NDArray[Any]
    layout: Layout  # positions of the rows and gaps
    step: float | None = None  # an int8 value of 1 stands for this number; None for float32 rows
    at: int = 0  # for a block of a larger table: position of its first row in that table
    whole: NDArray[Any] | None = None  # for a block of a larger table: all rows of that table; else None

    @classmethod
    def of(cls, rows: NDArray[Any]) -> StoredRows:
        """Returns a table of (n, p) rows, or of (n,) numbers, one for each row; it is a single block without gaps."""
        return cls(rows, Layout(len(rows), 0))

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns), or (rows,) if the table has one number for each row; unused rows between blocks count."""
        last, count = self.layout.blocks(len(self.rows))[-1]
        return last + count, *self.rows.shape[1:]

    @property
    def number_type(self) -> Any:
        """NumPy type of the numbers in TensorFlow, where int8 rows are still float32: `convert` replaces them."""
        return self.rows.dtype.type if self.step is None else np.float32

    @property
    def row_bytes(self) -> int:
        """Number of bytes of one row in the file."""
        return self.rows[:1].nbytes

    @property
    def parts(self) -> list[NDArray[np.uint8]]:
        """The bytes of the table, an array for each gap and block, without a copy of the rows."""
        return [np.ascontiguousarray(each).reshape(-1).view(np.uint8) for each in self.layout.parts(self.rows)]

    def blocks(self) -> list[StoredRows]:
        """Returns each block of rows as a table of its own, without gaps."""
        starts = range(0, len(self.rows), self.layout.block)
        parts = ((start, self.rows[start : start + self.layout.block]) for start in starts)
        return [
            StoredRows(rows, Layout(len(rows), 0), self.step, self.layout.position(at), self.rows) for at, rows in parts
        ]

    def join(self) -> Float32:
        """Returns the float32 table in one piece."""
        table = self.layout.table(self.rows)
        return table if self.step is None else table * np.float32(self.step)

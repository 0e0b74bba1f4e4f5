"""Layout of the training rows in the model file.

A batch against a large matrix is fastest in blocks that fit the processor's cache. Each block is a buffer of its own,
and the format stores a buffer's length directly before it. So the one table that the exact ranking gathers from has a
gap before each block, and the rows are stored only once. Computes row numbers; reads and writes no file.
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
    """Returns rows per block, so that `count` rows make at most `most` blocks of at least `least` rows."""
    return -(-count // max(1, min(most, count // least)))


@dataclass(frozen=True)
class Layout:
    """Blocks of `block` rows with a gap of `gap` rows before each; a gap of 0 means a single block."""

    block: int
    gap: int

    @classmethod
    def of(cls, rows: NDArray[Any]) -> Layout:
        """Returns the layout for (n, p) rows of any number type."""
        count, row_bytes = len(rows), rows.shape[1] * rows.itemsize
        block = min(block_width(count, BLOCK_ROWS), max(1, BLOCK_BYTES // row_bytes))
        if block >= count:
            return cls(count, 0)
        # Gaps and blocks are multiples of 16 bytes, the alignment of a buffer.
        gap = 16 // math.gcd(16, row_bytes)
        return cls(-(-block // _AT_ONCE) * _AT_ONCE, gap)

    def blocks(self, count: int) -> list[tuple[int, int]]:
        """Returns first place in the table and number of rows of each block of `count` training rows."""
        starts = range(0, count, self.block)
        return [(self.place(start), min(self.block, count - start)) for start in starts]

    def place(self, index: Any) -> Any:
        """Returns the place in the table of a training row; `index` is an int, an array or a tensor."""
        return index + (index // self.block + 1) * self.gap if self.gap else index

    def index(self, place: Any) -> Any:
        """Returns the training row at a place of the table."""
        return place - (place // (self.block + self.gap) + 1) * self.gap if self.gap else place

    def table(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Returns the (n + gaps, p) table; gaps are zeros."""
        if not self.gap:
            return np.ascontiguousarray(rows)
        blocks = self.blocks(len(rows))
        last, count = blocks[-1]
        table = np.zeros((last + count, rows.shape[1]), rows.dtype)
        for number, (start, count) in enumerate(blocks):
            table[start : start + count] = rows[number * self.block : number * self.block + count]
        return table

    def column(self, values: Float32, filler: float) -> Float32:
        """Returns one value for each place of the table, `filler` in the gaps."""
        blocks = self.blocks(len(values))
        table = np.full(blocks[-1][0] + blocks[-1][1], filler, np.float32)
        table[self.place(np.arange(len(values)))] = values
        return table

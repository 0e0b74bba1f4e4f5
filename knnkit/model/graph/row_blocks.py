"""How the training rows stand in the model file: in one piece, or in blocks with gaps between them.

A batch against a large matrix is fastest in blocks that fit the processor's cache. Each block is a buffer of its own,
whose length the format wants right in front of it: so the table that the re-rank gathers from has a gap before every
block, and the rows are stored once. Plain arithmetic on row numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knnkit.model.reference.space import Float32

#: Bytes of one block, about: it is to stay in the cache while the batch passes over it.
BLOCK_BYTES = 512 << 10
#: Blocks and their rows, about, from which on more blocks cost more than their narrower TOPK_V2 saves.
MOST_BLOCKS = 16
BLOCK_ROWS = 110
#: A block is a whole number of so many rows: kernels of matrix products take that many at once.
_AT_ONCE = 16


def block_width(count: int, least: int, most: int = MOST_BLOCKS) -> int:
    """Returns the rows of a block, if `count` rows are to make at most `most` blocks of at least `least` rows."""
    return -(-count // max(1, min(most, count // least)))


@dataclass(frozen=True)
class Layout:
    """`block` rows stand together, with a gap of `gap` rows before each block; without a gap it is one block."""

    block: int
    gap: int

    @classmethod
    def of(cls, rows: NDArray[Any]) -> Layout:
        """Returns the layout for (n, p) rows of any number type."""
        count, row_bytes = len(rows), rows.shape[1] * rows.itemsize
        block = min(block_width(count, BLOCK_ROWS), max(1, BLOCK_BYTES // row_bytes))
        if block >= count:
            return cls(count, 0)
        # So many rows that a gap, and a block, is a whole number of 16 bytes.
        gap = 16 // math.gcd(16, row_bytes)
        return cls(-(-block // _AT_ONCE) * _AT_ONCE, gap)

    def blocks(self, count: int) -> list[tuple[int, int]]:
        """Returns first place in the table and number of rows of each block of `count` training rows."""
        starts = range(0, count, self.block)
        return [(self.place(start), min(self.block, count - start)) for start in starts]

    def place(self, index: Any) -> Any:
        """Returns where in the table a training row stands; `index` is a number, an array or a tensor."""
        return index + (index // self.block + 1) * self.gap if self.gap else index

    def index(self, place: Any) -> Any:
        """Returns which training row stands at a place of the table."""
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

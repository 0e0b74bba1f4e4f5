"""Training rows in eight bits, among which candidates are looked for in a quarter of the memory that is read otherwise.

Every row is rounded to steps of one size, the query to steps of its own; sums of products of such whole numbers are
exact in any kernel. Whatever the rounding moves a row by, it moves a distance by no more (the triangle inequality), so
the exact differences of some more candidates settle what it leaves open. How many that takes is asked of a sample;
where it is too many, as with one feature of a far larger range, rows are not quantized. Plain numpy in float64; what
ends up in the model is the same on every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knnkit.model.index.cost_sample import MOST_CANDIDATES, PART, SHARE, SPARE, Sample
from knnkit.model.index.projection import Projection
from knnkit.model.reference.space import Float32, Float64

#: Products of a query with all rows from which on eight bits can pay: fewer are not what a query waits for.
LEAST_WEIGHTS = 1 << 18
#: Steps on either side of zero. One more would fit into eight bits, but then kernels that add two products in sixteen
#: bits (the ARM ones of XNNPACK) could overflow.
STEPS = 127
#: Relative to the steps of the rows, the least steps of a query: those of one at the centre are not to vanish.
LEAST_STEP = 2.0**-10
#: What float32 may round off the length of what quantizing leaves of a row: relative to it, and in steps a coordinate.
_RELATIVE, _ABSOLUTE = 2.0**-10, 2.0**-13
#: Columns of the table are whole numbers of eight, as vector units like, and no whole number of sixteen: for such, the
#: kernel of tflite-runtime 2.14 for ARM with dot products ends the process (docs/decisions/006).
_COLUMNS, _NOT = 8, 16


@dataclass(frozen=True)
class Quantized:
    """Candidates are searched among `table * step`.

    Attributes:
        table: (n, r + padding) int8, the rows in steps; zeros where a query has its marks.
        step: size of a step, a float32 number.
        error: how far a row may be from its whole steps.
        squares: (n,) float64 squared lengths of the rows in whole steps.
        candidates: how many to rank exactly.
        width: r, of the rows that are searched.
    """

    table: NDArray[np.int8]
    step: float
    error: float
    squares: Float64
    candidates: int
    width: int

    @property
    def marks(self) -> Float32:
        """(padding,) what a query gets behind its steps: the ends of the range, which make a kernel's steps the same.

        A kernel divides the range of a row, with zero in it, into 255 steps (tensorflow/lite/kernels/internal,
        AsymmetricQuantizeFloats; XNNPACK, qd8): from -128 to 127, one is one.
        """
        marks = np.zeros(self.table.shape[1] - self.width, np.float32)
        marks[:2] = -STEPS - 1, STEPS
        return marks


def blurred(length: Any, step: Any, width: int) -> Any:
    """Returns how long what quantizing leaves of a row may be at most, as lengths and steps are told in float32.

    A kernel's steps are those of the query but for three roundings, and 127 of them are what a coordinate may have.
    """
    return length * (1.0 + _RELATIVE) + step * (_ABSOLUTE * math.sqrt(width))


def quantize(sample: Sample, projection: Projection | None, over_fetch: int) -> Quantized | None:
    """Returns the sample's rows, or their projection, in eight bits; None where a search among them would not pay.

    Args:
        sample: of the rows, and what is asked of them.
        projection: in which candidates are searched; None for all coordinates.
        over_fetch: candidates beyond k that are wanted in any case.
    """
    rows = sample.enrolled if projection is None else projection.rows
    if sample.space.metric == "manhattan" or rows.size < LEAST_WEIGHTS or sample.k >= len(rows) // 2:
        return None
    scale = sample.space.scale if projection is None else np.ones(rows.shape[1])
    quantized = _quantize(rows, scale)
    if quantized is None:
        return None
    asked = sample.asked if projection is None else projection.rows[sample.chosen].astype(np.float64)
    needed = np.quantile(_count_within(sample, asked, quantized), SHARE)
    candidates = max(sample.k, int(SPARE * needed)) + over_fetch
    if candidates > min(MOST_CANDIDATES, len(rows) // 2):
        return None
    table, step, error, squares = quantized
    columns = -(-(rows.shape[1] + 2) // _COLUMNS) * _COLUMNS
    columns += 0 if columns % _NOT else _COLUMNS
    padded = np.pad(table, ((0, 0), (0, columns - rows.shape[1])))
    return Quantized(padded, step, error, squares, candidates, rows.shape[1])


_Table = tuple[NDArray[np.int8], float, float, Float64]


def _quantize(rows: Float32, scale: Float64) -> _Table | None:
    """Returns rows in steps, the step, the greatest error and the squared lengths; None where steps would vanish."""
    greatest = max(float(np.abs(rows[start : start + PART] * scale).max()) for start in range(0, len(rows), PART))
    step = float(np.float32(greatest / STEPS))
    if not 1e-15 < step < 1e15:
        return None
    table, squares, error = np.empty(rows.shape, np.int8), np.empty(len(rows)), 0.0
    for start in range(0, len(rows), PART):
        part = rows[start : start + PART].astype(np.float64) * scale
        whole = np.clip(np.round(part / step), -STEPS, STEPS)
        table[start : start + PART] = whole
        left = part - whole * step
        error = max(error, float((left * left).sum(axis=1).max()))
        squares[start : start + PART] = (whole * whole).sum(axis=1) * (step * step)
    return table, step, blurred(math.sqrt(error), step, rows.shape[1]), squares


def _count_within(sample: Sample, asked: Float64, quantized: _Table) -> NDArray[np.int64]:
    """Returns how many rows each of the sample must look at: those that may be nearer than its k-th nearest is."""
    table, step, error, squares = quantized
    steps = np.maximum(np.abs(asked).max(axis=1, keepdims=True) / STEPS, step * LEAST_STEP)
    whole = np.round(asked / steps)
    left = asked - whole * steps
    left = blurred(np.sqrt((left * left).sum(axis=1, keepdims=True)), steps, asked.shape[1])
    within = (np.sqrt(sample.kth.clip(0.0)) + left + error) ** 2 - ((whole * steps) ** 2).sum(axis=1, keepdims=True)
    counts = np.zeros(len(asked), np.int64)
    for start in range(0, len(table), PART):
        part = table[start : start + PART].astype(np.float64)
        counts += (squares[start : start + PART] - 2.0 * step * steps * (whole @ part.T) <= within).sum(axis=1)
    return counts

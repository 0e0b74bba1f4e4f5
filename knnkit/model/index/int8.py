"""int8 copy of the training rows for candidate search.

The search reads a quarter of the memory; an exact ranking corrects the rounding. All rows are rounded to multiples of
one step, a query to multiples of its own step, so that kernels add whole numbers, exact in any order. Rounding moves a
point, and changes each of its distances by at most the length of that move (triangle inequality). So the nearest rows
are among a few more candidates than k, which are ranked exactly; a sample of queries measures how many. Rows are not
quantized if too many are needed, as with one feature of a far larger range. NumPy, float64; the same result on every
machine.
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

#: Fewest training values (262,144) for which int8 pays; a smaller product does not dominate the time of a query.
LEAST_WEIGHTS = 1 << 18
#: Steps on either side of zero. -128 is left out: ARM kernels of XNNPACK add two products in int16, and
#: 2 * 128 * 128 = 2^15 overflows.
STEPS = 127
#: Least step of a query, relative to the step of the rows: a query at the centre must not get a step of zero.
LEAST_STEP = 2.0**-10
#: Error of a rounding remainder, in float32. Relative: its square sum is off by rho, its length by rho / 2, which is
#: under 2^-10 for p up to 10^6. Absolute, per coordinate: a kernel's step differs from the query's by three roundings
#: (3 * 2^-24), times up to 127 steps, is 2^-15.4 of a step; 2^-13 is five times that.
_RELATIVE, _ABSOLUTE = 2.0**-10, 2.0**-13
#: Columns of the table are a multiple of 8 (vector width) but not of 16, on which the tflite-runtime 2.14 kernel for
#: ARM with dot products ends the process (docs/decisions/006).
_COLUMNS, _NOT = 8, 16


@dataclass(frozen=True)
class Quantized:
    """The training rows rounded to int8 multiples of a step: row = `table * step`."""

    table: NDArray[np.int8]  # (n, r + padding) int8, the rows as numbers of steps; the padding columns are zeros
    step: float  # size of a step, a float32 value
    error: float  # greatest distance between a row and its rounded row, in units of model space
    squares: Float64  # (n,) float64 squared lengths of the rounded rows
    candidates: int  # number of candidates to rank exactly
    width: int  # r, the number of coordinates that are searched

    @property
    def marks(self) -> Float32:
        """(padding,) float32 values to append to a query, as multiples of its quantization step: -128, 127, zeros.

        They make a kernel round the query with the query's own step: it divides the range from a row's least to its
        greatest value into 255 steps (tensorflow/lite/kernels/internal, AsymmetricQuantizeFloats; XNNPACK, qd8).
        """
        marks = np.zeros(self.table.shape[1] - self.width, np.float32)
        marks[:2] = -STEPS - 1, STEPS
        return marks


def blurred(length: Any, step: Any, width: int) -> Any:
    """Returns an upper bound on how far rounding to multiples of `step` moved a point of `width` coordinates.

    `length` is that distance as computed in float32; the bound covers the errors of the computation.
    """
    return length * (1.0 + _RELATIVE) + step * (_ABSOLUTE * math.sqrt(width))


def quantize(sample: Sample, projection: Projection | None, over_fetch: int) -> Quantized | None:
    """Returns the training rows, or their projection, in int8; None if int8 would not make the search faster.

    `projection` is the projection to search in (None: all coordinates); `over_fetch` is added to the number of
    candidates that the sample needs.
    """
    rows = sample.enrolled if projection is None else projection.rows
    if sample.space.metric == "manhattan" or rows.size < LEAST_WEIGHTS or sample.k >= len(rows) // 2:
        return None
    scale = sample.space.scale if projection is None else np.ones(rows.shape[1])
    quantized = _quantize(rows, scale)
    if quantized is None:
        return None
    queries = sample.queries if projection is None else projection.rows[sample.chosen].astype(np.float64)
    needed = np.quantile(_count_within(sample, queries, quantized), SHARE)
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
    """Returns int8 rows, step, greatest error and squared lengths of the rows times the (p,) factors `scale`.

    None if a squared step leaves float32's range.
    """
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


def _count_within(sample: Sample, queries: Float64, quantized: _Table) -> NDArray[np.int64]:
    """Returns for each query the number of rows whose int8 distance may be below that of its k-th neighbour, (m,).

    `queries` are those of `sample`, projected if the int8 rows are; `quantized` is a result of `_quantize`.
    """
    table, step, error, squares = quantized
    steps = np.maximum(np.abs(queries).max(axis=1, keepdims=True) / STEPS, step * LEAST_STEP)
    whole = np.round(queries / steps)
    left = queries - whole * steps
    left = blurred(np.sqrt((left * left).sum(axis=1, keepdims=True)), steps, queries.shape[1])
    # A row at true distance d is at most d + left + error away between rounded points; ‖x‖² moves to the other side.
    within = (np.sqrt(sample.kth.clip(0.0)) + left + error) ** 2 - ((whole * steps) ** 2).sum(axis=1, keepdims=True)
    counts = np.zeros(len(queries), np.int64)
    for start in range(0, len(table), PART):
        part = table[start : start + PART].astype(np.float64)
        counts += (squares[start : start + PART] - 2.0 * step * steps * (whole @ part.T) <= within).sum(axis=1)
    return counts

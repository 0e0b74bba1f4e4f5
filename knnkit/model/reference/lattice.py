"""Training rows whose coordinates are whole multiples of one step.

Pixels, counts, bits and one-hot columns lie on such a lattice. Its step is a power of two, so differences, squares and
products are whole multiples, too. float32 adds them without rounding, in any order, while all sums stay within 2^24.
Finds the lattice; never changes a value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]

#: Whole numbers up to here are exact in float32.
MOST = 2.0**24
#: Most steps from one end of a column to the other; the square of a longer difference is not exact.
_WIDEST = 2.0**12
#: Range of steps whose squares, and 2^24 times these, are far from the ends of float32.
_STEPS = (1e-12, 1e12)
#: Rows, and numbers, that are held in float64 at a time.
_ROWS, _NUMBERS = 4096, 4 << 20


@dataclass(frozen=True)
class Lattice:
    """A grid of points, `step` apart in each coordinate, on which all training rows lie, in model space."""

    step: float  # power of two; every coordinate, after `scale`, is a whole multiple of it
    reach: float  # greatest Euclidean length of a training row, in steps

    def scored_within(self, blocks: int) -> tuple[float, float]:
        """Returns the greatest length of a query whose scores are not rounded, and the argument `apart` of `Scores`.

        The length is in steps. Each of `blocks` blocks of rows scores lower than the one before by `apart`, in squared
        steps (0 for one block). Both are 0 if only queries shorter than `reach` had exact scores.

        A score x·t - ‖t‖²/2 is a multiple of 1/2, and so is every partial sum. No sum is over (‖x‖ + reach)²/2 (Cauchy
        and Schwarz). float32 holds multiples of 1/2 exactly up to 2^24 halves, so that is the limit of this bound.
        With more blocks, scores are multiples of `apart`, a power of two so small that the last block subtracts less
        than 1/2. They are exact while (‖x‖ + reach)²/2 + 1/2 is at most 2^24 times `apart`.
        """
        if blocks == 1:
            return math.sqrt(MOST) - self.reach, 0.0
        longest = 2.0 * self.reach + 8.0
        apart = 2.0 ** math.ceil(math.log2(((longest + self.reach) ** 2 + 1.0) / (2.0 * MOST)))
        if apart * blocks > 0.5:
            apart = 2.0 ** -math.ceil(math.log2(2 * blocks))
            longest = math.sqrt(2.0 * MOST * apart - 1.0) - self.reach
        return (longest, apart) if longest >= self.reach else (0.0, 0.0)


def choose_centre(values: NDArray[Any]) -> Float32:
    """Returns a (p,) float32 centre near the mean.

    If possible, the offset of every value from the centre is exact in float32, and a whole number of lattice steps.
    """
    width, step = values.shape[1], max(2, _NUMBERS // len(values))
    groups = [slice(start, min(start + step, width)) for start in range(0, width, step)]
    mean = np.concatenate([values[:, group].astype(np.float64).mean(axis=0) for group in groups])
    spread = np.concatenate([values[:, group].astype(np.float64).std(axis=0) for group in groups])
    on_lattice = centre_on(values, mean)
    chosen = []
    for group in groups:
        whole = None if on_lattice is None else on_lattice[group]
        chosen.append(_choose_columns(values[:, group].astype(np.float64), mean[group], spread[group], whole))
    return np.concatenate(chosen)


def _choose_columns(exact_values: Float64, mean: Float64, spread: Float64, on_lattice: Float64 | None) -> Float32:
    grid = 2.0 ** np.floor(np.log2(np.where(spread > 0, spread, 1.0)))
    tries = [mean, *(np.round(mean / (grid * fine)) * grid * fine for fine in (2.0**-10, 2.0**-4, 0.5))]
    tries = tries if on_lattice is None else [on_lattice, *tries]
    centre = mean.astype(np.float32)
    settled = np.zeros(len(mean), dtype=bool)
    for candidate in tries:
        rounded = candidate.astype(np.float32)
        offsets = exact_values - rounded
        exact = (offsets.astype(np.float32) == offsets).all(axis=0) & ~settled
        centre[exact] = rounded[exact]
        settled |= exact
    found: Float32 = centre
    return found


def centre_on(values: NDArray[Any], mean: Float64) -> Float64 | None:
    """Returns the point nearest to `mean` on the grid of (n, p) columns; None if one spans more than `_WIDEST` steps.

    The grid of a column begins at its first value. Its step is the greatest power of two that divides all offsets from
    there: 0.5, 1.5 and 2.5 are whole steps of 1 apart.
    """
    first = values[0].astype(np.float64)
    steps, widest = np.full(len(first), np.inf), np.zeros(len(first))
    for start in range(0, len(values), _ROWS):
        offsets = values[start : start + _ROWS].astype(np.float64) - first
        steps = np.minimum(steps, _steps(offsets))
        widest = np.maximum(widest, np.abs(offsets).max(axis=0))
        if (widest > _WIDEST * steps).any():
            return None
    steps = np.where(np.isinf(steps), 1.0, steps)
    return np.asarray(first + np.round((mean - first) / steps) * steps)


def find_lattice(enrolled: NDArray[np.float32], scale: Float64) -> Lattice | None:
    """Returns the grid of (n, p) training rows times (p,) `scale`; None if float32 would not add its steps exactly."""
    if not (np.frexp(scale)[0] == 0.5).all():  # a product with another factor may be rounded
        return None
    step, squares = math.inf, 0.0
    for start in range(0, len(enrolled), _ROWS):
        weighted = enrolled[start : start + _ROWS] * scale
        step = min(step, float(_steps(weighted).min()))
        squares = max(squares, float((weighted * weighted).sum(axis=1).max()))
        if step < _STEPS[0] or squares >= MOST * step * step:
            return None
    if step > 1.0 and squares < MOST:  # rows that happen to be even, or all at one place: a query may be odd
        step = 1.0
    return Lattice(step, math.sqrt(squares) / step) if step < _STEPS[1] else None


def _steps(values: Float64) -> Float64:
    """Returns (p,) float64: the greatest power of two that divides all values of a column; infinity if all are 0."""
    mantissa, exponent = np.frexp(values)
    whole = np.ldexp(mantissa, 53).astype(np.int64)
    lowest = np.frexp((whole & -whole).astype(np.float64))[1] - 1
    steps: Float64 = np.where(whole == 0, np.inf, np.ldexp(1.0, exponent - 53 + lowest)).min(axis=0)
    return steps

"""Sums of many rows, each rounded only once.

Like `math.fsum`: gives the same bits on every IEEE machine, in any order of addition. Needs only NumPy.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

#: So few terms take `math.fsum` less time than NumPy's many calls.
_FEW = 1024


def add_rows(terms: Float64) -> Float64:
    """Returns the (m,) sums of (m, p) finite terms, each rounded once.

    Adds in pairs and keeps the rounding error of every addition (TwoSum, Knuth 1969), so sum plus errors is the exact
    sum. The sum of the p errors has itself an error of less than p 2^-53 times the sum of their absolute values. Where
    that could change the result, `math.fsum` adds the row again. Sums of small whole numbers are exact at once.

    Raises:
        OverflowError: a sum exceeds float64.
    """
    if terms.size <= _FEW:
        return np.array(add_few(terms))
    with np.errstate(over="ignore", invalid="ignore"):
        total, lost, size = _add_pairs(terms)
        found: Float64 = total + lost
        off = size * (2.0**-52 * terms.shape[1])
        unsure = (total + (lost - off) != total + (lost + off)) | ~np.isfinite(found)
    for row in np.flatnonzero(unsure):
        found[row] = math.fsum(terms[row].tolist())
    return found


def add_few(terms: Float64) -> list[float]:
    """Returns the m sums of (m, p) finite terms, each rounded once; faster than `add_rows` for few terms."""
    return [math.fsum(row) for row in terms.tolist()]


def _add_pairs(terms: Float64) -> tuple[Float64, Float64, Float64]:
    """Returns (m,) rounded sums of (m, c) `terms`, sums of the rounding errors, and sums of their absolute values."""
    total = np.array(terms.T, order="C")
    lost, size = np.zeros(len(terms)), np.zeros(len(terms))
    while len(total) > 1:
        half = len(total) // 2
        first, second, rest = total[:half], total[half : 2 * half], total[2 * half :]
        added = first + second
        part = added - first
        np.subtract(second, part, out=second)  # `total` is ours: what was read is used as memory
        np.subtract(first, np.subtract(added, part, out=part), out=part)
        error = np.add(second, part, out=part)
        lost += error.sum(axis=0)
        size += np.abs(error, out=error).sum(axis=0)
        total = np.concatenate([added, rest]) if len(rest) else added
    return total[0], lost, size

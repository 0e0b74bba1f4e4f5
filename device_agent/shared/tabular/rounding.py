"""Scales whole numbers by powers of ten, rounded once.

A number of up to 19 digits is the sum of two float64. Products and quotients are computed with their rounding errors
(T. J. Dekker, A Floating-Point Technique for Extending the Available Precision, Numer. Math. 18, 1971), to about 100
bits. Needs only NumPy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

#: The last rounding is not sure within this part of a step from the middle between two numbers.
_UNSURE = 2.0**-20


def scale_once(whole: Float64, rest: Float64, up: Float64, down: Float64) -> tuple[Float64, NDArray[np.bool_]]:
    """Returns (n,) (whole + rest) * up / down, and a mask of the results that are certainly rounded only once.

    Args:
        whole: (n,) whole numbers from 2^53 to 10^19, rounded to float64.
        rest: (n,) the unrounded numbers less `whole`; NaN if not known.
        up: (n,) powers of ten, at most 10^22.
        down: (n,) powers of ten, at most 10^22; in each position, `up` or `down` is 1.
    """
    product, lost = _multiply(whole, up)
    first = product / down
    back, missing = _multiply(first, down)
    second = ((product - back) - missing + (lost + rest * up)) / down
    found = first + second
    # What the last rounding took, in steps: a half is the middle; below a power of two, a quarter. NaN is never sure.
    off = abs(second - (found - first)) / np.spacing(found)
    return found, (abs(off - 0.5) > _UNSURE) & (abs(off - 0.25) > _UNSURE)


def _multiply(one: Float64, other: Float64) -> tuple[Float64, Float64]:
    """Returns the rounded product, and its rounding error."""
    product = one * other
    (high, low), (up, down) = _halves(one), _halves(other)
    return product, ((high * up - product) + high * down + low * up) + low * down


def _halves(values: Float64) -> tuple[Float64, Float64]:
    """Splits each value into a sum of two numbers of at most 26 bits: float64 holds products of these exactly."""
    large = values * (2.0**27 + 1.0)
    high = large - (large - values)
    return high, values - high

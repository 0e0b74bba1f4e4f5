"""Powers with the same bits on every IEEE machine.

`np.power` differs in the last bit from one C library to the next, and that bit could decide ties. NumPy only; no I/O.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
#: Powers up to this one can be added by the billion before float64 overflows.
_BITS = 960


def greatest(exponent: float) -> float:
    """Returns the greatest power of two x with x^exponent at most 2^960, so that float64 holds sums of such powers."""
    return math.ldexp(1.0, int(_BITS // exponent))


def power(values: Float64, exponent: float) -> Float64:
    """Returns `values` (not negative) to a positive power, using only products and square roots.

    The whole part of the exponent is computed by repeated squaring. The n-th binary digit after the point, if 1, adds
    the factor values^(2^-n), which is n square roots. After about a hundred roundings, the error is less than 2^-45 of
    the result.
    """
    whole, fraction = divmod(float(exponent), 1.0)
    found, factor = None, values
    while whole:
        if whole % 2:
            found = factor if found is None else found * factor
        whole //= 2
        if whole:
            factor = factor * factor
    root = values
    while fraction:
        root, fraction = np.sqrt(root), 2 * fraction
        if fraction >= 1.0:
            found, fraction = root if found is None else found * root, fraction - 1.0
    return np.asarray(found)

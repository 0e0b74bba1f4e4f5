"""Bounds on float32 rounding errors of distances and scores.

u is the unit roundoff of float32. `graph` decides by these bounds which queries are certain, and `index` how many
candidates a search needs.
"""

from __future__ import annotations

import math

#: Unit roundoff u of float32: one operation is off by at most u of its result.
EPSILON = 2.0**-24
#: The rounding errors of a sum of n products stay under `CONFIDENCE * sqrt(n) * EPSILON` in all but about one case in
#: 10^7: 2 exp(-CONFIDENCE^2 / 2) = 3e-8 (Higham and Mary 2019, doi.org/10.1137/18M1226312).
CONFIDENCE = 6.0
#: Share of a measure that lost subnormal numbers may take unnoticed (`graph.underflow`).
UNDERFLOW = 8.0 * EPSILON


def relative_error(width: int) -> float:
    """Returns the float32 error of a squared distance that is computed from a score over p = `width` coordinates.

    Terms may be added in any order. It is relative to (‖x‖ + reach)², where x is the query and reach the length of the
    longest row t. The squared distance is ‖x‖² - 2 s, with the score s = x·t - ‖t‖²/2. A kernel may begin its sum with
    the second term: 2 s is then off by at most (p + 5) u 2 ‖x‖ ‖t‖ + (p + 2) u ‖t‖² (Higham 2002, 3.5; factors are
    rounded 4 times), and ‖x‖² by (p + 4) u of itself. What follows rounds 6 times. Since 2 ‖x‖ ‖t‖ <= ‖x‖² + ‖t‖², all
    are at most (2 p + 15) u (‖x‖² + reach²). A graph subtracts twice this error times ‖x‖² + reach²: (p + 10) u covers
    second-order terms.
    """
    error = (width + 10.0) * EPSILON
    return float(error / (1.0 - 2.0 * error))


def measure_error(width: int) -> float:
    """Returns rho, the relative float32 error of a measure over p = `width` coordinates, in any order of addition.

    A measure is a squared distance (for Manhattan, a distance). Blocks of b terms are added up, then the sums of the
    blocks. A term has at most 7 roundings: 1 for the square; 2 each for the difference, the scale and their product,
    because the square doubles a relative error. With the sum: (b + p / b + 6) u (Higham 2002, 4.2), and 1 u for the
    squares of these errors.
    """
    block = summed_at_once(width)
    return float((block + -(-width // block) + 7.0) * EPSILON)


def summed_at_once(width: int) -> int:
    """Returns how many of p = `width` terms the graph adds up first; it then adds up these sums.

    One after the other, 150,000 equal terms would be off by far more than 6 sqrt(p) u. From 256 terms on, blocks are
    shorter: 128 terms, for which the kernels are still fast, or sqrt(p), the best, if that is more.
    """
    return width if width < 256 else max(128, math.isqrt(width))


def relative_gap(width: int) -> float:
    """Returns the relative gap of two float32 measures over p = `width` coordinates that proves their order.

    A gap of twice their error is needed. Added to it are 2 u for rounding the limit that a graph compares a measure
    with, and `UNDERFLOW` for lost subnormal numbers.
    """
    return 2.0 * (measure_error(width) + EPSILON) + UNDERFLOW

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
    """Returns rho, the relative float32 error of a squared distance or score over p = `width` coordinates.

    rho = (min(p, 6 sqrt(p)) + 10) u. A sum of p terms, added in any order, is off by at most p u (Higham 2002, 4.2),
    and nearly always by less than 6 sqrt(p) u. A term has at most 7 roundings: 1 for the square; 2 each for the
    difference, the scale and their product, because the square doubles a relative error.
    """
    return float((min(width, CONFIDENCE * math.sqrt(width)) + 10.0) * EPSILON)


def summed_at_once(width: int) -> int:
    """Returns how many of p = `width` terms the graph adds up first; it then adds up these sums.

    One after the other, 150,000 equal terms would be off by far more than 6 sqrt(p) u. From 256 terms on, blocks are
    shorter: 128 terms, for which the kernels are still fast, or sqrt(p), the best, if that is more.
    """
    return width if width < 256 else max(128, math.isqrt(width))


def relative_gap(width: int) -> float:
    """Returns the relative gap of two float32 measures over p = `width` coordinates that proves their order.

    A measure is a squared distance (for Manhattan, a distance). Blocks of b terms are added up, then the sums of the
    blocks: the measure is off by at most (b + p / b + 6) u, if both are added in any order (`relative_error`; Higham
    2002, 4.2). A gap of twice that is needed. Added to it are 6 u for the squares of these errors and the rounding of
    the limit, and `UNDERFLOW` for lost subnormal numbers.
    """
    block = summed_at_once(width)
    return 2.0 * (block + -(-width // block) + 8.0) * EPSILON + UNDERFLOW

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


def relative_gap(width: int) -> float:
    """Returns the relative gap of two float32 measures over p = `width` coordinates that proves their order.

    Each measure is off by at most (p + 6) u of itself, added in any order (`relative_error`), so a gap of (2 p + 12) u
    is needed. Added to it are 6 u for the squares of these errors (up to 4,000 coordinates) and the rounding of the
    limit, and `UNDERFLOW` for lost subnormal numbers. With more than 630 coordinates, the smaller 8 rho is used: four
    times the error of two sums, which rho bounds in all but about one case in 10^7.
    """
    return float(min(2.0 * (width + 9.0) * EPSILON + UNDERFLOW, 8.0 * relative_error(width)))

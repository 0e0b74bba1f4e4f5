"""Bounds on what float32 underflow changes.

XNNPACK and some processors read subnormal numbers (below 1.2e-38) as zero. Two rows that are very near to a query can
then come in the wrong order, although their distances differ by more than rounding explains.
"""

from __future__ import annotations

import numpy as np

from knnkit.model.reference.float32_errors import EPSILON, UNDERFLOW
from knnkit.model.reference.space import Float32, Space

_TINY = float(np.finfo(np.float32).tiny)


def lost(space: Space) -> float:
    """Returns the most that underflow can subtract from a measure (squared distance; for Manhattan, distance).

    A difference loses at most _TINY times the scale. Its square loses at most the square of that, or _TINY if the
    square itself underflows. There are p terms; the factor 2 covers the running sum.
    """
    difference = _TINY * max(1.0, float(np.abs(space.scale).max()))
    part = difference if space.metric == "manhattan" else max(_TINY, difference * difference)
    return 2.0 * len(space.centre) * part


def may_be_mistaken(space: Space, enrolled: Float32) -> bool:
    """Whether two of the (n, p) training rows are so close that underflow could reverse their order for some query.

    Underflow subtracts at most `lost` from a squared distance (for Manhattan, from a distance). `relative_gap` covers
    a loss of at most the share `UNDERFLOW` of a distance, so only distances to very near rows can be wrong. If two
    rows are farther apart than twice the greatest such distance, no query is so near to both.
    """
    least = lost(space) / UNDERFLOW
    gap = 2.0 * (least if space.metric == "manhattan" else float(np.sqrt(least)))
    return any(
        _may_be_within(column, gap / weight) for column, weight in zip(enrolled.T, np.abs(space.scale)) if weight > 0.0
    )


def _may_be_within(column: Float32, gap: float) -> bool:
    away = np.abs(column)
    if float(away.min(initial=np.inf, where=away > 0.0)) * EPSILON >= gap:
        return False
    apart = np.diff(np.unique(column).astype(np.float64))
    return bool((apart < gap).any())

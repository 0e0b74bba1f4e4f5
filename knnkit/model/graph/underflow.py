"""What float32 makes nothing of: numbers under its least normal one, which XNNPACK and some processors read as zero.

Two rows that are nearer each other than that may come in the wrong order, and seem to be told apart. Plain numpy.
"""

from __future__ import annotations

import numpy as np

from knnkit.model.reference.space import EPSILON, Float32, Space, relative_error

_TINY = float(np.finfo(np.float32).tiny)


def lost(space: Space) -> float:
    """Returns how much less than in truth a measure may be: a squared distance, for Manhattan a distance."""
    difference = _TINY * max(1.0, float(np.abs(space.scale).max()))
    part = difference if space.metric == "manhattan" else max(_TINY, difference * difference)
    return 2.0 * len(space.centre) * part


def may_be_mistaken(space: Space, enrolled: Float32) -> bool:
    """Whether two of the (n, p) rows are so close that what is lost could turn the order of a query's neighbours.

    Of two that are not, at most one is as near to any query as half of what is between them.
    """
    least = lost(space) / (3.0 * relative_error(len(space.centre)))
    gap = 2.0 * (least if space.metric == "manhattan" else float(np.sqrt(least)))
    return any(
        _may_be_within(column, gap / weight) for column, weight in zip(enrolled.T, np.abs(space.scale)) if weight > 0.0
    )


def _may_be_within(column: Float32, gap: float) -> bool:
    """Whether two numbers that are not equal are closer; sorts only where float32 has numbers that close."""
    away = np.abs(column)
    if float(away.min(initial=np.inf, where=away > 0.0)) * EPSILON >= gap:
        return False
    apart = np.diff(np.unique(column).astype(np.float64))
    return bool((apart < gap).any())

"""Metrics that the graph does not compute.

Each function takes one query and (m, p) training rows, and returns (m, c) float64 numbers. The sum of the c numbers of
a row is its distance from the query, raised to `Space.power`. The device has code of its own for this. Only `powers` is
shared: the last digit of a power depends on the order of multiplications.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.powers import greatest, power
from knnkit.model.reference.space import Float32, Float64, Space


def terms(space: Space, scale: Float64, query: Float64, enrolled: Float32) -> Float64:
    """Returns (m, c) terms whose sums are the distances of m rows from the query, to the power `space.power`.

    `query` and the rows `enrolled` are offsets from the centre of model space, before its `scale`.
    """
    if space.metric == "jaccard":
        return _jaccard(query, enrolled)
    if space.metric == "haversine":
        return _haversine(space, query, enrolled)
    apart = np.abs((query - enrolled) * scale)
    if space.metric == "chebyshev":
        return np.asarray(apart.max(axis=1, keepdims=True))
    with np.errstate(under="ignore"):
        return power(np.minimum(apart, greatest(space.power)), space.power)


def _jaccard(query: Float64, enrolled: Float32) -> Float64:
    """Returns (m, 1) Jaccard distances: of the coordinates where query or row is not 0, the share where one is 0.

    The distance is 0 if both have zeros alone.
    """
    one, others = query != 0.0, enrolled != 0.0
    either = (one | others).sum(axis=1, keepdims=True)
    return np.asarray((one != others).sum(axis=1, keepdims=True) / np.maximum(either, 1))


def _haversine(space: Space, query: Float64, enrolled: Float32) -> Float64:
    """Returns (m, 1) squared chords on the unit sphere from query to rows: (latitude, longitude) in radians."""
    start: Any = space.centre[0].astype(np.float64) + (0.0 if space.origin is None else space.origin[0])
    apart: NDArray[np.float64] = np.sin((query - enrolled) / 2.0)
    east = np.cos(query[0] + start) * np.cos(enrolled[:, 0] + start) * apart[:, 1] ** 2
    return np.asarray(4.0 * (apart[:, 0] ** 2 + east))[:, np.newaxis]

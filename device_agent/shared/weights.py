"""Weights of neighbours by their distance.

Uniform, 1 / distance, and named kernels with a bandwidth. Host and device use them for votes and for values of a
regression, in float64. NumPy only; no I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.constants import Weights

Float64 = NDArray[np.float64]

#: Kernel -> its weight at a distance of `u` bandwidths. Those of `_WITHIN` are 0 from one bandwidth on.
_WITHIN: dict[str, Callable[[Float64], Float64]] = {
    "epanechnikov": lambda u: 1.0 - u * u,
    "triangular": lambda u: 1.0 - u,
    "biweight": lambda u: (1.0 - u * u) * (1.0 - u * u),
    "tricube": lambda u: (1.0 - u * u * u) * (1.0 - u * u * u) * (1.0 - u * u * u),
}
KERNELS = ("gaussian", "exponential", *_WITHIN)
#: Least and greatest bandwidth or radius: distances that float32 holds.
LEAST_WIDTH, MOST_WIDTH = 1e-38, 1e38


def weigh(far: NDArray[Any], nearest: NDArray[Any], weights: Weights, bandwidth: float | None = None) -> Float64:
    """Returns the float64 weight of each distance, in the shape of `far`.

    Args:
        far: distances.
        nearest: the least distance of the same query, broadcast to `far`. For distance, gaussian and exponential, a
            weight is relative to the weight at this distance, so that no weight overflows or vanishes.
        weights: uniform, distance or a kernel.
        bandwidth: bandwidth of a kernel, in the unit of `far`.
    """
    far, nearest = np.asarray(far, np.float64), np.asarray(nearest, np.float64)
    if weights == "uniform":
        return np.ones(far.shape)
    if weights == "distance":
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(nearest == 0.0, far == 0.0, nearest / far), np.float64)
    width = float(bandwidth or 1.0)
    if weights in _WITHIN:
        return _WITHIN[weights](np.minimum(far / width, 1.0))
    beyond = (far - nearest) / width
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(np.exp(-beyond if weights == "exponential" else -beyond * ((far + nearest) / width) / 2))

"""Named kernels as weights of scikit-learn's neighbours.

A function cannot be sent to a board, but a name can. knnkit can import estimators that are fitted with these kernels.

    from knnkit import kernels
    KNeighborsClassifier(7, weights=kernels.gaussian(0.5)).fit(rows, labels)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.arguments import is_number, require
from device_agent.shared.protocol.constants import Weights
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.weights import LEAST_WIDTH, MOST_WIDTH, weigh


@dataclass(frozen=True)
class Kernel:
    """A kernel: converts distances to weights, as the argument `weights` of scikit-learn's estimators.

    Gaussian and exponential weights are divided by the nearest neighbour's weight, so that not all become 0.
    """

    name: Weights
    bandwidth: float

    def __post_init__(self) -> None:
        good = is_number(self.bandwidth) and LEAST_WIDTH <= self.bandwidth <= MOST_WIDTH
        hint = f"a distance from {LEAST_WIDTH:g} to {MOST_WIDTH:g}: kernels.gaussian(0.5)"
        require(good, "bandwidth", self.bandwidth, BadInput, hint)

    def __call__(self, distances: Any) -> NDArray[Any]:
        """Returns the weights for (n, k) distances, or for n arrays of distances."""
        far = np.asarray(distances)
        if far.dtype == object:
            found = np.empty(len(far), object)
            found[:] = [self(each[np.newaxis])[0] for each in far]
            return found
        return weigh(far, far.min(axis=-1, keepdims=True, initial=np.inf), self.name, self.bandwidth)


def gaussian(bandwidth: float) -> Kernel:
    """Returns the kernel exp(-d² / (2 bandwidth²)) of the distance d."""
    return Kernel("gaussian", bandwidth)


def exponential(bandwidth: float) -> Kernel:
    """Returns the kernel exp(-d / bandwidth) of the distance d."""
    return Kernel("exponential", bandwidth)


def epanechnikov(bandwidth: float) -> Kernel:
    """Returns the kernel 1 - (d / bandwidth)² of the distance d; 0 if d is above the bandwidth."""
    return Kernel("epanechnikov", bandwidth)


def triangular(bandwidth: float) -> Kernel:
    """Returns the kernel 1 - d / bandwidth of the distance d; 0 if d is above the bandwidth."""
    return Kernel("triangular", bandwidth)


def biweight(bandwidth: float) -> Kernel:
    """Returns the kernel (1 - (d / bandwidth)²)² of the distance d; 0 if d is above the bandwidth."""
    return Kernel("biweight", bandwidth)


def tricube(bandwidth: float) -> Kernel:
    """Returns the kernel (1 - (d / bandwidth)³)³ of the distance d; 0 if d is above the bandwidth."""
    return Kernel("tricube", bandwidth)

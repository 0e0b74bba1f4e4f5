"""Transforms of a raw row into model space, in float64.

Model space is where distances are computed. Every sum is rounded once or added in a fixed order, so that all IEEE
machines compute the same bits. Needs only NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.constants import EXACT_FILE
from device_agent.shared.protocol.errors import ModelUnusable

Float64 = NDArray[np.float64]


def apply(steps: Sequence[tuple[str, Any, Any]], row: NDArray[Any]) -> Float64:
    """Returns the (p,) float64 result of the `steps` (kind, a, b) of a model, applied in order to a raw (d,) row.

    affine: (x - a) * b; linear: (x - b) @ a; normalize: x / norm of order a; cosine: x / Euclidean norm, then two more
    numbers: 1 for a row of zeros (else 0), and 0.

    Raises:
        ModelUnusable: a step has an unknown kind.
    """
    z = row.astype(np.float64)
    for kind, a, b in steps:
        if kind == "affine":
            z = (z - a) * b
        elif kind == "linear":  # added in feature order, which a BLAS product does not guarantee
            z = np.add.accumulate((z - b)[:, np.newaxis] * a, axis=0)[-1]
        elif kind == "normalize":
            z = z / (_norm(z, float(a)) or 1.0)
        elif kind == "cosine":  # on the unit sphere; a row of zeros has distance 1 from every other
            norm, rest = _norm(z, 2.0), z
            z = np.zeros(len(rest) + 2)
            np.divide(rest, norm or 1.0, out=z[:-2])
            z[-2] = norm == 0.0
        else:
            raise ModelUnusable(f"{EXACT_FILE}: unknown step {kind!r}")
    return z


def _norm(z: Float64, order: float) -> float:
    """Returns the norm of a vector `z`, of order 1, 2 or infinity; its sum is rounded once."""
    if math.isinf(order):
        return float(np.abs(z).max())
    return math.fsum(np.abs(z).tolist()) if order == 1.0 else math.sqrt(math.fsum((z * z).tolist()))

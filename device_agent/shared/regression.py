"""Values of a regression: means of the neighbours' targets.

Weights are those of votes: uniform, or 1 / distance, where exact matches take the whole weight. Host and device compute
values and their errors with this code, in float64. NumPy only; no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.constants import UNKNOWN, Weights
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.model_info import TargetError

Float64 = NDArray[np.float64]
#: Largest difference of a value from the reference's, relative to the range of the target.
TOLERANCE = 1e-5


def weigh(distances: NDArray[Any], weights: Weights) -> Float64:
    """Returns the (n, k) float64 weights for (n, k) ascending distances, relative to the weight of the nearest."""
    far = np.asarray(distances, np.float64)
    if weights == "uniform":
        return np.ones(far.shape)
    nearest = far[:, :1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(nearest == 0.0, (far == 0.0).astype(np.float64), nearest / far)


class Regressor:
    """The targets of the training rows.

    Args:
        targets: (n_train, t) float64.
        k: number of neighbours.
        weights: uniform or distance.
    """

    def __init__(self, targets: Float64, k: int, weights: Weights) -> None:
        self._targets, self._k, self._weights = targets, k, weights

    def values(self, answers: Any) -> Float64:
        """Returns the (n, t) float64 values of `Answers`; NaN where a row is rejected."""
        share = weigh(answers.distances[:, : self._k], self._weights)
        found: Float64 = (share[:, :, np.newaxis] * self._targets[answers.indices[:, : self._k]]).sum(axis=1)
        found /= share.sum(axis=1)[:, np.newaxis]
        found[np.asarray(answers.label) == UNKNOWN] = np.nan
        return found

    def in_doubt(self, answers: Any) -> NDArray[np.bool_]:
        """Returns (n,) whether float32 distances may decide a value; no row of a regression, whose values are means."""
        return np.zeros(len(answers.indices), np.bool_)


def spreads(targets: Float64) -> Float64:
    """Returns the (t,) ranges (maximum less minimum) of (n, t) targets."""
    return np.asarray(targets.max(axis=0) - targets.min(axis=0), np.float64)


def differ(values: Float64, expected: Float64, spread: Sequence[float]) -> NDArray[np.bool_]:
    """Returns (n,) bool: whether a row's values differ by more than the rounding of float32 distances allows."""
    within = TOLERANCE * np.array(spread) + 1e-12 * np.abs(expected)  # the latter for a constant target
    same = (np.abs(values - expected) <= within) | (np.isnan(values) & np.isnan(expected))
    found: NDArray[np.bool_] = ~same.all(axis=1)
    return found


def errors(names: Sequence[str], values: Float64, truth: Float64) -> tuple[TargetError, ...]:
    """Returns the error of each target, over the rows that have a known (n, t) truth and are not rejected."""
    known = ~np.isnan(values + truth).any(axis=1)
    off = np.abs(values[known] - truth[known])
    if not len(off):
        return ()
    return tuple(
        TargetError(name, len(off), float(np.sqrt(np.mean(part * part))), float(part.mean()), float(part.max()))
        for name, part in zip(names, off.T)
    )


def as_column(values: Float64) -> Float64:
    """Returns (n, 1) values as (n,), the shape that scikit-learn returns for one target; others unchanged."""
    return values[:, 0] if values.shape[1] == 1 else values


def r_squared(values: Float64, truth: Any) -> float:
    """Returns the coefficient of determination of (n,) or (n, t) values; the mean over t targets."""
    true = np.asarray(truth, np.float64)
    if true.shape != values.shape or not len(true):
        raise BadInput(f"{values.shape} values, but targets of shape {true.shape}")
    left, all = ((true - values) ** 2).sum(axis=0), ((true - true.mean(axis=0)) ** 2).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(all > 0.0, 1.0 - left / all, (left == 0.0).astype(np.float64))
    return float(np.mean(shares))

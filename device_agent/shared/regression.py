"""Values of a regression: means of the neighbours' targets.

The means are weighted like votes (`weights`). Host and device compute values and their errors with this code, in
float64. NumPy only; no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.constants import UNKNOWN, Weights
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.model_info import TargetError
from device_agent.shared.queries import as_numbers
from device_agent.shared.weights import weigh

Float64 = NDArray[np.float64]
#: Largest difference of a value from the reference's, relative to the range of the target.
TOLERANCE = 1e-5


class Regressor:
    """Computes values from the targets of the training rows.

    Args:
        targets: (n_train, t) float64.
        bandwidth: bandwidth of a kernel, in the metric's unit.
    """

    def __init__(self, targets: Float64, k: int, weights: Weights, bandwidth: float | None = None) -> None:
        self.targets, self._k, self._how = targets, k, (weights, bandwidth)

    def values(self, answers: Any) -> Float64:
        """Returns the (n, t) float64 values of n rows; NaN for a rejected row.

        `answers` has the (n, k) `indices` and `distances` of the rows' neighbours, and the rows' `label`.
        """
        far = answers.distances[:, : self._k]
        share = weigh(far, far[:, :1], *self._how)
        found: Float64 = (share[:, :, np.newaxis] * self.targets[answers.indices[:, : self._k]]).sum(axis=1)
        with np.errstate(invalid="ignore"):  # where no neighbour has weight
            found /= share.sum(axis=1)[:, np.newaxis]
        found[np.asarray(answers.label) == UNKNOWN] = np.nan
        return found


def spreads(targets: Float64) -> Float64:
    """Returns the (t,) ranges (maximum less minimum) of (n, t) targets."""
    return np.asarray(targets.max(axis=0) - targets.min(axis=0), np.float64)


def differ(values: Float64, expected: Float64, spread: Sequence[float]) -> NDArray[np.bool_]:
    """Returns (n,) bool: whether a row's (n, t) `values` differ from `expected` by more than float32 rounding explains.

    `spread` is the range of each target among the training rows.
    """
    within = TOLERANCE * np.array(spread) + 1e-12 * np.abs(expected)  # the latter for a constant target
    same = (np.abs(values - expected) <= within) | (np.isnan(values) & np.isnan(expected))
    return np.asarray(~same.all(axis=1))


def errors(names: Sequence[str], values: Float64, truth: Float64) -> tuple[TargetError, ...]:
    """Returns for each target in `names` the root mean square, mean and largest error; () if no row counts.

    A row counts if its (n, t) `truth` is known and its values are not NaN (rejected).
    """
    known = ~np.isnan(values + truth).any(axis=1)
    off = np.abs(values[known] - truth[known])
    if not len(off):
        return ()
    return tuple(
        TargetError(name, len(off), float(np.sqrt(np.mean(part * part))), float(part.mean()), float(part.max()))
        for name, part in zip(names, off.T)
    )


def as_column(values: Float64) -> Float64:
    """Returns (n, 1) values as (n,), the shape that scikit-learn returns for one target; other shapes unchanged."""
    return values[:, 0] if values.shape[1] == 1 else values


def r_squared(values: Float64, truth: Any, error: Callable[..., Exception] = BadInput) -> float:
    """Returns the coefficient of determination of (n,) or (n, t) values; the mean over t targets.

    For a target that is constant in `truth`, it is 1 if all values are right, else 0.

    Raises:
        error: there are no rows; `truth` is not finite numbers, or has another shape; or a value is NaN (rejected).
    """
    hint = f"give finite numbers of shape {values.shape}"
    if not len(values):
        raise error("there are no rows, so R² is not defined", hint="give at least one row")
    try:
        true = as_numbers(truth, np.float64)
    except (TypeError, ValueError) as problem:
        raise error(f"the targets are not numbers: {problem}", hint=hint) from None
    if true.shape == (*values.shape, 1):  # one target, in a table with one column
        true = true[:, 0]
    if true.shape != values.shape:
        raise error(f"the predictions have shape {values.shape}, but the targets have shape {true.shape}", hint=hint)
    if missing := int((~np.isfinite(true)).sum()):
        raise error(f"{missing:,} of {true.size:,} targets are not finite", hint="leave these rows out")
    if rejected := int(np.isnan(values).reshape(len(values), -1).any(axis=1).sum()):
        said = f"{rejected:,} of {len(values):,} rows are rejected and have no value, so R² is not defined"
        raise error(said, hint="rows = ~np.isnan(model.predict(X)), and the score of X[rows], y[rows]")
    left, all = ((true - values) ** 2).sum(axis=0), ((true - true.mean(axis=0)) ** 2).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(all > 0.0, 1.0 - left / all, (left == 0.0).astype(np.float64))
    return float(np.mean(shares))

"""Trade-off between accepted strangers and rejected ordinary rows.

Strangers are rows that belong to none of the classes. `reject` in deploy.yaml is the share of ordinary rows to accept.
For each possible share, computes the distance thresholds of the classes, the ordinary rows that the thresholds reject,
and the strangers that they accept. No I/O; `knnkit.commands.reject` shows the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.constants import UNKNOWN
from knnkit.model.reference.calibration import calibrate

#: Shares in the table.
SHARES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
#: Shares among which a wanted rate is looked for.
_FINE = np.round(np.arange(0.001, 1.0, 0.001), 3)


@dataclass(frozen=True)
class Measured:
    """Answers of a model to n rows."""

    label: NDArray[np.int32]  # (n,) if nothing is rejected; UNKNOWN: a kernel ends before the nearest row
    kth: NDArray[np.float64]  # (n,) distance of the k-th neighbour
    truth: NDArray[np.int32]  # (n,) true class of held-out rows; of other rows, `label`
    of: int = 0  # number of rows from which these were drawn; at most n: these are all rows

    def beyond(self, thresholds: tuple[float, ...]) -> NDArray[np.bool_]:
        """Returns (n,) bool: whether a row is "unknown": its k-th neighbour is beyond its class's threshold."""
        return np.asarray((self.label == UNKNOWN) | (self.kth > np.array(thresholds)[self.label]))


@dataclass(frozen=True)
class ClassLevel:
    """The effect of `reject` on one class."""

    share: float  # to accept
    threshold: float
    rows: int  # ordinary rows
    rejected: int  # ordinary rows that are rejected
    strangers: int  # that are accepted


@dataclass(frozen=True)
class Level:
    """The effect of one value of `reject`: shares of ordinary rows rejected, and of strangers, if any, accepted."""

    share: float
    rejected: float
    accepted: float | None
    classes: tuple[ClassLevel, ...]


@dataclass(frozen=True)
class Trade:
    """Answers to calibration rows, ordinary rows and strangers, from which the effect of any `reject` is computed."""

    calibration: Measured
    ordinary: Measured
    strangers: Measured | None
    n_classes: int

    def level(self, share: float, own: Mapping[int, float] | None = None) -> Level:
        """Returns the effect of `reject: share`; `own` maps class index -> another share for that class, if any."""
        found = self.calibration
        thresholds = calibrate(share, found.label, found.kth, self.n_classes, own).thresholds
        unknown = self.ordinary.beyond(thresholds)
        taken = None if self.strangers is None else self.strangers.label[~self.strangers.beyond(thresholds)]
        known = self.ordinary.truth != UNKNOWN
        rows = np.bincount(self.ordinary.truth[known], minlength=self.n_classes)
        rejected = np.bincount(self.ordinary.truth[known & unknown], minlength=self.n_classes)
        strangers = np.bincount([] if taken is None else taken, minlength=self.n_classes)
        shares = [(own or {}).get(code, share) for code in range(self.n_classes)]
        classes = zip(shares, thresholds, rows.tolist(), rejected.tolist(), strangers.tolist())
        accepted = None if self.strangers is None or taken is None else len(taken) / len(self.strangers.label)
        return Level(share, float(unknown.mean()), accepted, tuple(ClassLevel(*each) for each in classes))

    def strictest(self, rejected: float) -> Level | None:
        """Returns the effect of the lowest `reject` with at most this share of ordinary rows rejected, or None."""
        return self._first(lambda level: level.rejected <= rejected, _FINE)

    def widest(self, accepted: float) -> Level | None:
        """Returns the effect of the highest `reject` with at most this share of strangers accepted, or None."""
        return self._first(lambda level: level.accepted is not None and level.accepted <= accepted, _FINE[::-1])

    def _first(self, fits: Callable[[Level], bool], shares: NDArray[np.float64]) -> Level | None:
        """Returns the effect of the first of `shares` that fits, or None; if one fits, all later ones must fit, too."""
        low, high = 0, len(shares)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(self.level(float(shares[middle]))) else (middle + 1, high)
        return self.level(float(shares[low])) if low < len(shares) else None

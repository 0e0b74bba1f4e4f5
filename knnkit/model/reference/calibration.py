"""The reject option: from which k-th distance on a row is "unknown". Pure numpy on the reference's answers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.model_info import Reject
from knnkit.model.reference.space import Float64

#: A class with fewer calibration rows than this shares the threshold of all.
MIN_CLASS_ROWS = 100


def calibrate(acceptance: float, label: NDArray[np.int32], kth: Float64, n_classes: int) -> Reject:
    """Returns thresholds that accept the share `acceptance` of ordinary rows.

    Args:
        acceptance: the share asked for.
        label: (n,) the class that each calibration row was given.
        kth: (n,) its k-th distance.
        n_classes: how many classes there are.
    """
    common = _quantile(kth, acceptance)
    thresholds = [
        _quantile(kth[label == code], acceptance) if np.sum(label == code) >= MIN_CLASS_ROWS else common
        for code in range(n_classes)
    ]
    return Reject(acceptance, tuple(thresholds))


def _quantile(values: Float64, share: float) -> float:
    # The conformal rank: of n + 1 exchangeable rows the next one lies under it with at least this probability.
    ordered = np.sort(values)
    rank = min(len(ordered), int(np.ceil(share * (len(ordered) + 1))))
    return float(ordered[rank - 1])

"""Distance thresholds beyond which a row is "unknown"."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.model_info import Reject
from knnkit.model.reference.space import Float64

#: A class with fewer calibration rows than this uses the threshold of all classes together.
MIN_CLASS_ROWS = 100


def calibrate(
    acceptance: float,
    label: NDArray[np.int32],
    kth: Float64,
    n_classes: int,
    own: Mapping[int, float] | None = None,
) -> Reject:
    """Returns one threshold per class, in the model's metric, that accepts the share `acceptance` of ordinary rows.

    Args:
        acceptance: share of ordinary rows to accept, between 0 and 1.
        label: (n,) int32 class that the reference answered for each calibration row.
        kth: (n,) float64 distance of its k-th neighbour.
        n_classes: number of classes.
        own: class index -> share, in place of `acceptance`.
    """
    thresholds = []
    for code in range(n_classes):
        values = kth[label == code]
        share = (own or {}).get(code, acceptance)
        thresholds.append(_quantile(values if len(values) >= MIN_CLASS_ROWS else kth, share))
    return Reject(acceptance, tuple(thresholds))


def _quantile(values: Float64, share: float) -> float:
    # Split conformal prediction (Vovk et al. 2005): the next of n + 1 exchangeable rows is at or below the value of
    # rank ceil(share * (n + 1)) with at least this probability.
    ordered = np.sort(values)
    rank = min(len(ordered), int(np.ceil(share * (len(ordered) + 1))))
    return float(ordered[rank - 1])

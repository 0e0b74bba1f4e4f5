"""Fits a scikit-learn scaler and returns it as steps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.constants import Scale
from knnkit.model.reference.space import Step, affine

#: Numbers of some columns that are held in float64 at a time; a scaler makes several copies.
_NUMBERS = 4 << 20


def fit_scaler(rows: NDArray[np.floating[Any]], scale: Scale) -> list[Step]:
    """Returns the affine step of `scale`, fitted on raw (n, d) training rows; an empty list for "none"."""
    if scale == "none":
        return []
    from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

    kinds: dict[str, tuple[Any, str, str]] = {
        "standard": (StandardScaler, "mean_", "scale_"),
        "minmax": (MinMaxScaler, "data_min_", "scale_"),
        "robust": (RobustScaler, "center_", "scale_"),
    }
    kind, origin, factor = kinds[scale]
    step = max(2, _NUMBERS // max(1, len(rows)))
    fitted = [kind().fit(rows[:, start : start + step].astype(np.float64)) for start in range(0, rows.shape[1], step)]
    origins, factors = (np.concatenate([getattr(each, name) for each in fitted]) for name in (origin, factor))
    return [affine(origins, factors if scale == "minmax" else 1.0 / factors)]

"""Fits a scikit-learn scaler and returns it as steps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.constants import Scale
from knnkit.model.reference.space import Step, affine


def fit_scaler(rows: NDArray[np.floating[Any]], scale: Scale) -> list[Step]:
    """Returns the affine step of `scale`, fitted on raw (n, d) training rows; an empty list for "none"."""
    if scale == "none":
        return []
    from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

    values = rows.astype(np.float64)
    if scale == "standard":
        standard = StandardScaler().fit(values)
        return [affine(standard.mean_, 1.0 / standard.scale_)]
    if scale == "minmax":
        minmax = MinMaxScaler().fit(values)
        return [affine(minmax.data_min_, minmax.scale_)]
    robust = RobustScaler().fit(values)
    return [affine(robust.center_, 1.0 / robust.scale_)]

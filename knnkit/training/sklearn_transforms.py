"""Converts scikit-learn's scalers and linear maps to knnkit's steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from knnkit.errors import BuildError
from knnkit.model.reference.space import Step, affine


def convert(transformer: Any) -> list[Step]:
    """Returns the steps that equal a fitted transformer of scikit-learn.

    Raises:
        BuildError: it is not supported, or not fitted.
    """
    kind = type(transformer)
    convert = _CONVERSIONS.get(kind.__name__) if kind.__module__.startswith("sklearn.") else None
    if convert is None:
        raise BuildError(
            f"{kind.__name__} is not supported in front of the classifier",
            hint=f"apply it before knnkit, or use one of {', '.join(sorted(_CONVERSIONS))}",
        )
    if not hasattr(transformer, "n_features_in_"):
        raise BuildError(f"the {kind.__name__} is not fitted", hint="fit the whole pipeline")
    return convert(transformer)


def _standard(scaler: Any) -> list[Step]:
    zeros = np.zeros(scaler.n_features_in_)
    return [
        affine(
            scaler.mean_ if scaler.with_mean else zeros,  # scikit-learn computes it in any case
            1.0 / (1.0 + zeros if scaler.scale_ is None else scaler.scale_),
        )
    ]


def _minmax(scaler: Any) -> list[Step]:
    if scaler.clip:
        raise BuildError("MinMaxScaler(clip=True) is not supported", hint="fit it with clip=False")
    return [affine(-scaler.min_ / scaler.scale_, scaler.scale_)]


def _maxabs(scaler: Any) -> list[Step]:
    if getattr(scaler, "clip", False):
        raise BuildError("MaxAbsScaler(clip=True) is not supported", hint="fit it with clip=False")
    return [affine(np.zeros(scaler.n_features_in_), 1.0 / scaler.scale_)]


def _robust(scaler: Any) -> list[Step]:
    zeros = np.zeros(scaler.n_features_in_)
    scale = 1.0 + zeros if scaler.scale_ is None else scaler.scale_
    return [affine(zeros if scaler.center_ is None else scaler.center_, 1.0 / scale)]


def _normalizer(normalizer: Any) -> list[Step]:
    order = {"l1": 1.0, "l2": 2.0, "max": np.inf}[normalizer.norm]
    return [Step("normalize", np.asarray(order), np.zeros(0))]


def _pca(pca: Any) -> list[Step]:
    matrix = np.asarray(pca.components_, np.float64).T
    if pca.whiten:
        deviation = np.sqrt(np.asarray(pca.explained_variance_, np.float64))
        matrix = matrix / np.maximum(deviation, np.finfo(deviation.dtype).eps)
    return [Step("linear", matrix, np.asarray(pca.mean_, np.float64))]


def _nca(analysis: Any) -> list[Step]:
    matrix = np.asarray(analysis.components_, np.float64).T
    return [Step("linear", matrix, np.zeros(len(matrix)))]


_CONVERSIONS: dict[str, Callable[[Any], list[Step]]] = {
    "MaxAbsScaler": _maxabs,
    "MinMaxScaler": _minmax,
    "NeighborhoodComponentsAnalysis": _nca,
    "Normalizer": _normalizer,
    "PCA": _pca,
    "RobustScaler": _robust,
    "StandardScaler": _standard,
}

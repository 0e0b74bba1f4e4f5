"""Votes of neighbours, and distances in model space.

The host's reference uses this code, as do the golden check, float64 search, label sets and taught rows on a device, so
all count alike. NumPy only; no I/O.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.constants import Metric
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.weights import weigh


def base_distance(distances: NDArray[Any], metric: Metric) -> NDArray[np.float64]:
    """Returns `distances` in `metric` as float64 distances in model space.

    A sqeuclidean, cosine or haversine distance is a function of a Euclidean one (for haversine, of the chord), which is
    returned; other distances are unchanged.
    """
    values = np.asarray(distances, dtype=np.float64)
    if metric == "sqeuclidean":
        values = np.sqrt(np.maximum(values, 0.0))
    elif metric == "cosine":
        values = np.sqrt(2.0 * np.maximum(values, 0.0))
    elif metric == "haversine":  # the chord
        values = 2.0 * np.sin(np.minimum(values, np.pi) / 2.0)
    return values


def votes(classes: NDArray[np.int32], distances: NDArray[np.float64], info: KnnInfo) -> NDArray[np.float64]:
    """Returns the (n, n_classes) float64 vote shares for (n, k) classes and (n, k) distances of neighbours.

    With the weights `distance`, only neighbours at distance 0 vote, if there are any.
    """
    count, width = len(classes), len(info.classes)
    if info.weights == "uniform" and info.float64 is None:
        places = classes if count == 1 else classes + width * np.arange(count)[:, np.newaxis]
        return np.asarray(
            np.bincount(places.reshape(-1), minlength=width * count).reshape(-1, width) / classes.shape[1]
        )
    query = np.repeat(np.arange(count), classes.shape[1])
    nearest = np.broadcast_to(distances.min(axis=1, keepdims=True), distances.shape)
    return _count(query, classes.reshape(-1), _weigh_of(info, distances, nearest).reshape(-1), count, info)


def votes_within(
    query: NDArray[np.int64], classes: NDArray[np.int32], distances: NDArray[np.float64], count: int, info: KnnInfo
) -> NDArray[np.float64]:
    """Returns (count, n_classes) vote shares from pairs of a query and a training row that votes on it.

    `query`, `classes` and `distances` have one entry for each pair; `count` is the number of queries. A query without
    pairs has the share 1 in the model's outlier class; if the model has no such class, the share 0 in every class.
    """
    nearest = np.full(count, np.inf)
    np.minimum.at(nearest, query, distances)
    return _count(query, classes, _weigh_of(info, distances, nearest[query]), count, info)


def _weigh_of(info: KnnInfo, distances: NDArray[np.float64], nearest: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the weights of neighbours at `distances`; `nearest` has, for each, the least distance of its query."""
    return weigh(distances, nearest, info.weights, None if info.float64 is None else info.float64.bandwidth)


def _count(
    query: NDArray[np.int64], classes: NDArray[np.int32], weight: NDArray[np.float64], count: int, info: KnnInfo
) -> NDArray[np.float64]:
    width, own = len(info.classes), info.float64
    if own is not None and own.class_weights is not None:
        weight = weight * np.array(own.class_weights)[classes]
    counts: NDArray[Any] = np.bincount(classes + width * query, weight, width * count).reshape(-1, width)
    shares: NDArray[np.float64] = counts.astype(np.float64, copy=False)
    total = shares.sum(axis=1, keepdims=True)
    shares /= np.where(total > 0.0, total, 1.0)
    if own is not None and own.outlier is not None:
        shares[total[:, 0] == 0.0, own.outlier] = 1.0
    return shares

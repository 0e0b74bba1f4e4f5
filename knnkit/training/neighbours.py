"""Nearest training rows of many queries, in float64.

One search gives the results for every k and both weights. Leave-one-out finds the neighbours of a row among the other
rows, with a scaler fitted without that row, as scikit-learn's `LeaveOneOut` does with a Pipeline. Used for tables and
plots on the host; `knnkit.model.reference` defines the answers of a model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.constants import Metric, Scale, Weights
from device_agent.shared.weights import weigh
from knnkit.model.reference.space import Float64
from knnkit.model.scaling import fit_scaler

#: Cosine distances up to this are exact matches, as in `space.Space.zero`.
_SAME_DIRECTION = 2.0**-45
#: Shares of votes that differ by less are even, as in the reference.
_EVEN = 1e-12

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Lists:
    """Neighbours of m queries: (m, n) `indices` of training rows and (m, n) `distances`, nearest first."""

    indices: Ints
    distances: Float64

    def labels(self, codes: NDArray[np.int32], weights: Weights) -> Iterator[NDArray[np.int64]]:
        """Yields for k from 1 to n the (m,) class indices with most weight among k neighbours; the lowest wins a tie.

        `codes` has the (n_train,) class indices of the training rows.
        """
        rows, nearest = np.arange(len(self.indices)), self.distances[:, 0]
        votes = np.zeros((len(rows), int(codes.max()) + 1))
        for place in range(self.indices.shape[1]):
            votes[rows, codes[self.indices[:, place]]] += weigh(self.distances[:, place], nearest, weights)
            most = votes.max(axis=1) - _EVEN * votes.sum(axis=1)
            yield np.argmax(votes >= most[:, None], axis=1)

    def vote(self, codes: NDArray[np.int32], weights: Weights) -> NDArray[np.int64]:
        """Returns the (m,) class indices with most weight among all n neighbours.

        `codes` has the (n_train,) class indices of the training rows.
        """
        return [*self.labels(codes, weights)][-1]

    def values(self, targets: Float64, weights: Weights) -> Iterator[Float64]:
        """Yields for k from 1 to n the (m, t) weighted means of k neighbours' targets, from (n_train, t) `targets`."""
        nearest = self.distances[:, 0]
        sums, total = np.zeros((len(nearest), targets.shape[1])), np.zeros((len(nearest), 1))
        for place in range(self.indices.shape[1]):
            weight = weigh(self.distances[:, place], nearest, weights)[:, np.newaxis]
            sums += weight * targets[self.indices[:, place]]
            total += weight
            yield sums / total


def leave_one_out(rows: NDArray[Any], scale: Scale, metric: Metric, most: int, chosen: Ints | None = None) -> Lists:
    """Returns the `most` nearest other rows of each row in `chosen`, (m,) indices of `rows`; None: of every row."""
    values = rows.astype(np.float64)
    chosen = np.arange(len(rows)) if chosen is None else chosen
    return _search(values, values[chosen], _scalers_without(values, chosen, scale), metric, most, chosen)


def leave_group_out(
    rows: NDArray[Any], groups: NDArray[Any], scale: Scale, metric: Metric, most: int, chosen: Ints
) -> Lists:
    """Returns the `most` nearest rows of other groups for each row in `chosen`, (m,) indices of `rows`.

    `groups` has the (n,) group numbers of the rows.
    """
    indices, distances = np.empty((len(chosen), most), np.int64), np.empty((len(chosen), most))
    for group in np.unique(groups[chosen]):
        others, own = np.flatnonzero(groups != group), np.flatnonzero(groups[chosen] == group)
        found = among(rows[others], rows[chosen[own]], scale, metric, most)
        indices[own], distances[own] = others[found.indices], found.distances
    return Lists(indices, distances)


def among(training: NDArray[Any], rows: NDArray[Any], scale: Scale, metric: Metric, most: int) -> Lists:
    """Returns the `most` nearest training rows of each of `rows`, with a scaler fitted on the training rows."""
    steps = fit_scaler(training, scale)
    parts = (steps[0].a, steps[0].b) if steps else (np.zeros(1), np.ones(1))
    origin, factor = (np.broadcast_to(part, rows.shape) for part in parts)
    return _search(training.astype(np.float64), rows.astype(np.float64), (origin, factor), metric, most, None)


def unit(rows: Float64) -> Float64:
    """Returns (n, p) rows divided by their lengths; rows of zeros stay zeros."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0.0, lengths, 1.0))


def _search(
    training: Float64, queries: Float64, scalers: tuple[Float64, Float64], metric: Metric, most: int, own: Ints | None
) -> Lists:
    indices = np.empty((len(queries), most), np.int64)
    distances = np.empty((len(queries), most))
    for number, (query, origin, factor) in enumerate(zip(queries, *scalers)):
        found = _measure(training, query, origin, factor, metric)
        if own is not None:
            found[own[number]] = np.inf
        near = np.flatnonzero(found <= np.partition(found, most - 1)[most - 1])  # with all that tie: the first rows win
        indices[number] = near[np.argsort(found[near], kind="stable")[:most]]
        distances[number] = found[indices[number]]
    return Lists(indices, distances)


def _measure(training: Float64, query: Float64, origin: Float64, factor: Float64, metric: Metric) -> Float64:
    from scipy.spatial.distance import cdist

    if metric == "cosine":  # half the squared chord; a row of zeros is at distance 1 from all
        points = np.concatenate([(training - origin) * factor, [(query - origin) * factor]])
        lengths = np.sqrt(np.einsum("ij,ij->i", points, points))
        points /= np.where(lengths > 0.0, lengths, 1.0)[:, np.newaxis]
        found = cdist(points[-1:], points[:-1], "sqeuclidean")[0] / 2
        found[found <= _SAME_DIRECTION] = 0.0
        return np.where((lengths[:-1] > 0.0) & (lengths[-1] > 0.0), found, 1.0)
    kind, weight = ("cityblock", factor) if metric == "manhattan" else (metric, factor * factor)
    return np.asarray(cdist(query[np.newaxis], training, kind, w=weight)[0])


# --- scalers that were fitted without a row -----------------------------------------------------------------------
def _scalers_without(rows: Float64, left_out: Ints, scale: Scale) -> tuple[Float64, Float64]:
    """Returns (m, d) numbers to subtract and (m, d) factors of m scalers, each fitted without one row of `left_out`."""
    shape = (len(left_out), rows.shape[1])
    if scale == "none":
        return np.broadcast_to(0.0, shape), np.broadcast_to(1.0, shape)
    if scale == "standard":
        return _standard_without(rows, left_out)
    ordered = np.sort(rows, axis=0)
    place = np.stack([np.searchsorted(column, own) for column, own in zip(ordered.T, rows[left_out].T)], axis=1)
    if scale == "minmax":
        low, high = (_quantile_without(ordered, place, share) for share in (0.0, 1.0))
        return low, 1.0 / _span(high - low)
    low, middle, high = (_quantile_without(ordered, place, share) for share in (0.25, 0.5, 0.75))
    return middle, 1.0 / _span(high - low)


def _standard_without(rows: Float64, left_out: Ints) -> tuple[Float64, Float64]:
    count, middle = len(rows) - 1, rows.mean(axis=0)
    offsets = rows - middle
    own, squares = offsets[left_out], np.einsum("ij,ij->j", offsets, offsets)
    mean = (offsets.sum(axis=0) - own) / count
    variance = (squares - own * own) / count - mean * mean
    # Rounding leaves a little of the variance of a column that is constant without the row.
    constant = variance <= 1e-12 * squares / len(rows)
    return mean + middle, 1.0 / np.sqrt(np.where(constant, 1.0, variance))


def _quantile_without(ordered: Float64, place: Ints, share: float) -> Float64:
    """Returns (m, d) quantiles `share` (0 to 1) of sorted (n, d) columns, each without the value at its `place`."""
    position = share * (len(ordered) - 2)
    below = int(position)
    columns = np.arange(ordered.shape[1])
    low, high = (ordered[at + (at >= place), columns] for at in (below, min(below + 1, len(ordered) - 2)))
    return np.asarray(low + (position - below) * (high - low))


def _span(spans: Float64) -> Float64:
    return np.where(spans > 0.0, spans, 1.0)

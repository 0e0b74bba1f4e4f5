"""Inserts taught rows among a model's neighbours.

Sorts the distances of the model's k neighbours and of the taught rows nearby. A result is certain if the distances next
to each taught row differ by more than the rounding of float32, and if that rounding cannot change a vote, a rejection
or an exact match. Queries with an uncertain result are answered in float64 (`joined`). NumPy only, no I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared import label_sets
from device_agent.shared.protocol.constants import OUTPUT_PROBABILITIES
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.protocol.record import record, replace
from device_agent.shared.votes import base_distance

Float64 = NDArray[np.float64]
Outputs = dict[str, NDArray[Any]]


@record
class Nearby:
    """c pairs of a query and a taught row that may be among its k nearest neighbours."""

    some: NDArray[np.int64]  # (m,) indices of the queries that have a pair, ascending
    query: NDArray[np.int64]  # (c,) position in `some` of the query of each pair, ascending
    local: NDArray[np.int64]  # (c,) index of the taught row of each pair
    distance: Float64  # (c,) float64 distance of each pair, in the model's metric
    #: (m,) bool: whether a query's distances are precise enough to sort by: errors are at most 1/64 of those of
    #: float32.
    clear: NDArray[np.bool_]

    def only(self, chosen: NDArray[np.int64]) -> Nearby:
        """Returns the pairs of a part of the queries: `chosen` are ascending positions in the attribute `some`."""
        place = np.full(len(self.some), -1)
        place[chosen] = np.arange(len(chosen))
        query = place[self.query]
        there = query >= 0
        pairs = {"query": query[there], "local": self.local[there], "distance": self.distance[there]}
        return replace(self, some=self.some[chosen], clear=self.clear[chosen], **pairs)


@record
class Blur:
    """How much two distances must differ for the order of two rows to be certain."""

    #: (m,) for each query, the greatest difference of two distances that may be due to float32 rounding alone.
    doubt: Float64
    tied: float  # rows tie if their distances in model space (`votes.base_distance`) differ by less than this
    zero: float  # a row is an exact match if its distance in model space is below this


class Merge:
    """The neighbours of m queries, with taught rows inserted.

    Args:
        info: knn.json, the model's metadata, with the taught rows counted as training rows.
        own: index of the first taught row, that is, the number of training rows.
        indices: (m, k) the model's own neighbours.
        distances: (m, k) float32, their distances.
        near: the taught rows that may be among the k nearest neighbours.
        blur: how much two distances must differ for their order to be certain.
        vote: function from (r, k) indices of neighbours and their (r, k) distances to name (such as `label`) -> output.

    Attributes:
        chosen: (r,) indices of the queries that certainly have a taught row among the k nearest neighbours.
        unsure: (u,) indices of the queries that must be answered in float64.
        outputs: name (such as `label`) -> output for `chosen`.
    """

    def __init__(
        self,
        info: KnnInfo,
        own: int,
        indices: NDArray[np.int32],
        distances: NDArray[np.float32],
        near: Nearby,
        blur: Blur,
        vote: Callable[[NDArray[np.int64], Float64], Outputs],
    ) -> None:
        self._info, self._blur, k = info, blur, info.k
        far, index, added, beyond = _sorted(indices, distances, near, own, blur.doubt)
        sure = near.clear & self._is_ordered(far, added) & (beyond - far[:, k - 1] > blur.doubt)
        touched = added[:, :k].any(axis=1)
        chosen = np.flatnonzero(sure & touched)
        self.outputs = vote(index[chosen, :k], far[chosen, :k])
        clear = self._is_clear(self.outputs, far[chosen, :k], blur.doubt[chosen])
        sure[chosen] &= clear
        self.unsure, self.chosen = np.flatnonzero(~sure), chosen[clear]
        if not clear.all():
            self.outputs = {name: values[clear] for name, values in self.outputs.items()}

    def _is_ordered(self, far: Float64, added: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Returns (m,) bool: whether (m, k + 1) distances `far` are surely in order next to taught rows (`added`)."""
        close = far[:, 1:] - far[:, :-1] <= self._blur.doubt[:, np.newaxis]
        close &= added[:, 1:] | added[:, :-1]
        if self._blur.tied or self._blur.zero:
            base = base_distance(far, self._info.metric)
            close |= base[:, 1:] - base[:, :-1] <= 2 * self._blur.tied
            close |= (added & (base <= 2 * self._blur.zero))[:, :-1]
        return np.asarray(~close.any(axis=1))

    def _is_clear(self, outputs: Outputs, far: Float64, doubt: Float64) -> NDArray[np.bool_]:
        """Returns (r,) bool: whether errors up to (r,) `doubt` in (r, k) distances `far` cannot change `outputs`."""
        info, shares = self._info, outputs[OUTPUT_PROBABILITIES]
        found = np.ones(len(far), np.bool_)
        if info.weights == "distance":  # each weight is off by at most doubt / (2 nearest) of itself
            with np.errstate(divide="ignore", invalid="ignore"):
                off = doubt / far[:, 0]
            found &= off < 0.1
            if shares.shape[1] > 1:
                two = np.partition(shares, -2, axis=1)[:, -2:]
                found &= two[:, 1] - two[:, 0] > 4.0 * off
        if info.reject is not None:
            limits = np.array(info.reject.thresholds)
            found &= (np.abs(far[:, -1:] - limits) > doubt[:, np.newaxis]).all(axis=1)
        if info.label_sets is not None:
            found &= ~label_sets.doubtful(info, shares, far)
        return found


def _sorted(
    indices: NDArray[np.int32], distances: NDArray[np.float32], near: Nearby, own: int, doubt: Float64
) -> tuple[Float64, NDArray[np.int64], NDArray[np.bool_], Float64]:
    """Sorts the model's own neighbours of each query and its taught rows together, and keeps the k + 1 nearest.

    Returns (m, k + 1) distances in ascending order, the index of the row at each, and whether that row was taught; also
    the (m,) distance of the nearest taught row after the first k (infinity: none). Leaves out taught rows that are
    certainly farther than the model's own k-th neighbour. If no taught row is left for a query, its last distance of
    the k + 1 is infinite.
    """
    count, k = distances.shape
    within = np.flatnonzero(near.distance <= (distances[:, -1] + doubt)[near.query])
    query = near.query[within]
    number = np.bincount(query.astype(np.intp, copy=False), minlength=count)
    place = k + np.arange(len(query)) - (np.cumsum(number) - number)[query]
    far = np.full((count, k + max(1, int(number.max(initial=0)))), np.inf)
    index = np.zeros(far.shape, np.int64)
    far[:, :k], index[:, :k] = distances, indices
    far[query, place], index[query, place] = near.distance[within], own + near.local[within]
    order = np.argsort(far, axis=1, kind="stable")
    far, added = np.take_along_axis(far, order, axis=1), order >= k
    beyond = np.where(added[:, k:], far[:, k:], np.inf).min(axis=1)
    return far[:, : k + 1], np.take_along_axis(index, order[:, : k + 1], axis=1), added[:, : k + 1], beyond

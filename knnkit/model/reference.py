"""The float64 reference: what the right answer is. Brute force, plain numpy, no shortcuts; shares no code with the
graph or with the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_agent.contract import UNKNOWN, Reject, Weights
from knnkit.model.space import Float32, Float64, Space

_CHUNK_BYTES = 32 << 20
#: Near-tied neighbours that are listed beyond the k-th, at most.
_MAX_LISTED = 512
#: Distances that agree in this share are the same sum added in another order: ties.
_TIE = 2.0**-40


@dataclass(frozen=True)
class ReferenceAnswers:
    """The reference's answers to n queries, float64 where not said.

    Attributes:
        label: (n,) int32 class index, UNKNOWN where rejected.
        probabilities: (n, n_classes).
        indices: (n, e) int32 with e >= k, padded with -1: the k neighbours and all that are near-tied with the k-th.
        distances: (n, e) in the model's metric, padded with infinity.
        tolerance: (n,) `margin * max(d_k, radius)`, in model space.
    """

    label: NDArray[np.int32]
    probabilities: Float64
    indices: NDArray[np.int32]
    distances: Float64
    tolerance: Float64


class Reference:
    """A k-nearest-neighbours classifier in float64 over enrolled rows.

    Args:
        space: of the model.
        enrolled: (n_train, p) float32, as `make_space` returns them.
        classes: (n_train,) class indices.
        n_classes: how many classes there are.
        k: neighbours that vote.
        weights: uniform or distance.
        margin: relative distance within which neighbours are near-tied, for the rows' tolerance.
        reject: thresholds, or None.
    """

    def __init__(
        self,
        space: Space,
        enrolled: Float32,
        classes: NDArray[np.int32],
        n_classes: int,
        k: int,
        weights: Weights,
        *,
        margin: float = 1e-5,
        reject: Reject | None = None,
    ) -> None:
        self.space, self.enrolled, self.classes = space, enrolled, classes
        self.n_classes, self.k, self.weights, self.margin, self.reject = n_classes, k, weights, margin, reject

    def answer(self, rows: Float32) -> ReferenceAnswers:
        """Answers raw (n, d) queries."""
        return self._answer(self.space.enter(rows), None)

    def leave_one_out(self, training: NDArray[np.int64]) -> ReferenceAnswers:
        """Answers the training rows of these indices, each as if it had not been enrolled."""
        return self._answer(self.enrolled[training].astype(np.float64), training)

    def _answer(self, queries: Float64, without: NDArray[np.int64] | None) -> ReferenceAnswers:
        lists, tolerances = [], []
        for number, query in enumerate(queries):
            base = self._base_distances(query)
            if without is not None:
                base[without[number]] = np.inf
            order, tolerance = self._rank(base)
            lists.append((order, base[order]))
            tolerances.append(tolerance)
        width = max((len(order) for order, _ in lists), default=self.k)
        indices = np.full((len(queries), width), -1, np.int32)
        distances = np.full((len(queries), width), np.inf)
        label = np.empty(len(queries), np.int32)
        probabilities = np.empty((len(queries), self.n_classes))
        for row, (order, base) in enumerate(lists):
            indices[row, : len(order)] = order
            distances[row, : len(order)] = self.to_metric(base)
            probabilities[row] = self._vote(order[: self.k], distances[row, : self.k])
            label[row] = self._decide(probabilities[row], distances[row, self.k - 1])
        return ReferenceAnswers(label, probabilities, indices, distances, np.array(tolerances))

    def to_metric(self, base: Float64) -> Float64:
        """Returns distances in the model's metric from distances in model space."""
        if self.space.metric == "sqeuclidean":
            return base * base
        return base * base / 2 if self.space.metric == "cosine" else base

    def _base_distances(self, query: Float64) -> Float64:
        if self.space.metric == "cosine" and query[-2] == 1.0:  # a row of zeros: at distance 1 from all
            return np.full(len(self.enrolled), np.sqrt(2.0))
        found = np.empty(len(self.enrolled))
        step = max(1, _CHUNK_BYTES // (8 * len(query)))
        for start in range(0, len(found), step):
            difference = (query - self.enrolled[start : start + step]) * self.space.scale
            if self.space.metric == "manhattan":
                found[start : start + step] = np.abs(difference).sum(axis=1)
            else:
                found[start : start + step] = np.sqrt((difference * difference).sum(axis=1))
        found[found <= self.space.zero] = 0.0
        return found

    def _rank(self, base: Float64) -> tuple[NDArray[np.int64], float]:
        kth = np.partition(base, self.k - 1)[self.k - 1]
        tolerance = self.margin * max(float(kth), self.space.radius)
        near = np.flatnonzero(base <= kth + 2 * tolerance + _TIE * kth)
        near = near[np.argsort(base[near], kind="stable")]
        # What is tied but for the order of a sum stands in order of the index.
        group = np.concatenate([[0], np.cumsum(np.diff(base[near]) > _TIE * base[near][:-1])])
        return near[np.lexsort((near, group))][: self.k + _MAX_LISTED], tolerance

    def _vote(self, order: NDArray[np.int64], distances: Float64) -> Float64:
        shares = np.zeros(self.n_classes)
        for index, distance in zip(order, distances):
            if self.weights == "uniform":
                shares[self.classes[index]] += 1.0
            elif distances[0] == 0.0:
                shares[self.classes[index]] += float(distance == 0.0)
            else:
                shares[self.classes[index]] += distances[0] / distance
        return np.asarray(shares / shares.sum())

    def _decide(self, probabilities: Float64, kth: float) -> int:
        # Shares that are the same sum added in another order are a tie: the lowest class has it.
        label = int(np.flatnonzero(probabilities >= probabilities.max() - 1e-12)[0])
        if self.reject is not None and kth > self.reject.thresholds[label]:
            return UNKNOWN
        return label

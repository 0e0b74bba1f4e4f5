"""Inserts taught rows among the neighbours of one row.

Does what `joined` does for many rows, in a tenth of its time for one: few NumPy calls, and Python numbers. Most rows
take one product, which shows that all taught rows are too far away. Leaves a row alone if anything is in doubt. Knows
no label sets. No I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.enrolment.screen import LEAST, MOST, Screen
from device_agent.inference.tflite_knn import Answers
from device_agent.inference.ties import CHAIN
from device_agent.shared.protocol.constants import UNKNOWN
from device_agent.shared.protocol.model_info import KnnInfo, Near

Float64 = NDArray[np.float64]

_UNIT = 2.0**-24
#: As in `joined`: float32 distances of a model without `near` are off by less than this share.
BLUR = 1e-3
#: (distance, index, whether it was taught)
_Neighbour = tuple[float, int, bool]


class OneRow:
    """The merge for one row.

    Args:
        info: knn.json of the model with the taught rows.
        near: how near two distances are whose order float32 leaves open. Without it, and for a model with label sets,
            only rows without a near taught row are decided here.
        local: (L, p) float32 taught rows in model space.
        screen: finds those of them that may be near.
        places: map a raw float32 row to its (p,) place in model space: weighted and roughly, and exactly.
        reach: how far ties, exact matches and rough places reach, in base distances (`judge.base_distance`).
        weights: (p,) float64 factor of each coordinate.
        unit: factor from weighted distances to base distances (`judge.base_distance`).
        classes: class index of each row: the training rows, then the taught rows.
    """

    def __init__(
        self,
        info: KnnInfo,
        near: Near | None,
        local: NDArray[np.float32],
        screen: Screen,
        places: tuple[Callable[[NDArray[np.float32]], NDArray[Any]], Callable[[NDArray[np.float32]], Float64]],
        reach: tuple[float, float, float],
        weights: Float64,
        unit: float,
        classes: NDArray[np.int32],
    ) -> None:
        self._k, self._metric, self._by_distance = info.k, info.metric, info.weights == "distance"
        self._thresholds = None if info.reject is None else info.reject.thresholds
        self._decides = near is not None and info.label_sets is None
        self._share, self._least, self._unit = (BLUR, 0.0, unit) if near is None else (near.share, near.least, unit)
        self._local, self._weights, self._classes = local, weights, classes
        (self._place, self._enter), (self._tied, self._zero, blur) = places, reach
        self._slack = CHAIN * self._tied + self._zero + blur
        self._own = len(classes) - len(local)
        self._near = screen.of_one
        if info.metric == "manhattan":
            self._near, self._error = self._by_differences, (len(weights) + 16) * _UNIT
            with np.errstate(over="ignore"):  # `_by_differences` sees it
                self._weighted = (local * weights).astype(np.float32)
            self._ones = np.ones(len(weights), np.float32)

    def merge(self, row: NDArray[np.float32], found: Answers) -> NDArray[np.int64] | None:
        """Puts taught rows into `found`, the model's answer to one (p,) row.

        Returns None if the answer is right now. Otherwise it has not changed, and depends on the taught rows returned.
        """
        kth = float(found.distances[0, -1])
        doubt = self._share * max(kth, self._least)
        with np.errstate(over="ignore", invalid="ignore"):  # beyond float32, `_near` returns None
            chosen = self._near(self._place(row), (self._base(kth + doubt) + self._slack) / self._unit)
        if chosen is None:
            return np.arange(len(self._local))
        if not len(chosen):
            return None
        if not self._decides or len(chosen) > 8 * self._k:
            return chosen
        own = zip(found.distances[0].tolist(), found.indices[0].tolist())
        neighbours: list[_Neighbour] = [(distance, index, False) for distance, index in own]
        taught = zip(self._distances(self._enter(row), chosen), chosen.tolist())
        neighbours += [(distance, self._own + index, True) for distance, index in taught]
        neighbours.sort(key=lambda each: each[0])  # the model's own stay in their order if float32 distances are equal
        return None if self._write(neighbours, doubt, found) else chosen

    def _base(self, distance: float) -> float:
        if self._metric == "cosine":
            return sqrt(2.0 * distance)
        return sqrt(distance) if self._metric == "sqeuclidean" else distance

    def _by_differences(self, query: NDArray[Any], limit: float) -> NDArray[np.int64] | None:
        """As `Screen.of_one` (rows within `limit`; None if unknown), for Manhattan distances."""
        query = query.astype(np.float32, copy=False)
        terms = self._weighted - query
        scores = np.abs(terms, out=terms).dot(self._ones)
        size = float(scores.max()) + float(np.abs(query).sum())
        if not LEAST < size < MOST:
            return None
        return np.flatnonzero(scores <= limit + self._error * (size + limit))

    def _distances(self, place: Float64, chosen: NDArray[np.int64]) -> list[float]:
        terms = (place - self._local[chosen]) * self._weights
        if self._metric == "manhattan":
            return [value * self._unit for value in np.abs(terms).sum(axis=1).tolist()]
        measures: list[float] = np.einsum("ij,ij->i", terms, terms).tolist()
        if self._metric == "cosine":
            return [value / 2 for value in measures]
        if self._metric == "sqeuclidean":
            return [value * self._unit**2 for value in measures]
        return [sqrt(value) * self._unit for value in measures]

    def _write(self, neighbours: list[_Neighbour], doubt: float, found: Answers) -> bool:
        k = self._k
        for (first, _, one), (second, _, other) in pairwise(neighbours[: k + 1]):
            if (one or other) and second - first <= doubt:
                return False
            if self._tied and self._base(second) - self._base(first) <= 2.0 * self._tied:
                return False
            if one and self._zero and self._base(first) <= 2.0 * self._zero:
                return False
        nearest = neighbours[:k]
        if any(taught and distance - nearest[-1][0] <= doubt for distance, _, taught in neighbours[k:]):
            return False
        if not any(taught for _, _, taught in nearest):
            return True
        indices = [index for _, index, _ in nearest]
        votes: dict[int, float] = {}
        for (distance, _, _), code in zip(nearest, self._classes[indices].tolist()):
            if self._by_distance and not distance > 10.0 * doubt:
                return False
            votes[code] = votes.get(code, 0.0) + (nearest[0][0] / distance if self._by_distance else 1.0)
        best = max(votes.values())
        label = min(code for code, vote in votes.items() if vote >= best - 1e-12)
        total, last = sum(votes.values()), nearest[-1][0]
        if self._by_distance:  # each weight is off by at most doubt / (2 nearest) of itself
            second_best = max((vote for code, vote in votes.items() if code != label), default=0.0)
            if len(votes) > 1 and best - second_best <= 4.0 * total * doubt / nearest[0][0]:
                return False
        if self._thresholds is not None:
            if abs(last - self._thresholds[label]) <= doubt:
                return False
            label = UNKNOWN if last > self._thresholds[label] else label
        found.label[0] = label
        found.probabilities[0] = 0.0
        for code, vote in votes.items():
            found.probabilities[0, code] = vote / total
        found.indices[0] = indices
        found.distances[0] = [distance for distance, _, _ in nearest]
        return True

"""Settles one row that a graph left in doubt.

Mostly in Python numbers: for a few training rows, NumPy's calls take longer than what they compute. Needs only NumPy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.inference.measures import Measure
from device_agent.inference.ranking import NEAR_TIED, Ranking
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.model_info import KnnInfo

_MAX_FLOAT32 = float(np.finfo(np.float32).max)
#: Squared distances between these are computed in float32 without underflow or overflow (`knnkit.model.graph.tfknn`).
_SQUARED_SAFELY, _SQUARED_AT_MOST = 1e-30, 1e36
#: Shares so close are equal (`exact`).
_SAME_SHARE = 1e-12


class Settling:
    """Answers single rows from the few training rows that may be their neighbours.

    Args:
        info: the metadata in the model file (knn.json).
        ranking: ranks training rows.
        by: the measure, a power of the distance.
        classes: (n_train,) classes of the training rows.
        unit: common factor of all coordinates.
        near_ties: whether rows at different distances can be tied.
    """

    def __init__(
        self, info: KnnInfo, ranking: Ranking, by: Measure, classes: NDArray[Any], unit: float, *, near_ties: bool
    ) -> None:
        self._info, self._ranking, self._by, self._classes, self._unit = info, ranking, by, classes, unit
        self._near_ties = near_ties
        # Uniform votes have no rounding error, so only the order of neighbours can be in doubt.
        self._by_order = info.weights == "uniform" and info.float64 is None and info.reject is None

    def among(
        self, z: NDArray[Any], known: list[int], candidates: NDArray[np.int32], beyond: Any
    ) -> dict[str, list[Any]] | None:
        """Returns the outputs for one (1, p) query `z`, whose neighbours are probably among `candidates`.

        Args:
            z: the query in model space.
            known: the neighbours that the graph has found.
            candidates: indices of the rows that the graph has ranked.
            beyond: array of one number, a lower bound on the squared distances of all other rows.

        Returns {} if the neighbours are `known`, in this order, and the graph's answer is right; None if another row
        may be a neighbour.
        """
        chosen = candidates.tolist()
        if self._near_ties or len(chosen) < self._info.k or min(chosen) < 0 or max(chosen) >= self._info.n_train:
            return None
        most = min(beyond[0], _SQUARED_AT_MOST)
        if self._by_order:
            order, kth = self._ranking.order_one(z, chosen)
            if order == known and _SQUARED_SAFELY < kth * self._unit**2 * NEAR_TIED < most:
                return {}
        order, measure = self._ranking.rank_one(z, candidates)
        return self.decide(order, measure) if measure[-1] * self._unit**2 < most else None

    def confirms(self, z: NDArray[Any], known: list[int]) -> bool:
        """Returns True if the neighbours `known` of one (1, p) query are surely in order of distance."""
        return not self._near_ties and self._ranking.order_one(z, known)[0] == known

    def decide(self, order: list[int], measure: list[float]) -> dict[str, list[Any]]:
        """Returns the outputs, by name, for one query with the neighbours `order`, whose measures are `measure`."""
        far, votes, shares = self._by.few_to_metric(measure), dict[int, float](), [0.0] * len(self._info.classes)
        for row, weight in zip(order, self._weigh(far)):
            code = self._classes.item(row)
            votes[code] = votes.get(code, 0.0) + weight
        total = sum(votes.values())
        for code, vote in votes.items():
            shares[code] = vote / total
        most = max(shares) - _SAME_SHARE
        label = min(code for code in votes if shares[code] >= most)
        if self._info.reject is not None and far[-1] > self._info.reject.thresholds[label]:
            label = constants.UNKNOWN
        return {
            constants.OUTPUT_LABEL: [label],
            constants.OUTPUT_PROBABILITIES: shares,
            constants.OUTPUT_INDICES: order,
            constants.OUTPUT_DISTANCES: [min(each, _MAX_FLOAT32) for each in far],
        }

    def _weigh(self, far: list[float]) -> list[float]:
        if self._info.weights == "uniform":
            return [1.0] * len(far)
        return [float(each == 0.0) if far[0] == 0.0 else far[0] / each for each in far]

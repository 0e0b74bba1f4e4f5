"""Settles one row that a graph left in doubt.

Mostly in Python numbers: for a few training rows, NumPy's calls take longer than what they compute. Needs only NumPy.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.inference.graph import Graph
from device_agent.inference.measures import Measure
from device_agent.inference.ranking import NEAR_TIED, Ranking
from device_agent.inference.ties import CHAIN
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.model_info import KnnInfo

_MAX_FLOAT32 = float(np.finfo(np.float32).max)
#: Distances between these are computed in float32 without underflow or overflow (`knnkit.model.graph.tfknn`).
_SAFELY, _AT_MOST = 1e-15, 1e18
#: Shares so close are equal (`exact`).
_SAME_SHARE = 1e-12


class Settling:
    """Answers single rows from the few training rows that may be their neighbours.

    Args:
        by: the measure, a power of the distance.
        classes: (n_train,) classes of the training rows.
        unit: common factor of all coordinates.
        near_ties: whether rows at different distances can be tied.
    """

    def __init__(
        self, info: KnnInfo, ranking: Ranking, by: Measure, classes: NDArray[Any], unit: float, *, near_ties: bool
    ) -> None:
        self._info, self._ranking, self._by, self._classes = info, ranking, by, classes
        # A measure times `_factor` is the squared distance in model space; for manhattan, the distance.
        self._factor, self._safely, self._most = (
            each if by.manhattan else each * each for each in (unit, _SAFELY, _AT_MOST)
        )
        self._safely = max(self._safely, 4.0 * by.exact_match * self._factor)  # clear of exact matches, which are tied
        self._near_ties = near_ties
        self._by_distance = info.weights == "distance"
        self._weighed = 0 if self._by_distance or near_ties else -1  # the nearest neighbour whose distance counts

    def among(self, z: NDArray[Any], known: list[int], graph: Graph) -> dict[str, list[Any]] | None:
        """Returns the outputs for one (1, p) query `z` in model space, whose neighbours the graph probably has ranked.

        Returns {} if the graph's own answer, with the neighbours `known`, is right; None if a row that the graph has
        not ranked may be a neighbour.
        """
        if graph.candidates is None or (self._near_ties and self._by.manhattan):
            return None
        candidates, beyond = graph.candidates
        most, factor = min(beyond[0], self._most), self._factor
        if not most > self._safely:  # it bounds nothing, or float32 has perhaps lost parts of the distances
            return None
        chosen, first, far = candidates.tolist(), {*known}, None
        rows = known + [each for each in chosen if each not in first]
        if len(chosen) < self._info.k or min(rows) < 0 or max(rows) >= self._info.n_train:
            return None
        if self._info.reject is None and (not self._by_distance or self._is_clear(graph, z.shape[1])):
            far = self._ranking.in_order(z, rows, len(known))
        if far is not None and far[self._weighed] * factor > self._safely and far[-1] * factor < most:
            return {}
        order, measure = self._ranking.rank_one(z, candidates)
        last = measure[-1]
        if self._near_ties:  # `last` is the measure of the first that the k-th row is tied with; others may follow it
            last = (
                math.sqrt(max(last, self._by.exact_match)) + (CHAIN + self._info.k) * self._by.tied
            ) ** 2 * NEAR_TIED
        return self.decide(order, measure) if last * factor < most else None

    def _is_clear(self, graph: Graph, width: int) -> bool:
        """Whether the graph's shares of votes by distance prove its label, if its neighbours are right.

        They do if the two greatest shares differ by more than 8 (p + 8 + k) u, where p is `width` and u is 2^-24. For a
        certain row, a smaller difference is enough for the graph (`_certain_shares` in `knnkit.model.graph.tfknn`).
        """
        if self._near_ties:  # the error of the steps moves shares, too
            return False
        shares: list[float] = graph.outputs[constants.OUTPUT_PROBABILITIES][0].tolist()
        second, most = sorted([0.0, *shares])[-2:]
        return most - second > (width + 8 + self._info.k) * 2.0**-21

    def confirms(self, z: NDArray[Any], known: list[int]) -> bool:
        """Returns True if the neighbours `known` of one (1, p) query are surely in order of distance."""
        return not self._near_ties and self._ranking.in_order(z, known, len(known)) is not None

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

"""Inserts taught rows among the neighbours of one row.

For a single row, `joined` would take ten times as long: this module uses few NumPy calls, and Python numbers. For most
rows, one matrix product shows that all taught rows are too far away (`OneScreen`). Leaves a row to `joined` if rounding
could change the answer, or if the model has label sets and a taught row is near. No I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray

from device_agent.enrolment.one_screen import OneScreen
from device_agent.inference.answers import Answers
from device_agent.inference.ties import CHAIN
from device_agent.shared.protocol.constants import UNKNOWN
from device_agent.shared.protocol.model_info import KnnInfo, Near

Indices = NDArray[np.int64]
#: (distance, index), sorted
_Neighbours = list[tuple[float, int]]

#: As in `joined`: float32 distances of a model without `near` are off by less than this share.
BLUR = 1e-3
#: Coordinates off by `blur` put a cosine distance off by less than 5 of it: 64 times less than the doubt.
_CLEAR = 5.0 * 64.0
#: Beyond this distance, float32 cannot represent the squares, or even the differences.
_FAR = 1e12


class OneRow:
    """Merges taught rows into the model's answer to one row.

    Args:
        info: knn.json, the model's metadata, with the taught rows counted as training rows.
        near: how much distances must differ for float32 to rank them (`near` of knn.json). If it is None, or the model
            has label sets, only queries without a taught row nearby are decided here.
        screen: finds the taught rows that may be near.
        measures: function from a raw float32 row and indices of taught rows to the sum of differences (manhattan) or
            of squared differences between the row and each.
        reach: three distances in model space (`votes.base_distance`): two rows tie if their distances differ by less
            than the first; below the second, a row is an exact match; the third is the error of rough coordinates.
        unit: factor that converts distances of `screen`, and roots of `measures` (manhattan: `measures` themselves), to
            distances in model space.
        classes: class index of each row: the training rows, then the taught rows.
    """

    def __init__(
        self,
        info: KnnInfo,
        near: Near | None,
        screen: OneScreen,
        measures: Callable[[NDArray[np.float32], Indices], list[float]],
        reach: tuple[float, float, float],
        unit: float,
        classes: NDArray[np.int32],
        own: int,
    ) -> None:
        self._k, self._metric, self._by_distance = info.k, info.metric, info.weights == "distance"
        self._thresholds = None if info.reject is None else info.reject.thresholds
        self._share, self._least = (BLUR, 0.0) if near is None else (near.share, near.least)
        self._decides = near is not None and info.label_sets is None
        self._tied, self._zero, blur = reach
        self._slack, self._clear, self._unit = CHAIN * self._tied + self._zero + blur, _CLEAR * blur, unit
        self._near, self._measures = screen.near, measures
        self._class_of, self._own, self._every = classes.item, own, np.arange(len(classes) - own)

    def merge(self, row: NDArray[np.float32], found: Answers) -> Indices | None:
        """Puts taught rows into `found`, the model's answer to one (n_features,) row.

        Returns None if the answer is now right. Otherwise `found` is unchanged, and the indices of the taught rows on
        which the right answer may depend are returned.
        """
        kth = found.distances.item(self._k - 1)
        doubt = self._share * (kth if kth > self._least else self._least)
        limit = (self._base(kth + doubt) + self._slack) / self._unit
        chosen = self._near(row, limit) if limit < _FAR else None
        if chosen is None:
            return self._every
        if not len(chosen):
            return None
        if not self._decides or len(chosen) > 8 * self._k or doubt < self._clear:
            return chosen
        distances = found.distances[0].tolist()
        distances += [self._distance(measure) for measure in self._measures(row, chosen)]
        indices = found.indices[0].tolist() + (chosen + self._own).tolist()
        # Equal float32 distances stay in order: the model has ranked its own rows by their exact ones.
        neighbours = sorted(zip(distances, indices), key=lambda each: each[0])
        return None if self._is_certain(neighbours, doubt) and self._write(neighbours, doubt, found) else chosen

    def _base(self, distance: float) -> float:
        if self._metric == "cosine":
            return sqrt(2.0 * distance)
        return sqrt(distance) if self._metric == "sqeuclidean" else distance

    def _distance(self, measure: float) -> float:
        if self._metric == "euclidean":
            return sqrt(measure) * self._unit
        if self._metric == "cosine":
            return measure / 2
        return measure * (self._unit if self._metric == "manhattan" else self._unit**2)

    def _is_certain(self, neighbours: _Neighbours, doubt: float) -> bool:
        """Whether errors below `doubt` in the distances cannot change the first k of the sorted `neighbours`.

        Two training rows that do not tie are in the right order already: the model has ranked them.
        """
        own, base, apart, after_taught = self._own, self._base, 2.0 * self._tied, False
        last = -inf
        for distance, index in neighbours[: self._k + 1]:
            taught = index >= own
            if distance - last <= doubt and (taught or after_taught):
                return False
            if self._tied and last >= 0.0 and base(distance) - base(last) <= apart:
                return False
            if taught and self._zero and base(distance) <= 2.0 * self._zero:
                return False
            last, after_taught = distance, taught
        beyond = neighbours[self._k - 1][0] + doubt
        return not any(index >= own and distance <= beyond for distance, index in neighbours[self._k + 1 :])

    def _write(self, neighbours: _Neighbours, doubt: float, found: Answers) -> bool:
        """Writes the first k `neighbours`, their votes and their label into `found`; returns True if `found` is right.

        Writes nothing if none of them was taught (True), or if errors up to `doubt` in the distances may change a vote
        or a rejection (False).
        """
        nearest = neighbours[: self._k]
        (first, _), (last, _) = nearest[0], nearest[-1]
        if max(index for _, index in nearest) < self._own:
            return True
        if self._by_distance and not first > 10.0 * doubt:
            return False
        votes: dict[int, float] = {}
        for distance, index in nearest:
            code = self._class_of(index)
            votes[code] = votes.get(code, 0.0) + (first / distance if self._by_distance else 1.0)
        total, best = sum(votes.values()), max(votes.values())
        label = min(code for code, vote in votes.items() if vote >= best - 1e-12)
        if self._by_distance and len(votes) > 1:  # each weight is off by at most doubt / (2 first) of itself
            second = max(vote for code, vote in votes.items() if code != label)
            if best - second <= 4.0 * total * doubt / first:
                return False
        if self._thresholds is not None:
            if abs(last - self._thresholds[label]) <= doubt:
                return False
            label = UNKNOWN if last > self._thresholds[label] else label
        found.label[0], shares = label, found.probabilities[0]
        shares[:] = 0.0
        for code, vote in votes.items():
            shares[code] = vote / total
        found.distances[0], found.indices[0] = zip(*nearest)
        return True

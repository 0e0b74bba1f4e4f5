"""Measures of pairs of rows: powers of their distances.

Measures order neighbours. A measure is a power of the distance in model space (between transformed rows): its square
for most metrics. All IEEE machines compute the same bits, except for haversine, where nearly equal measures count as
ties. Needs only NumPy.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.inference.ties import CHAIN
from device_agent.shared.powers import greatest, power
from device_agent.shared.protocol.constants import GRAPH_METRICS
from device_agent.shared.protocol.model_info import InFloat64, KnnInfo
from device_agent.shared.weights import LEAST_WIDTH, MOST_WIDTH

Float64 = NDArray[np.float64]
_MOST = 1e15  # no build gives a class a larger factor
_LINEAR = ("manhattan", "chebyshev", "jaccard")


class Measure:
    """The measure of one model, which orders the neighbours of a row.

    Args:
        info: the metadata in the model file (knn.json).
        weights: (p,) factor of each coordinate's difference, without the common factor `unit`.
        unit: common factor of all coordinates.
        centre: (p,) what was subtracted from rows in model space.
        zero: distances in model space up to this one are exact matches.
        tied: distances in model space closer than this are ties.

    Attributes:
        exact_match: the largest measure that counts as an exact match.
        tied: distances in model space, divided by `unit`, closer than this are ties.
        in_graph: whether the graph can compute the metric.
        manhattan: whether the metric is manhattan.
    """

    def __init__(
        self, info: KnnInfo, weights: Float64, unit: float, centre: NDArray[np.float32], *, zero: float, tied: float
    ) -> None:
        self._metric, self._unit = info.metric, unit
        self._weighted = info.metric not in ("jaccard", "haversine") and not bool((weights == 1.0).all())
        self._weights = weights if self._weighted else np.ones(1)
        self.manhattan, self.in_graph = info.metric == "manhattan", info.metric in GRAPH_METRICS
        self._power = _power_of(info)
        _require_votes(info)
        self._greatest = greatest(self._power)
        self.exact_match, self.tied = float(self.of_base(zero / unit)), tied / unit
        self._chain = CHAIN * self.tied
        on_sphere = info.metric == "haversine"
        if on_sphere and len(centre) != 2:
            raise ValueError(f"haversine needs two coordinates, found {len(centre)}")
        self._latitude = float(centre[0]) + (info.origin[0] if info.origin else 0.0) if on_sphere else 0.0

    def terms(self, one: Any, others: Any) -> Float64:
        """Returns (m, c) terms of m pairs of rows, (m, p) `one` and `others`; a pair's terms add up to its measure."""
        if self._metric == "jaccard":
            one, others = one != 0.0, others != 0.0
            either = (one | others).sum(axis=1, keepdims=True)
            return np.asarray((one != others).sum(axis=1, keepdims=True) / np.maximum(either, 1))
        if self._metric == "haversine":
            half = np.sin((one - others) / 2.0)
            half *= half
            north = np.cos(one[:, :1] + self._latitude) * np.cos(others[:, :1] + self._latitude)
            return np.asarray(4.0 * (half[:, :1] + north * half[:, 1:]))
        apart = np.subtract(one, others, dtype=np.float64)
        found = self._raised(apart * self._weights if self._weighted else apart, exact=True)
        return np.asarray(found.max(axis=1, keepdims=True)) if self._metric == "chebyshev" else found

    def rough(self, queries: Float64, rows: NDArray[np.float32]) -> Float64:
        """Returns the (q, r) measures of (q, p) queries and (r, p) training rows, with rounded sums.

        A sum is off by less than 2^-40 of itself. For haversine, a measure is a squared chord, and the chord is off by
        less than 2^-50, far less than `tied`.
        """
        if self._metric == "jaccard":
            one, others = ((part != 0.0).astype(np.float32) for part in (queries, rows))
            both = (one @ others.T).astype(np.float64)  # whole numbers: exact
            either = one.sum(axis=1)[:, np.newaxis] + others.sum(axis=1) - both
            return np.asarray((either - both) / np.maximum(either, 1.0))
        places = rows.astype(np.float64)
        if self._metric == "haversine":
            queries, places = self._on_sphere(queries), self._on_sphere(places)
        columns, weights = np.ascontiguousarray(places.T), np.broadcast_to(self._weights, places.shape[1])
        found, apart = np.empty((len(queries), len(rows))), np.empty(columns.shape)
        add = np.maximum.reduce if self._metric == "chebyshev" else np.add.reduce
        for query, out in zip(queries, found):
            np.subtract(columns, query[:, np.newaxis], out=apart)
            if self._weighted:
                np.multiply(apart, weights[:, np.newaxis], out=apart)
            add(self._raised(apart, exact=False), axis=0, out=out)
        return found

    def _raised(self, apart: Float64, *, exact: bool) -> Float64:
        """Returns |`apart`| (differences of coordinates) to the metric's power (euclidean: 2); may overwrite `apart`.

        `exact` uses only products and square roots (`power`), which gives the same bits on every machine, but is slow.
        """
        if self._power == 2.0:
            return np.multiply(apart, apart, out=apart)
        np.abs(apart, out=apart)
        if self._power == 1.0:
            return apart
        np.minimum(apart, self._greatest, out=apart)
        few_roots = exact or (self._power * 8.0).is_integer()
        with np.errstate(under="ignore"):
            return np.asarray(power(apart, self._power) if few_roots else apart**self._power)

    def _on_sphere(self, rows: Float64) -> Float64:
        """Returns (n, 3) points on the unit sphere for `rows`, (n, 2) latitudes and longitudes in radians."""
        north, east = rows[:, 0] + self._latitude, rows[:, 1]
        return np.stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)], axis=1)

    def to_base(self, measure: Any) -> Any:
        """Converts measures to distances in model space divided by `unit`, the common factor of coordinates."""
        return power(np.asarray(measure), 1.0 / self._power)

    def of_base(self, distance: Any) -> Any:
        """Converts distances in model space, divided by the coordinates' common factor `unit`, to measures."""
        return power(np.asarray(distance), self._power)

    def to_distance(self, measure: Any) -> Float64:
        """Converts measures to distances in model space."""
        return np.asarray(self.to_base(measure) * self._unit)

    def few_to_metric(self, measure: list[float]) -> list[float]:
        """Converts measures to distances in the model's metric; faster than `to_metric` for few measures."""
        if self._metric == "euclidean":
            return [math.sqrt(each) * self._unit for each in measure]
        found: list[float] = self.to_metric(np.array(measure)).tolist()
        return found

    def and_ties(self, measure: Any) -> Any:
        """Returns the greatest measure of a row that may still tie with a row whose measure is `measure`."""
        measure = np.maximum(measure, self.exact_match)
        return self.of_base(self.to_base(measure) + self._chain) if self._chain else measure

    def to_metric(self, measure: Float64) -> Float64:
        """Converts measures to distances in the model's metric."""
        if self._metric == "haversine":
            return np.asarray(2.0 * np.arcsin(np.minimum(np.sqrt(measure) / 2.0, 1.0)))
        if self._metric == "cosine":
            return measure / 2
        return np.asarray(
            measure * self._unit**2 if self._metric == "sqeuclidean" else self.to_base(measure) * self._unit
        )


def _power_of(info: KnnInfo) -> float:
    if info.metric != "minkowski":
        return 1.0 if info.metric in _LINEAR else 2.0
    given = None if info.float64 is None else info.float64.p
    if given is None or not 1.0 <= given <= 1e3:
        raise ValueError("minkowski needs a power")
    return float(given)


def _require_votes(info: KnnInfo) -> None:
    """Raises ValueError if bandwidth, radius, class weights or outlier label of knn.json are out of range."""
    own = info.float64 or InFloat64()
    factors, count = own.class_weights, len(info.classes)
    if any(each is not None and not LEAST_WIDTH <= each <= MOST_WIDTH for each in (own.bandwidth, own.radius)):
        raise ValueError("a bandwidth or radius is outside the range of float32")
    if factors is not None and not (len(factors) == count and all(0.0 < each < _MOST for each in factors)):
        raise ValueError(f"class_weights are not {count} factors above 0")
    if own.outlier is not None and not 0 <= own.outlier < count:
        raise ValueError("the outlier label is not a class")

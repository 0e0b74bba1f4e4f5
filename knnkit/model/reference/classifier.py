"""Brute-force float64 classifier that defines the right answer.

Plain NumPy. Its only shortcut is a float32 product, which excludes rows that are certainly too far; float64 ranks the
others. Shares no code with the graph or with the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.label_columns import regressor
from device_agent.shared.powers import power
from device_agent.shared.protocol.constants import GRAPH_METRICS, UNKNOWN, Weights
from device_agent.shared.protocol.model_info import InFloat64, Reject
from device_agent.shared.votes import base_distance
from device_agent.shared.weights import weigh
from knnkit.model.reference.space import Float32, Float64, Space
from knnkit.model.reference.terms import terms

_CHUNK_BYTES = 4 << 20
#: Scores of a product at a time, and unit roundoff of float32.
_SCORES = 8 << 20
_UNIT = 2.0**-24
#: Range of errors in which float32 squares neither overflow nor vanish.
_BOUNDED = (1e-30, 1e30)
#: Most near-tied neighbours that are listed after the k-th.
_MAX_LISTED = 512
#: Rows within this factor are summed again, exactly. NumPy adds pairwise, so that a sum of p terms is off by less than
#: (16 + log2 p) 2^-53 of itself: far less than 2^-40.
_NEAR_TIED = 1.0 + 2.0**-40
#: Ties within `Space.tied` form chains; the chain of the k-th neighbour ends this many times `tied` beyond it.
_CHAIN = 8


@dataclass(frozen=True)
class ReferenceAnswers:
    """The reference's answers to n queries."""

    label: NDArray[np.int32]  # (n,) int32 class index, UNKNOWN where rejected
    probabilities: Float64  # (n, n_classes) float64
    #: (n, e) int32, e >= k: the k neighbours, then rows near-tied with the k-th; padded with -1.
    indices: NDArray[np.int32]
    distances: Float64  # (n, e) float64 distances of the rows `indices`, in the model's metric; padded with infinity
    tolerance: Float64  # (n,) float64 `margin * max(d_k, radius)`: distances in model space this close are near-tied


class Reference:
    """k-nearest-neighbours classifier in float64 over training rows.

    Args:
        enrolled: (n_train, p) float32 training rows in model space, as `make_space` returns them.
        classes: (n_train,) int32 class indices.
        k: number of neighbours that vote.
        weights: uniform or distance.
        margin: share of a distance within which neighbours are near-tied; sets `ReferenceAnswers.tolerance`.
        reject: thresholds beyond which a row is unknown; None: no row is.
        groups: (n_train,) number of each row's recording. `leave_one_out` then excludes the row's whole recording.
        targets: (n_train, t) float64 targets of a regression; None for a classifier.
        counts: the number of labels in each of several label columns; the targets are then indices of labels.
        float64: parameters that the TensorFlow graph does not know, such as a radius; None: it knows all.
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
        groups: NDArray[Any] | None = None,
        targets: Float64 | None = None,
        counts: tuple[int, ...] = (),
        float64: InFloat64 | None = None,
    ) -> None:
        self.space, self.enrolled, self.classes = space, enrolled, classes
        self.n_classes, self.k, self.weights, self.margin, self.reject = n_classes, k, weights, margin, reject
        self.listed = margin  # neighbours up to twice this beyond the k-th are listed
        self.groups, self.targets, self.float64, self.counts = groups, targets, float64, counts
        self._unit, self._scale = space.unit, space.scale / space.unit
        self._squares: Float64 | None = None

    def answer(self, rows: NDArray[Any]) -> ReferenceAnswers:
        """Returns the answers to raw (n, d) queries."""
        return self._answer(self.space.enter(rows), None)

    @property
    def own(self) -> InFloat64:
        """The argument `float64`; if that is None, a record whose fields are all None."""
        return self.float64 or InFloat64()

    @property
    def regressor(self) -> Any:
        """Object that computes the values of answers: means of targets, outlier factors, or votes on label columns."""
        targets = np.empty((len(self.enrolled), 0)) if self.targets is None else self.targets
        return regressor(targets, self.k, self.weights, self.float64, self.counts)

    def values(self, answers: Any) -> Float64:
        """Returns (n, t) means of targets, outlier factors or label indices, NaN if rejected; (n, 0) for one label."""
        found: Float64 = self.regressor.values(answers)
        return found

    def settled(self, answers: Any, rows: NDArray[Any]) -> Float64:
        """Returns the `values` of a device's float32 `answers` to raw (n, d) rows.

        With several label columns, rows whose labels float32 rounding could change are answered again in float64.
        """
        values = self.values(answers)
        doubtful = self.regressor.in_doubt(answers) if self.counts else np.zeros(len(values), np.bool_)
        if doubtful.any():
            values[doubtful] = self.values(self.answer(rows[doubtful]))
        return values

    def leave_one_out(self, training: NDArray[np.int64]) -> ReferenceAnswers:
        """Returns the answers to n training rows, by index; a row's neighbours exclude itself and its recording."""
        rows = self.enrolled[training].astype(np.float64)
        if self.space.metric == "cosine":  # a query of zeros is marked otherwise than a training row of zeros
            end = float(self.space.centre[-1])
            rows[:, -2], rows[:, -1] = rows[:, -1] + end > 0.5, -end
        return self._answer(rows, training)

    def _answer(self, queries: Float64, without: NDArray[np.int64] | None) -> ReferenceAnswers:
        lists, tolerances, voters = [], [], []
        step = max(1, _SCORES // len(self.enrolled))
        for start in range(0, len(queries), step):
            own = None if without is None else without[start : start + step]
            for query, near in zip(queries[start : start + step], self._find_near(queries[start : start + step], own)):
                rough = self._measure(query, near)
                order, measure, tolerance = self._rank(query, near, rough)
                lists.append((order, measure))
                tolerances.append(tolerance)
                voters.append(self._within(query, near, rough))
        width = max((len(order) for order, _ in lists), default=self.k)
        indices, distances = np.full((len(queries), width), -1, np.int32), np.full((len(queries), width), np.inf)
        label, probabilities = np.empty(len(queries), np.int32), np.empty((len(queries), self.n_classes))
        for row, (order, measure) in enumerate(lists):
            indices[row, : len(order)] = order
            distances[row, : len(order)] = self._to_metric(measure)
            probabilities[row] = self._vote(*(voters[row] or (order[: self.k], distances[row, : self.k])))
            label[row] = self._decide(probabilities[row], distances[row, self.k - 1])
        return ReferenceAnswers(label, probabilities, indices, distances, np.array(tolerances))

    def order(self, rows: Float32, indices: NDArray[np.int32]) -> tuple[NDArray[np.int32], Float64]:
        """Sorts the (n, k) neighbours `indices` of raw (n, d) rows by (distance, index); also returns the distances."""
        found, distances = np.empty_like(indices), np.empty(indices.shape)
        for row, query in enumerate(self.space.enter(rows)):
            found[row], measure = self._sort(query, np.sort(indices[row]))
            distances[row] = self._to_metric(measure)
        return found, distances

    def _find_near(self, queries: Float64, without: NDArray[np.int64] | None) -> Iterator[NDArray[np.int64]]:
        """Yields for each query (m,) ascending indices of training rows that may be neighbours or tie with the k-th.

        `without` has the index of a training row to exclude for each query; with `groups`, its recording is excluded.
        """
        if without is not None and self.groups is not None:
            yield from (np.flatnonzero(self.groups != own) for own in self.groups[without])
            return
        every = np.arange(len(self.enrolled))
        scores, most = self._score(queries)
        for row in range(len(queries)):
            near = every if np.isnan(most[row]) else np.flatnonzero(scores[row] <= most[row])
            yield near if without is None else near[near != without[row]]

    def _score(self, queries: Float64) -> tuple[Float32, Float64]:
        """Returns (q, n_train) float32 scores, and (q,) limits: rows with a higher score are too far (NaN: none is).

        A score ‖t‖² - 2 x·t of p products in float32, added in any order, is off by less than (p + 8) u (‖x‖ + ‖t‖)²
        (Higham 2002, 3.5; u: float32 unit roundoff). The (k + 1)-th least score gives the limit, as a row may be left
        out. The least scores of parts of the rows have a (k + 1)-th that is at least as great.
        """
        squared = self.space.metric in GRAPH_METRICS and self.space.metric != "manhattan"
        if not squared or self.k == len(self.enrolled) or self.own.radius is not None:
            return np.zeros((len(queries), 0), np.float32), np.full(len(queries), np.nan)
        if self._squares is None:
            self._squares = self._measure_squares()
        with np.errstate(over="ignore", invalid="ignore"):
            weighted = queries * self._scale
            squares = np.einsum("ij,ij->i", weighted, weighted)
            slack = (len(self._scale) + 8) * _UNIT * (np.sqrt(squares) + np.sqrt(self._squares.max())) ** 2
            factors = (weighted * (-2.0 * self._scale)).astype(np.float32)
            scores = factors @ self.enrolled.T
            scores += self._squares.astype(np.float32)
            parts = min(len(self.enrolled), 64 * (self.k + 1))  # a partition of all scores takes ten times as long
            least = [row[: len(row) // parts * parts].reshape(-1, parts).min(axis=0) for row in scores]
            kth = np.partition(least, self.k)[:, self.k].astype(np.float64)
            base = self._to_base(np.maximum(kth + squares + slack, self._limit))
            wide = max(self.margin, self.listed)
            beyond = np.maximum(2 * wide * np.maximum(base, self.space.radius), _CHAIN * self.space.tied)
            most = ((base + beyond) * (_NEAR_TIED / self._unit)) ** 2 - squares + slack
        bounded = (slack > _BOUNDED[0]) & (slack < _BOUNDED[1]) & np.isfinite(factors).all(axis=1)
        if self.space.metric == "cosine":  # zeros are at the same distance from all
            bounded &= queries[:, -2] != 1.0
        return scores, np.where(bounded, most, np.nan)

    def _measure_squares(self) -> Float64:
        found = np.empty(len(self.enrolled))
        step = max(1, _CHUNK_BYTES // (8 * self.enrolled.shape[1]))
        for start in range(0, len(found), step):
            weighted = self.enrolled[start : start + step] * self._scale
            found[start : start + step] = np.einsum("ij,ij->i", weighted, weighted)
        return found

    def _measure(self, query: Float64, rows: NDArray[np.int64]) -> Float64:
        """Returns (m,) distances to `rows` (indices), raised to `Space.power`: rounded, and not times `Space.unit`."""
        found = np.empty(len(rows))
        step = max(1, _CHUNK_BYTES // (8 * len(query)))
        for start in range(0, len(found), step):
            part = self.enrolled[rows[start : start + step]]
            found[start : start + step] = self._terms(query, part).sum(axis=1)
        return found

    def _within(
        self, query: Float64, rows: NDArray[np.int64], rough: Float64
    ) -> tuple[NDArray[np.int64], Float64] | None:
        """Returns indices of the rows within the model's radius, ties included, and distances; None without a radius.

        `rows` has the (m,) row indices to choose from, and `rough` their rounded distances to the power `Space.power`.
        """
        if self.own.radius is None:
            return None
        limit = float(base_distance(np.array(self.own.radius), self.space.metric)) + self.space.tied
        rows = rows[self._to_base(rough) <= limit * _NEAR_TIED]
        exact = self._add_up(query, rows)
        inside = self._to_base(exact) <= limit
        return rows[inside], self._to_metric(exact[inside])

    def _terms(self, query: Float64, enrolled: Float32) -> Float64:
        if self.space.metric not in GRAPH_METRICS:
            return terms(self.space, self._scale, query, enrolled)
        if self.space.metric == "cosine" and query[-2] == 1.0:  # a row of zeros: at distance 1 from all
            return np.full((len(enrolled), 1), 2.0)
        difference: Float64 = (query - enrolled) * self._scale
        return np.abs(difference) if self.space.metric == "manhattan" else difference * difference

    def _rank(
        self, query: Float64, rows: NDArray[np.int64], rough: Float64
    ) -> tuple[NDArray[np.int64], Float64, float]:
        """Returns (e,) neighbours of `query`, nearest first, their measures, and the tolerance for near-ties.

        A measure is a power of the distance; `rough` holds the rounded ones (`_measure`) of the ascending training rows
        `rows`. The neighbours are the k nearest, then those near-tied with the k-th, at most `_MAX_LISTED`; of rows
        with equal measures, the lower index is first.
        """
        kth = float(self._to_base(max(self._limit, np.partition(rough, self.k - 1)[self.k - 1])))
        tolerance = self.margin * max(kth, self.space.radius)
        beyond = max(2 * max(self.margin, self.listed) * max(kth, self.space.radius), _CHAIN * self.space.tied)
        chosen = self._to_base(rough) <= (kth + beyond) * _NEAR_TIED
        near, rough = rows[chosen], rough[chosen]
        most = self.k + _MAX_LISTED
        if len(near) > most:  # keep what is tied with the k-th
            last = self._to_base(max(self._limit, np.partition(rough, most - 1)[most - 1]))
            near = near[self._to_base(rough) <= max(last, kth + _CHAIN * self.space.tied) * _NEAR_TIED]
        order, exact = self._sort(query, near)
        return order[:most], exact[:most], tolerance

    def _sort(self, query: Float64, rows: NDArray[Any]) -> tuple[NDArray[Any], Float64]:
        """Returns indices `rows` sorted by (measure, index), and their measures: distances raised to `Space.power`.

        Rows whose distances differ by at most `Space.tied` all get the least of their measures.
        """
        exact = self._add_up(query, rows)
        order = np.lexsort((rows, exact))
        rows, exact = rows[order], np.asarray(exact[order])
        if self.space.tied == 0.0 or len(rows) < 2:
            return rows, exact
        base = self._to_base(exact)
        chain = base[self.k - 1] + _CHAIN * self.space.tied
        apart = (np.diff(base) > self.space.tied) | (base[1:] > chain)
        group = np.append(0, np.cumsum(apart))
        first = np.append(0, np.flatnonzero(apart) + 1)[group]
        return rows[np.lexsort((rows, group))], np.asarray(exact[first])

    def _add_up(self, query: Float64, rows: NDArray[np.int64]) -> Float64:
        """Returns (m,) distances to `rows` (indices), raised to `Space.power`; a sum is rounded once, at its end."""
        sums: dict[bytes, float] = {}
        found = np.empty(len(rows))
        for place, index in enumerate(rows):
            row = self.enrolled[index : index + 1]
            key = row.tobytes()  # sums a row with thousands of copies once
            if key not in sums:
                sums[key] = math.fsum(self._terms(query, row)[0].tolist())
            found[place] = sums[key]
        found[found <= self._limit] = 0.0
        return found

    @property
    def _limit(self) -> float:
        """The distance, to the power `Space.power`, up to which a row is an exact match of a query."""
        return float(power(np.array(self.space.zero / self._unit), self.space.power))

    def _to_base(self, measure: Any) -> Any:
        return power(np.asarray(measure), 1.0 / self.space.power) * self._unit

    def _to_metric(self, measure: Float64) -> Float64:
        if self.space.metric == "haversine":
            return np.asarray(2.0 * np.arcsin(np.minimum(np.sqrt(measure) / 2.0, 1.0)))
        if self.space.metric not in ("sqeuclidean", "cosine"):
            return np.asarray(self._to_base(measure))
        return np.asarray(measure / 2 if self.space.metric == "cosine" else measure * self._unit**2)

    def _vote(self, order: NDArray[np.int64], distances: Float64) -> Float64:
        if self.float64 is not None:
            return self._vote_in_float64(order, distances)
        shares = np.zeros(self.n_classes)
        for index, distance in zip(order, distances):
            if self.weights == "uniform":
                shares[self.classes[index]] += 1.0
            elif distances[0] == 0.0:
                shares[self.classes[index]] += float(distance == 0.0)
            else:
                shares[self.classes[index]] += distances[0] / distance
        return np.asarray(shares / shares.sum())

    def _vote_in_float64(self, order: NDArray[np.int64], distances: Float64) -> Float64:
        """Returns (n_classes,) shares of the votes of the rows `order`, with kernels and class weights."""
        weight = weigh(distances, distances.min(initial=np.inf), self.weights, self.own.bandwidth)
        if self.own.class_weights is not None:
            weight *= np.array(self.own.class_weights)[self.classes[order]]
        shares = np.bincount(self.classes[order], weight, self.n_classes).astype(np.float64)
        if shares.sum() > 0.0:
            return np.asarray(shares / shares.sum())
        if self.own.outlier is not None:
            shares[self.own.outlier] = 1.0
        return shares

    def _decide(self, probabilities: Float64, kth: float) -> int:
        if not probabilities.any():
            return UNKNOWN
        # The order of addition can split equal shares by some 2^-53: shares within 1e-12 tie, the lowest class wins.
        label = int(np.flatnonzero(probabilities >= probabilities.max() - 1e-12)[0])
        if self.reject is not None and kth > self.reject.thresholds[label]:
            return UNKNOWN
        return label

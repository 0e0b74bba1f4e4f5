"""Nearest-neighbour classifier as a TensorFlow module.

Combines the map into model space (`preprocess`), the neighbours there (`search`) and their vote. The graph also flags
the queries whose neighbours and label float32 rounding cannot have changed (`certain`). A device computes the others
in float64. Fits nothing and reads no file. `knnkit.TfKNN` is the class for notebooks.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

from device_agent.shared.golden.judge import PROBABILITY_TOLERANCE
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.model_info import Near
from knnkit.model.graph.preprocess import TYPICAL, enter
from knnkit.model.graph.row_blocks import StoredRows
from knnkit.model.graph.search import Nearest, Search
from knnkit.model.graph.underflow import lost, may_be_mistaken
from knnkit.model.reference.enrolment import Enrolment
from knnkit.model.reference.float32_errors import EPSILON
from knnkit.model.reference.space import Float32

_TINY = np.float32(np.finfo(np.float32).tiny)
#: A distance above this has a square (1e-30) that float32 holds to the last bit: normal numbers begin at 1.2e-38, and
#: parts of the sum down to 1e-8 of it stay normal. The squares of much smaller distances underflow.
_SQUARED_SAFELY = 1e-15
#: A distance below this has a square (1e36) far below float32's greatest, 3.4e38, also as a sum with others. On
#: overflow, some kernels return infinity, some the greatest number.
_SQUARED_AT_MOST = np.float32(1e18)
#: Above this scale, a difference that matters can be subnormal (1 / 1e30 is near 1.2e-38), and is flushed to zero.
_STEEPEST = 1e30
#: Below this scale, a query times the scale twice can be subnormal, also on a lattice, whose steps are at least 1e-12.
_FLATTEST = 1e-25
#: Range of scales and of `Space.reach` in which no product that counts is subnormal or overflows.
_ORDINARY = (1e-9, 1e9)
#: Rows up to so many bytes make a model file that a device loads for each of several threads (`interpreter_pool`).
_SMALL = 6 << 20
#: Share of the vote that a neighbour beside a near-exact match may lose unnoticed.
_DENIED = 1e-6


class KnnModule(tf.Module):  # type: ignore[misc]
    """Exact k nearest neighbours of raw rows, and their vote.

    Args:
        k: neighbours, at most n_train.
        weights: uniform or distance.
        margin: greatest relative error of distances with which a query counts as certain, so that it needs no float64.
        thresholds: for each class, the distance of the k-th neighbour, in the model's metric, beyond which a query is
            unknown; None: no query is.
        decides: whether the graph computes the model's metric and votes. If False, the graph uses the metric
            manhattan, marks no query as certain, and float64 code answers all (docs/decisions/190).
    """

    def __init__(
        self,
        enrolment: Enrolment,
        k: int,
        *,
        weights: constants.Weights = "uniform",
        margin: float = 1e-5,
        thresholds: tuple[float, ...] | None = None,
        decides: bool = True,
    ) -> None:
        super().__init__(name="tfknn")
        self.space, self.enrolled, self.codes = enrolment.space, enrolment.enrolled, enrolment.codes
        if not decides:  # of all searches, that of manhattan makes the smallest file
            self.space, weights, thresholds = replace(enrolment.space, metric="manhattan"), "uniform", None
        self.targets, self._decides = enrolment.targets, decides
        self.classes, self.metric = enrolment.classes, self.space.metric
        self.k, self.n_features, self.weights, self.margin = k, len(enrolment.feature_names), weights, margin
        self._thresholds = None if thresholds is None else self._to_base(np.asarray(thresholds))
        self._graph: Any = None
        self.search = Search(self.space, self.enrolled, k, cells=decides)
        self._lost, self._mistaken = lost(self.space), may_be_mistaken(self.space, self.enrolled)

    def batch_rows(self, search: str) -> int:
        """Returns the fixed number of rows in a batch of `search`.

        64, or fewer if temporary tensors would take over 32 MB. A larger batch is not faster (its scores leave the
        cache before TOPK_V2 reads them), and a part-filled one wastes more. 32 if the tensors of 64 would take over 16
        MB and the model is small: one thread takes as long, and two share 64 rows (docs/decisions/269).
        """
        width = self.enrolled.shape[1]
        ranked = max(32, 2 * self.search.candidates(search))
        per_row = 4 * (len(self.enrolled) * (width if self.metric == "manhattan" else 1) + ranked * width)
        fitting = (32 << 20) // per_row
        halved = 4 * self.enrolled.size <= _SMALL and 64 * per_row > 16 << 20
        return int(max(2, min(32 if halved else 64, 1 << max(0, fitting.bit_length() - 1))))

    @property
    def near(self) -> Near:
        """How near two distances must be (`Near`) for a runtime to sort the neighbours again in float64.

        Two squared distances a < b, or two Manhattan distances, are in the right order if b - a > g b, where g is
        `Search.gap`. Two distances, sqrt a and sqrt b, need half of g: b - a = (sqrt b - sqrt a)(sqrt b + sqrt a) >
        2 (sqrt b - sqrt a) sqrt a. The rounding of roots and differences adds 8 u (u: unit roundoff of float32).
        With steps, a row is off by its blur: distances must differ by 4 blur more (`_further`), and squared distances
        by twice as much. The blur of a row that `_certain` accepts is less than margin / (2 TYPICAL) times its k-th
        distance, or times `Space.radius` if that is greater. TYPICAL is a typical error as a share of its bound.
        """
        one = self._gap + 8.0 * EPSILON
        twice = 2.0 if self.metric in ("sqeuclidean", "cosine") else 1.0
        if self.space.steps:
            least = float(self.space.radius)
            share = (one + 2.0 * self.margin / TYPICAL) * twice
            return Near(share, float(self._to_metric(least * least, least)))
        share = one * twice
        if not self._mistaken:
            return Near(share)
        # Half of twice the share covers the gap, the other half what is lost: (sqrt b - sqrt a)^2 < b - a.
        least = 2.0 * self._lost
        return Near(2.0 * share, float(np.sqrt(least) if self.metric == "euclidean" else least) / (2.0 * share))

    def run(self, queries: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Runs the graph on (n, n_features) finite float32 rows, in batches; returns output name -> (n, ...) array."""
        if self._graph is None:
            shape = tf.TensorSpec((self.batch_rows(constants.FULL), self.n_features), tf.float32)
            graph = tf.function(self.answer, input_signature=[shape], autograph=False)
            self._graph = graph.get_concrete_function()  # a `tf.function` warns when several models are made
        size = self.batch_rows(constants.FULL)
        parts = []
        for start in range(0, max(1, len(queries)), size):
            rows = queries[start : start + size]
            parts.append(self._graph(tf.constant(np.pad(rows, ((0, size - len(rows)), (0, 0))))))
        return {name: np.concatenate([part[name].numpy() for part in parts])[: len(queries)] for name in parts[0]}

    def answer(self, rows: Any, search: str = constants.FULL, *, listed: bool = False) -> dict[str, Any]:
        """Returns output name (`OUTPUT_...` in `device_agent.shared.protocol.constants`) -> tensor.

        Args:
            rows: a (b, n_features) float32 tensor.
            search: one of `Search.ways`; rows that two searches mark as certain have the same answer in both.
            listed: whether to add the ranked rows (`CANDIDATES`) and a lower bound on the squared distance of all
                others (`BEYOND`), if the search chooses candidates, and the bound is proven (`_lists`).
        """
        query, blur = enter(self.space, rows)
        found = self.search.nearest(query, search)
        indices, base = found.indices, self._root(found.measure)
        distances = self._to_metric(found.measure, base)
        codes = tf.gather(self.search.take("classes", StoredRows.of(self.codes)), indices)
        shares = self._vote(codes, distances)
        label = tf.argmax(shares, axis=1, output_type=tf.int32)
        certain = self._certain(found, base, shares, blur)
        if self._thresholds is not None:
            label, clear = self._reject(label, base[:, -1], blur)
            certain = tf.logical_and(certain, clear)
        outputs = {
            constants.OUTPUT_LABEL: label,
            constants.OUTPUT_PROBABILITIES: shares,
            constants.OUTPUT_INDICES: indices,
            constants.OUTPUT_DISTANCES: distances,
            constants.OUTPUT_CERTAIN: certain,
        }
        if listed and found.candidates is not None and self._lists():
            beyond = found.beyond if blur is None else self._less_blur(found.beyond, base[:, -1], blur)
            outputs |= {constants.CANDIDATES: found.candidates, constants.BEYOND: beyond}
        return outputs

    def _less_blur(self, beyond: Any, kth: Any, blur: Any) -> Any:
        """Returns the (b,) lower bounds `beyond` on squared distances, lowered by the error of the steps (`blur`).

        A bound becomes 0, and then excludes no row, if the blur is too large against the k-th distance (`kth`).
        """
        rest = tf.nn.relu(tf.sqrt(tf.nn.relu(beyond)) - 2.0 * blur)
        return rest * rest * tf.cast(self._is_sharp(kth, blur), tf.float32) * np.float32(1.0 - 16.0 * EPSILON)

    def _is_sharp(self, kth: Any, blur: Any) -> Any:
        near = np.float32(self.margin) * tf.maximum(kth, np.float32(self.space.radius))
        return near > 2.0 * TYPICAL * blur  # the factor 2: both points of a distance are blurred

    def _lists(self) -> bool:
        """Whether the bound on the distances of all rows but the candidates is proven; not for manhattan with steps."""
        if not self._decides or (self.metric == "manhattan" and self.space.steps):
            return False
        sizes = [*np.abs(self.space.scale).tolist(), self.space.reach]
        return bool(_ORDINARY[0] <= min(sizes) and max(sizes) <= _ORDINARY[1])

    @property
    def _gap(self) -> float:
        """Relative difference of two distances that proves their order: half of that of their squares."""
        return self.search.gap / (1.0 if self.metric == "manhattan" else 2.0)

    def _root(self, measure: Any) -> Any:
        return measure if self.metric == "manhattan" else tf.sqrt(measure)

    def _to_metric(self, measure: Any, base: Any) -> Any:
        if self.metric == "sqeuclidean":
            return measure
        return measure * 0.5 if self.metric == "cosine" else base

    def _to_base(self, distances: NDArray[Any]) -> Float32:
        if self.metric == "sqeuclidean":
            distances = np.sqrt(distances)
        elif self.metric == "cosine":
            distances = np.sqrt(2.0 * distances)
        return np.asarray(distances, dtype=np.float32)

    def _vote(self, codes: Any, distances: Any) -> Any:
        ballots = tf.one_hot(codes, len(self.classes), dtype=tf.float32)
        if self.weights == "uniform":
            return _share(tf.reduce_sum(ballots, axis=1), self.k)
        nearest = distances[:, :1]
        # Relative to the nearest, so that nothing overflows; next to an exact match (weight 1), others have weight 0.
        weight = tf.where(distances == 0.0, tf.ones_like(distances), nearest / tf.maximum(distances, _TINY))
        shares = tf.reduce_sum(ballots * tf.expand_dims(weight, 2), axis=1)
        return shares / tf.reduce_sum(shares, axis=1, keepdims=True)  # not of `weight`: a unanimous vote is exactly 1

    def _reject(self, label: Any, kth: Any, blur: Any) -> tuple[Any, Any]:
        """Returns (b,) labels, UNKNOWN beyond the threshold, and (b,) bool: rounding cannot have changed that.

        `kth` has the (b,) distances to the k-th neighbour, `blur` the error of the steps in them (None: no steps).
        """
        threshold = tf.gather(tf.constant(self._thresholds), label)
        slack = self.search.rho * kth if blur is None else self.search.rho * kth + blur
        label = tf.where(kth > threshold, tf.fill(tf.shape(label), constants.UNKNOWN), label)
        return label, tf.abs(kth - threshold) > 2.0 * slack

    def _certain(self, found: Nearest, base: Any, shares: Any, blur: Any) -> Any:
        """Returns (b,) bool: rounding cannot have changed the query's neighbours or its label (docs/decisions/001).

        Conditions: the (k + 1)-th neighbour is clearly farther than the k-th (`_further`), no square has overflowed or
        underflowed, the error of the steps is small against the margin, and the vote is clear (`_certain_shares`).

        Args:
            found: the neighbours, with their squared distances (for Manhattan, distances).
            base: (b, k) distances to the neighbours in model space.
            shares: (b, n_classes) shares of the votes.
            blur: (b,) error that the steps add to an offset; None: no steps.
        """
        most, kth = self.search.measure_of(_SQUARED_AT_MOST), found.measure[:, -1]
        if not self._decides:
            return kth < 0.0
        if found.following is None:  # every training row is a neighbour
            certain = kth < most
        else:
            certain = tf.minimum(found.following, most) > self._further(kth, base, blur)
        if self.metric != "manhattan" and self.margin * self.space.radius < _SQUARED_SAFELY:
            certain = tf.logical_and(certain, kth > np.float32(_SQUARED_SAFELY**2))
        if self.metric == "manhattan" and self.margin * self.space.radius < self._lost:
            certain = tf.logical_and(certain, kth > np.float32(self._lost / self.margin))
        if found.exact is not None:
            certain = tf.logical_or(certain, tf.logical_and(found.exact, kth < np.float32(self.search.most_exact)))
        sizes = np.abs(self.space.scale[self.space.scale != 0.0])
        if sizes.max(initial=1.0) > _STEEPEST or sizes.min(initial=1.0) < _FLATTEST:
            certain = tf.logical_and(certain, kth < 0.0)
        if blur is not None:
            certain = tf.logical_and(certain, self._is_sharp(base[:, -1], blur))
        return (
            certain if self.weights == "uniform" else tf.logical_and(certain, self._certain_shares(base, shares, blur))
        )

    def _further(self, kth: Any, base: Any, blur: Any) -> Any:
        """Returns the (b,) measure that the (k + 1)-th row must exceed, so that no rounding can put it before the k-th.

        A measure is a squared distance (for Manhattan, a distance); `kth` is that of the k-th row. `base` (distances)
        and `blur` (error that the steps add to a row) are those of `_certain`. Without steps, the limit is above `kth`
        by `Search.gap`. With steps, it is the measure of the k-th distance, which is raised by `_gap`, by 8 u for
        the root and the square (u: unit roundoff of float32), and by 4 blur: each of the two distances may be off by 2.
        """
        if blur is not None:  # exact matches are all tied: the next row must be clear of them
            last = tf.maximum(base[:, -1], np.float32(self.space.zero))
            return self.search.measure_of(last * np.float32(1.0 + self._gap + 8.0 * EPSILON) + 4.0 * blur)
        further = kth * np.float32(1.0 + self.search.gap)
        return further + np.float32(self._lost) if self._mistaken else further

    def _certain_shares(self, base: Any, shares: Any, blur: Any) -> Any:
        # A weight, nearest / distance, is off by 2 doubt; a share, a quotient of sums of k weights, by 4 doubt, with
        # k / 2 u for each sum; the difference of the two greatest shares by 8 doubt.
        nearest = tf.maximum(base[:, 0], np.float32(max(self.space.zero, float(_TINY))))
        doubt = self.search.rho + np.float32(0.5 * self.k * EPSILON)
        doubt = doubt if blur is None else doubt + blur / nearest
        two = tf.math.top_k(shares, min(2, len(self.classes))).values
        certain = two[:, 0] - (two[:, 1] if len(self.classes) > 1 else -1.0) > 8.0 * doubt
        if blur is None and self.k > 1 and (self.metric != "manhattan" or self._mistaken):
            # Two neighbours at distance 0: either distance may have underflowed.
            safely = np.float32(self._lost / _DENIED if self.metric == "manhattan" else _SQUARED_SAFELY)
            clear = tf.logical_or(base[:, 0] > safely, base[:, 1] > safely / np.float32(_DENIED))
            certain = tf.logical_and(certain, clear)
        if blur is None:
            return certain
        # With blur, a distance of 0 does not prove an exact match.
        return tf.logical_and(certain, base[:, 0] * np.float32(PROBABILITY_TOLERANCE / 2) > TYPICAL * blur)


def _share(votes: Any, k: int) -> Any:
    """Returns votes / k, exactly 1 for k votes. Multiplies by 1 / k, as the converter does for a division."""
    each = np.float32(1.0 / k)
    if np.float32(k) * each == 1.0:
        return votes * each
    return tf.minimum(votes * np.nextafter(each, np.float32(1.0)), 1.0)  # k = 41: 0.99999994 without this

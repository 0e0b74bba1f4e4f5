"""TfKNN: the nearest-neighbour classifier as a TensorFlow module, the graph that becomes the `.tflite`.

Puts together the way into model space (`entrance`), the neighbours there (`search`) and their vote. The graph also says
of each row whether float32 rounding can have changed its neighbours or its label (`certain`), so that a runtime can
settle the rest. Usable on its own in TensorFlow. Fits nothing and reads no file.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

from device_agent.shared.golden.judge import PROBABILITY_TOLERANCE
from device_agent.shared.protocol import constants
from knnkit.data.dataset import dataset
from knnkit.errors import BuildError
from knnkit.model.graph.preprocess import TYPICAL, enter
from knnkit.model.graph.search import Nearest, Search
from knnkit.model.graph.underflow import lost, may_be_mistaken
from knnkit.model.reference.enrolment import Enrolment, enrol
from knnkit.model.reference.space import Float32

_TINY = np.float32(np.finfo(np.float32).tiny)
#: Distances whose squares float32 holds to the last bit; what lies under may be squared to nothing.
_SQUARED_SAFELY = 1e-15
#: Distances whose squares do not overflow; some kernels make infinity of what does, some the greatest number there is.
_SQUARED_AT_MOST = np.float32(1e18)
#: Scales from which on the differences that count may be less than the least numbers, of which processors make nothing.
_STEEPEST = 1e30
#: Share of the weight that a neighbour beside an exact match may be denied.
_DENIED = 1e-6


class TfKNN(tf.Module):  # type: ignore[misc]
    """Exact k nearest neighbours of raw rows, and their vote.

    Args:
        rows: (n_train, n_features) the enrolled training matrix, raw.
        k: neighbours, at most n_train.
        labels: (n_train,) of the rows; without them there are neighbours, and no classes.
        metric: euclidean, sqeuclidean, manhattan or cosine.
        weights: uniform or distance.
        margin: relative error of a distance that is let pass; a row beyond it is not `certain`.

    Raises:
        BuildError: k is not between 1 and n_train.
        DataError: the rows are not finite numbers.
    """

    def __init__(
        self,
        rows: ArrayLike,
        k: int = 3,
        *,
        labels: ArrayLike | None = None,
        metric: constants.Metric = "euclidean",
        weights: constants.Weights = "uniform",
        margin: float = 1e-5,
    ) -> None:
        super().__init__(name="tfknn")
        training = dataset(rows, np.zeros(len(np.asarray(rows)), np.int64) if labels is None else labels)
        self._set_up(enrol(training, [], metric), k, weights, margin, None)

    @classmethod
    def of(
        cls,
        enrolment: Enrolment,
        k: int,
        *,
        weights: constants.Weights = "uniform",
        margin: float = 1e-5,
        thresholds: tuple[float, ...] | None = None,
    ) -> TfKNN:
        """Returns the module over rows that are enrolled already.

        `thresholds` has one k-th distance a class, in the model's metric, beyond which a row is unknown.
        """
        model = cls.__new__(cls)
        tf.Module.__init__(model, name="tfknn")
        model._set_up(enrolment, k, weights, margin, thresholds)
        return model

    def _set_up(
        self,
        enrolment: Enrolment,
        k: int,
        weights: constants.Weights,
        margin: float,
        thresholds: tuple[float, ...] | None,
    ) -> None:
        count = len(enrolment)
        if not 1 <= k <= count:
            raise BuildError(f"k is {k}, but there are {count} training rows", hint=f"k: {count} or less")
        self.space, self.enrolled, self.codes = enrolment.space, enrolment.enrolled, enrolment.codes
        self.classes, self.metric = enrolment.classes, enrolment.space.metric
        self.k, self.n_features, self.weights, self.margin = k, len(enrolment.feature_names), weights, margin
        self._thresholds = None if thresholds is None else self._to_base(np.asarray(thresholds))
        self.search = Search(self.space, self.enrolled, k)
        self._lost, self._mistaken = lost(self.space), may_be_mistaken(self.space, self.enrolled)

    def neighbors(self, queries: ArrayLike) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Returns the (n, k) int32 indices and (n, k) float32 distances of the nearest training rows of raw `queries`.

        They stand in order of (distance, training index).
        """
        found = self._graph(tf.constant(np.asarray(queries, dtype=np.float32)))
        return found[constants.OUTPUT_INDICES].numpy(), found[constants.OUTPUT_DISTANCES].numpy()

    def predict(self, queries: ArrayLike) -> NDArray[Any]:
        """Returns the (n,) labels of raw `queries`."""
        found = self._graph(tf.constant(np.asarray(queries, dtype=np.float32)))
        names: NDArray[Any] = np.array([*self.classes, constants.UNKNOWN_LABEL], dtype=object)
        labels: NDArray[Any] = names[found[constants.OUTPUT_LABEL].numpy()]
        return labels

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def _graph(self, rows: Any) -> dict[str, Any]:
        return self.answer(rows)

    def answer(self, rows: Any, search: str = constants.FULL) -> dict[str, Any]:
        """Returns the graph's outputs, by the names in `device_agent.shared.protocol.constants`.

        Args:
            rows: a (b, n_features) float32 tensor.
            search: one of `contract.SEARCHES`, that the model has; the answers are the same where they are certain.
        """
        query, blur = enter(self.space, rows)
        found = self.search.nearest(query, search)
        indices, base = found.indices, self._root(found.measure)
        distances = self._to_metric(found.measure, base)
        codes = tf.gather(tf.constant(self.codes), indices)
        shares = self._vote(codes, distances)
        label = tf.argmax(shares, axis=1, output_type=tf.int32)
        certain = self._certain(found, base, shares, blur)
        if self._thresholds is not None:
            label, clear = self._reject(label, base[:, -1], blur)
            certain = tf.logical_and(certain, clear)
        return {
            constants.OUTPUT_LABEL: label,
            constants.OUTPUT_PROBABILITIES: shares,
            constants.OUTPUT_INDICES: indices,
            constants.OUTPUT_DISTANCES: distances,
            constants.OUTPUT_CERTAIN: certain,
        }

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
            return tf.reduce_sum(ballots, axis=1) * np.float32(1.0 / self.k)
        nearest = distances[:, :1]
        # Relative to the nearest, so that nothing overflows; an exact match has weight 1, and all others 0.
        weight = tf.where(distances == 0.0, tf.ones_like(distances), nearest / tf.maximum(distances, _TINY))
        shares = tf.reduce_sum(ballots * tf.expand_dims(weight, 2), axis=1)
        return shares / tf.reduce_sum(weight, axis=1, keepdims=True)

    def _reject(self, label: Any, kth: Any, blur: Any) -> tuple[Any, Any]:
        """Returns the labels, UNKNOWN for far rows, and whether each is clear of its threshold."""
        threshold = tf.gather(tf.constant(self._thresholds), label)
        slack = self.search.rho * kth if blur is None else self.search.rho * kth + blur
        label = tf.where(kth > threshold, tf.fill(tf.shape(label), constants.UNKNOWN), label)
        return label, tf.abs(kth - threshold) > 2.0 * slack

    def _certain(self, found: Nearest, base: Any, shares: Any, blur: Any) -> Any:
        """Returns the (b,) verdict on each row: rounding can have changed neither its neighbours nor its shares."""
        most, kth = self.search.measure_of(_SQUARED_AT_MOST), found.measure[:, -1]
        if found.following is None:  # every training row is a neighbour
            certain = kth < most
        else:
            certain = tf.minimum(found.following, most) > self._further(kth, base, blur)
        if self.space.scale.max() > _STEEPEST:
            certain = tf.logical_and(certain, kth < 0.0)
        if self.metric != "manhattan" and self.margin * self.space.radius < _SQUARED_SAFELY:
            certain = tf.logical_and(certain, kth > np.float32(_SQUARED_SAFELY**2))
        if self.metric == "manhattan" and self.margin * self.space.radius < self._lost:
            certain = tf.logical_and(certain, kth > np.float32(self._lost / self.margin))
        if blur is not None:
            near = np.float32(self.margin) * tf.maximum(base[:, -1], np.float32(self.space.radius))
            certain = tf.logical_and(certain, near > 2.0 * TYPICAL * blur)
        return (
            certain if self.weights == "uniform" else tf.logical_and(certain, self._certain_shares(base, shares, blur))
        )

    def _further(self, kth: Any, base: Any, blur: Any) -> Any:
        """Returns the measure that the row after the k-th must be beyond, to come after it for certain."""
        growth = 1.0 + 4.0 * self.search.rho
        if blur is not None:  # all that count as exact matches are tied: the next must be clear of them
            last = tf.maximum(base[:, -1], np.float32(self.space.zero))
            return self.search.measure_of(last * growth + 4.0 * blur)
        further = kth * np.float32(self.search.measure_of(growth))
        return further + np.float32(self._lost) if self._mistaken else further

    def _certain_shares(self, base: Any, shares: Any, blur: Any) -> Any:
        nearest = tf.maximum(base[:, 0], np.float32(max(self.space.zero, float(_TINY))))
        doubt = self.search.rho if blur is None else self.search.rho + blur / nearest
        two = tf.math.top_k(shares, min(2, len(self.classes))).values
        certain = two[:, 0] - (two[:, 1] if len(self.classes) > 1 else -1.0) > 8.0 * doubt
        if blur is None and self.k > 1 and (self.metric != "manhattan" or self._mistaken):
            # Of two neighbours at no distance, either may be at one that came to nothing.
            safely = np.float32(self._lost / _DENIED if self.metric == "manhattan" else _SQUARED_SAFELY)
            clear = tf.logical_or(base[:, 0] > safely, base[:, 1] > safely / np.float32(_DENIED))
            certain = tf.logical_and(certain, clear)
        if blur is None:
            return certain
        # An exact match that is blurred is none.
        return tf.logical_and(certain, base[:, 0] * np.float32(PROBABILITY_TOLERANCE / 2) > TYPICAL * blur)

    def export(self, path: str | os.PathLike[str]) -> None:
        """Writes the module as a bare `.tflite` with its signatures, and without knnkit's metadata.

        `knnkit.model.build.build_model` makes the complete file that a device runs.
        """
        from pathlib import Path

        from knnkit.model.tflite import flatbuffer
        from knnkit.model.tflite.convert import convert

        Path(path).write_bytes(flatbuffer.lay_out(convert(self), []).data)

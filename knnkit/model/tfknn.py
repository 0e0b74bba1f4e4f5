"""TfKNN: the nearest-neighbour classifier as a TensorFlow module, the graph that becomes the `.tflite`.

Candidates come from one matrix product, `top_k(x·Tᵀ - ‖t‖²/2)`; their exact differences rank them again. The graph also
says of each row whether float32 rounding can have changed its neighbours or its label (`certain`), so that a runtime
can settle the rest. Usable on its own in TensorFlow. Fits nothing and reads no file.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

from device_agent import contract
from device_agent.judge import PROBABILITY_TOLERANCE
from knnkit.errors import BuildError
from knnkit.model.dataset import dataset
from knnkit.model.enrol import Enrolment, enrol
from knnkit.model.entrance import CONFIDENCE, TYPICAL, enter
from knnkit.model.layout import MOST_BLOCKS, Layout, block_width
from knnkit.model.space import EPSILON, Float32
from knnkit.model.topk import greatest

#: Candidates beyond k that the matrix product hands to the exact ranking. More would not make more rows certain (it is
#: ties at the k-th place that are not), and TOPK_V2 keeps a heap of them: a longer one takes longer.
OVER_FETCH = 3
_TINY = np.float32(np.finfo(np.float32).tiny)
#: Coordinates up to which the differences themselves, column by column, are taken instead of a matrix product: they
#: need no ranking again, and with one coordinate the converter would fold the centre into the product's bias, where raw
#: values of 10,000 cancel.
FEW_COLUMNS = 3
#: Distances whose squares float32 holds to the last bit; what lies under may be squared to nothing.
_SQUARED_SAFELY = 1e-15
#: Distances whose squares do not overflow; some kernels make infinity of what does, some the greatest number there is.
_SQUARED_AT_MOST = np.float32(1e18)
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
        metric: contract.Metric = "euclidean",
        weights: contract.Weights = "uniform",
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
        weights: contract.Weights = "uniform",
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
        weights: contract.Weights,
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
        self._candidates = min(count, k + OVER_FETCH)
        self.by_columns = self.enrolled.shape[1] <= FEW_COLUMNS
        self._direct = self.by_columns or self._candidates == count or self.metric == "manhattan"
        self.layout = Layout(count, 0) if self._direct else Layout.of(self.enrolled)
        table = self.layout.table(self.enrolled)
        self._table = tf.Variable(table, trainable=False, name="training_rows")
        self._blocks = [
            tf.Variable(table[start : start + rows], trainable=False, name=f"block_{start}")
            for start, rows in (self.layout.blocks(count) if self.layout.gap else [])
        ]

    def neighbors(self, queries: ArrayLike) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Returns the (n, k) int32 indices and (n, k) float32 distances of the nearest training rows of raw `queries`.

        They stand in order of (distance, training index).
        """
        found = self._graph(tf.constant(np.asarray(queries, dtype=np.float32)))
        return found[contract.OUTPUT_INDICES].numpy(), found[contract.OUTPUT_DISTANCES].numpy()

    def predict(self, queries: ArrayLike) -> NDArray[Any]:
        """Returns the (n,) labels of raw `queries`."""
        found = self._graph(tf.constant(np.asarray(queries, dtype=np.float32)))
        names: NDArray[Any] = np.array([*self.classes, contract.UNKNOWN_LABEL], dtype=object)
        labels: NDArray[Any] = names[found[contract.OUTPUT_LABEL].numpy()]
        return labels

    @tf.function  # type: ignore[untyped-decorator]
    def _graph(self, rows: Any) -> dict[str, Any]:
        return self.answer(rows)

    def answer(self, rows: Any) -> dict[str, Any]:
        """Returns the graph's outputs for a (b, n_features) float32 tensor, by the names in `device_agent.contract`."""
        query, blur = enter(self.space, rows)
        weighted = self._weigh(query)
        if self.by_columns:
            ranked, bound = self._rank_columns(query), None
        else:
            ranked, bound = (self._rank_all(query), None) if self._direct else self._rank_candidates(query, weighted)
        base, indices, following = ranked
        if bound is not None:
            following = bound if following is None else tf.minimum(following, bound)
        distances = self._to_metric(base)
        codes = tf.gather(tf.constant(self.codes), indices)
        shares = self._vote(codes, distances)
        label = tf.argmax(shares, axis=1, output_type=tf.int32)
        certain = self._certain(base, following, shares, blur)
        if self._thresholds is not None:
            label, clear = self._reject(label, base[:, -1], blur)
            certain = tf.logical_and(certain, clear)
        return {
            contract.OUTPUT_LABEL: label,
            contract.OUTPUT_PROBABILITIES: shares,
            contract.OUTPUT_INDICES: indices,
            contract.OUTPUT_DISTANCES: distances,
            contract.OUTPUT_CERTAIN: certain,
        }

    @property
    def _rho(self) -> np.float32:
        """Relative error of a squared distance or a score, bounded as in `knnkit.model.entrance`."""
        return np.float32((CONFIDENCE * np.sqrt(len(self.space.centre)) + 8.0) * EPSILON)

    @property
    def _blocks_for_one(self) -> bool:
        """Whether blocks are worth it for one row, which reads every weight once, blocks or not."""
        return len(self.enrolled) >= 4096 and len(self._blocks) <= MOST_BLOCKS

    def _weigh(self, offsets: Any) -> Any:
        return offsets if (self.space.scale == 1.0).all() else offsets * self.space.scale.astype(np.float32)

    def _rank_all(self, query: Any) -> Any:
        differences = self._weigh(tf.expand_dims(query, 1) - tf.expand_dims(self._table, 0))
        return self._nearest(differences, None)

    def _rank_columns(self, query: Any) -> Any:
        """The differences of one coordinate after the other: (b, n) numbers each, which vector units like."""
        count = len(self.enrolled)
        width = block_width(count, 1024, 8) if query.shape[0] == 1 else block_width(count, 160)
        parts = [
            -self._measure_columns(query, self.enrolled[start : start + width]) for start in range(0, count, width)
        ]
        negative, indices = greatest(parts, min(self.k + 1, count), stable=True)
        return self._ranked(-negative, indices)

    def _measure_columns(self, query: Any, rows: Float32) -> Any:
        total = None
        for column, scale in enumerate(self.space.scale.astype(np.float32)):
            differences = query[:, column : column + 1] - np.ascontiguousarray(rows[:, column])[np.newaxis]
            if scale != 1.0:
                differences = differences * scale
            part = tf.abs(differences) if self.metric == "manhattan" else differences * differences
            total = part if total is None else total + part
        return self._level(total)

    def _rank_candidates(self, query: Any, weighted: Any) -> Any:
        factors = self._weigh(weighted)
        if factors is not weighted:
            # Changes nothing; without it the converter multiplies the scale into the weights, and stores them again.
            factors = tf.minimum(factors, np.float32(np.finfo(np.float32).max))
        best, places = self._best(factors)
        # In order of the training index, so that an exact tie goes to the lower one.
        places = -tf.math.top_k(-places, self._candidates).values
        differences = self._weigh(tf.expand_dims(query, 1) - tf.gather(self._table, places))
        squared = tf.reduce_sum(weighted * weighted, axis=1)
        # No row outside the candidates has a score over the last of theirs, but for rounding.
        reach = tf.sqrt(squared) + np.float32(self.space.reach)
        bound = squared - 2.0 * best[:, -1] - self._rho * (reach * reach)
        return self._nearest(differences, places), tf.sqrt(tf.maximum(bound, 0.0))

    def _best(self, factors: Any) -> Any:
        """Returns the (b, c) best scores and their places in the table."""
        squares = (self.enrolled.astype(np.float64) * self.space.scale) ** 2
        bias = (-0.5 * squares.sum(axis=1)).astype(np.float32)
        if not self._blocks or (factors.shape[0] == 1 and not self._blocks_for_one):
            bias = self.layout.column(bias, float(np.finfo(np.float32).min))
            return tf.math.top_k(_scores(factors, self._table, bias), self._candidates)
        parts = [
            _scores(factors, block, bias[number * self.layout.block :][: block.shape[0]])
            for number, block in enumerate(self._blocks)
        ]
        best, indices = greatest(parts, self._candidates)
        return best, self.layout.place(indices)

    def _nearest(self, differences: Any, candidates: Any) -> Any:
        """Returns base distances (b, k), training indices (b, k), and the (b,) distance that follows, or None."""
        manhattan = self.metric == "manhattan"
        measure = tf.reduce_sum(tf.abs(differences) if manhattan else differences * differences, axis=2)
        among = len(self.enrolled) if candidates is None else self._candidates
        negative, places = tf.math.top_k(-self._level(measure), min(self.k + 1, among))
        base, indices, following = self._ranked(-negative, places)
        if candidates is not None:
            indices = self.layout.index(tf.gather(candidates, indices, batch_dims=1))
            if self.layout.gap:  # where all scores have overflowed, the gap before the first row is no worse
                indices = tf.maximum(indices, 0)
        return base, indices, following

    def _level(self, measure: Any) -> Any:
        """Counts what lies within `space.zero` as an exact match."""
        if self.space.zero <= 0.0:
            return measure
        limit = self.space.zero if self.metric == "manhattan" else self.space.zero**2
        return measure * tf.cast(measure > np.float32(limit), tf.float32)

    def _ranked(self, measure: Any, places: Any) -> Any:
        base = measure if self.metric == "manhattan" else tf.sqrt(measure)
        return base[:, : self.k], places[:, : self.k], base[:, self.k] if base.shape[1] > self.k else None

    def _to_metric(self, base: Any) -> Any:
        if self.metric == "sqeuclidean":
            return base * base
        return base * base * 0.5 if self.metric == "cosine" else base

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
        slack = self._rho * kth if blur is None else self._rho * kth + blur
        label = tf.where(kth > threshold, tf.fill(tf.shape(label), contract.UNKNOWN), label)
        return label, tf.abs(kth - threshold) > 2.0 * slack

    def _certain(self, base: Any, following: Any, shares: Any, blur: Any) -> Any:
        """Returns the (b,) verdict on each row: rounding can have changed neither its neighbours nor its shares."""
        kth = base[:, -1]
        if following is None:  # every training row is a neighbour
            certain = kth < _SQUARED_AT_MOST
        else:
            following = tf.minimum(following, _SQUARED_AT_MOST)
            # All that count as exact matches are tied: the next must be clear of them.
            last = tf.maximum(kth, np.float32(self.space.zero)) if self.space.zero > 0.0 else kth
            further = last * np.float32(1.0 + 4.0 * self._rho)
            certain = following > (further if blur is None else further + 4.0 * blur)
        if self.metric != "manhattan" and self.margin * self.space.radius < _SQUARED_SAFELY:
            certain = tf.logical_and(certain, kth > np.float32(_SQUARED_SAFELY))
        if blur is not None:
            near = np.float32(self.margin) * tf.maximum(kth, np.float32(self.space.radius))
            certain = tf.logical_and(certain, near > 2.0 * TYPICAL * blur)
        return (
            certain if self.weights == "uniform" else tf.logical_and(certain, self._certain_shares(base, shares, blur))
        )

    def _certain_shares(self, base: Any, shares: Any, blur: Any) -> Any:
        nearest = tf.maximum(base[:, 0], np.float32(max(self.space.zero, float(_TINY))))
        doubt = self._rho if blur is None else self._rho + blur / nearest
        two = tf.math.top_k(shares, min(2, len(self.classes))).values
        certain = two[:, 0] - (two[:, 1] if len(self.classes) > 1 else -1.0) > 8.0 * doubt
        if blur is None and self.metric != "manhattan" and self.k > 1:
            # Of two neighbours at no distance, either may be at one that was squared to nothing.
            clear = tf.logical_or(base[:, 0] > _SQUARED_SAFELY, base[:, 1] > _SQUARED_SAFELY / _DENIED)
            certain = tf.logical_and(certain, clear)
        if blur is None:
            return certain
        # An exact match that is blurred is none.
        return tf.logical_and(certain, base[:, 0] * np.float32(PROBABILITY_TOLERANCE / 2) > TYPICAL * blur)

    def export(self, path: str | os.PathLike[str]) -> None:
        """Writes the module as a bare `.tflite` with both signatures, and without knnkit's metadata.

        `knnkit.model.build.build_model` makes the complete file that a device runs.
        """
        from pathlib import Path

        from knnkit.model.convert import convert

        Path(path).write_bytes(convert(self))


def _scores(factors: Any, rows: Any, bias: Float32) -> Any:
    # Written so that the converter makes one FULLY_CONNECTED of it, bias and all.
    return tf.nn.bias_add(tf.matmul(factors, rows, transpose_b=True), tf.constant(bias))

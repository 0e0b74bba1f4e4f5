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
from knnkit.model.layout import Layout
from knnkit.model.space import EPSILON, Float32

#: Candidates beyond k that the matrix product hands to the exact ranking. More would not make more rows certain (it is
#: ties at the k-th place that are not), and TOPK_V2 keeps a heap of them: with 13 it takes up to twice as long.
OVER_FETCH = 5
_TINY = np.float32(np.finfo(np.float32).tiny)
#: Distances whose squares float32 holds to the last bit; what lies under may be squared to nothing.
_SQUARED_SAFELY = 1e-15
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
        # With one coordinate a product is no faster than the differences themselves, and the converter would fold the
        # centre into its bias: raw values of 10,000 then cancel in float32.
        one = self.enrolled.shape[1] == 1
        self._direct = self._candidates == count or self.metric == "manhattan" or one
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

    def _weigh(self, offsets: Any) -> Any:
        return offsets if (self.space.scale == 1.0).all() else offsets * self.space.scale.astype(np.float32)

    def _rank_all(self, query: Any) -> Any:
        differences = self._weigh(tf.expand_dims(query, 1) - tf.expand_dims(self._table, 0))
        return self._nearest(differences, None)

    def _rank_candidates(self, query: Any, weighted: Any) -> Any:
        best, places = self._best(self._weigh(weighted))
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
        if not self._blocks or factors.shape[0] == 1:  # one row reads every weight once, blocks or not
            bias = self.layout.column(bias, float(np.finfo(np.float32).min))
            return tf.math.top_k(_scores(factors, self._table, bias), self._candidates)
        parts = [
            _scores(factors, block, bias[number * self.layout.block :][: block.shape[0]])
            for number, block in enumerate(self._blocks)
        ]
        best, indices = self._best_of_blocks(parts)
        return best, self.layout.place(indices)

    def _best_of_blocks(self, parts: list[Any]) -> tuple[Any, Any]:
        """Returns the (b, c) best scores and their training rows, given those of each block.

        TOPK_V2 looks at one number after the other; MAXIMUM at many at once. So the best places within a block are
        found first: those where the greatest score over all blocks is greatest. The c best scores stand at the c best
        places, since each of these has one score at least as good as any elsewhere.
        """
        width, count = self.layout.block, self._candidates
        missing = width - parts[-1].shape[1]
        if width < 4 * count:
            return tuple(tf.math.top_k(tf.concat(parts, axis=1), count))
        if missing:
            parts = [*parts[:-1], tf.pad(parts[-1], [[0, 0], [0, missing]], constant_values=np.finfo(np.float32).min)]
        greatest = parts
        while len(greatest) > 1:
            pairs = [greatest[start : start + 2] for start in range(0, len(greatest), 2)]
            greatest = [tf.maximum(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
        places = tf.math.top_k(greatest[0], count).indices
        scores = tf.concat([tf.gather(part, places, batch_dims=1) for part in parts], axis=1)
        starts = (width * np.arange(len(parts), dtype=np.int32)).reshape(1, -1, 1)
        rows = tf.reshape(tf.expand_dims(places, 1) + starts, scores.shape)
        best, chosen = tf.math.top_k(scores, count)
        return best, tf.gather(rows, chosen, batch_dims=1)

    def _nearest(self, differences: Any, candidates: Any) -> Any:
        """Returns base distances (b, k), training indices (b, k), and the (b,) distance that follows, or None."""
        if self.metric == "manhattan":
            measure = tf.reduce_sum(tf.abs(differences), axis=2)
        else:
            measure = tf.reduce_sum(differences * differences, axis=2)
        if self.space.zero > 0.0:
            limit = self.space.zero if self.metric == "manhattan" else self.space.zero**2
            measure = measure * tf.cast(measure > np.float32(limit), tf.float32)
        among = len(self.enrolled) if candidates is None else self._candidates
        taken = min(self.k + 1, among)
        negative, places = tf.math.top_k(-measure, taken)
        measure = -negative
        base = measure if self.metric == "manhattan" else tf.sqrt(measure)
        indices = places[:, : self.k]
        if candidates is not None:
            indices = self.layout.index(tf.gather(candidates, indices, batch_dims=1))
        return base[:, : self.k], indices, base[:, self.k] if taken > self.k else None

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
            certain = kth < np.float32(np.inf)
        else:
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

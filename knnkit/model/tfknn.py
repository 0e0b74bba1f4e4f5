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
from knnkit.errors import BuildError
from knnkit.model.space import EPSILON, Float32, Space, make_space

#: Candidates beyond k that the matrix product hands to the exact ranking.
OVER_FETCH = 13
_TINY = np.float32(np.finfo(np.float32).tiny)


class TfKNN(tf.Module):  # type: ignore[misc]
    """Exact k nearest neighbours of raw rows, and their vote.

    Args:
        rows: (n_train, n_features) the enrolled training matrix, raw.
        k: neighbours, at most n_train.
        labels: (n_train,) of the rows; without them there are neighbours, and no classes.
        metric: euclidean, sqeuclidean, manhattan or cosine.
        weights: uniform or distance.
        space: the map from raw rows to model space; fitted to `rows` without scaling if left out.
        thresholds: (n_classes,) k-th distance beyond which a row is unknown, in the model's metric.

    Raises:
        BuildError: k is not between 1 and n_train.
    """

    def __init__(
        self,
        rows: ArrayLike,
        k: int = 3,
        *,
        labels: ArrayLike | None = None,
        metric: contract.Metric = "euclidean",
        weights: contract.Weights = "uniform",
        space: tuple[Space, Float32] | None = None,
        thresholds: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__(name="tfknn")
        matrix = np.asarray(rows, dtype=np.float32)
        if not 1 <= k <= len(matrix):
            raise BuildError(f"k is {k}, but there are {len(matrix)} training rows", hint=f"k: {len(matrix)} or less")
        self.space, self.enrolled = space if space is not None else make_space(matrix, [], metric)
        self.k, self.n_features, self.weights = k, matrix.shape[1], weights
        self.metric = self.space.metric
        found, codes = np.unique([0] * len(matrix) if labels is None else np.asarray(labels), return_inverse=True)
        self.classes: tuple[Any, ...] = tuple(found.tolist())
        self.codes: NDArray[np.int32] = codes.reshape(-1).astype(np.int32)
        self._thresholds = None if thresholds is None else self._to_base(np.asarray(thresholds))
        self._candidates = min(len(matrix), max(k + OVER_FETCH, 16))
        self._direct = self._candidates == len(matrix) or self.metric == "manhattan"
        self._table = tf.Variable(self.enrolled, trainable=False, name="training_rows")

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
        query = self._enter(rows)
        weighted = self._weigh(query)
        ranked, bound = (self._rank_all(query), None) if self._direct else self._rank_candidates(query, weighted)
        base, indices, following = ranked
        if bound is not None:
            following = bound if following is None else tf.minimum(following, bound)
        distances = self._to_metric(base)
        codes = tf.gather(tf.constant(self.codes), indices)
        shares = self._vote(codes, distances)
        label = tf.argmax(shares, axis=1, output_type=tf.int32)
        certain = self._certain(base, following, shares)
        if self._thresholds is not None:
            threshold = tf.gather(tf.constant(self._thresholds), label)
            kth = base[:, -1]
            far = kth > threshold
            slack = 2 * (self._rho * kth + np.float32(self.space.rounding))
            certain = tf.logical_and(certain, tf.abs(kth - threshold) > slack)
            label = tf.where(far, tf.fill(tf.shape(label), contract.UNKNOWN), label)
        return {
            contract.OUTPUT_LABEL: label,
            contract.OUTPUT_PROBABILITIES: shares,
            contract.OUTPUT_INDICES: indices,
            contract.OUTPUT_DISTANCES: distances,
            contract.OUTPUT_CERTAIN: certain,
        }

    @property
    def _rho(self) -> np.float32:
        # Higham and Mary (2019): the error of a sum of n products stays under λ·√n·u but for one case in
        # exp(λ²/2)/2; λ = 6.
        return np.float32((6.0 * np.sqrt(len(self.space.centre)) + 8.0) * EPSILON)

    def _enter(self, rows: Any) -> Any:
        z = rows
        for step in self.space.steps:
            if step.kind == "affine":
                high = step.a.astype(np.float32)
                low = (step.a - high).astype(np.float32)
                z = ((z - high) - low) * step.b.astype(np.float32)
            elif step.kind == "linear":
                high = step.b.astype(np.float32)
                low = (step.b - high).astype(np.float32)
                z = tf.matmul((z - high) - low, tf.constant(step.a.astype(np.float32)))
            else:
                z = self._normalize(z, step)
        return z - self.space.centre

    @staticmethod
    def _normalize(z: Any, step: Any) -> Any:
        # Divided by the greatest value first: squares of float32 overflow and underflow.
        greatest = tf.reduce_max(tf.abs(z), axis=1, keepdims=True)
        zero = tf.cast(greatest == 0.0, tf.float32)
        z = z / (greatest + zero)
        order = 2.0 if step.kind == "cosine" else float(step.a)
        if order == 1.0:
            z = z / (tf.reduce_sum(tf.abs(z), axis=1, keepdims=True) + zero)
        elif order == 2.0:
            z = z / (tf.sqrt(tf.reduce_sum(z * z, axis=1, keepdims=True)) + zero)
        return tf.concat([z, zero, tf.zeros_like(zero)], axis=1) if step.kind == "cosine" else z

    def _weigh(self, offsets: Any) -> Any:
        return offsets if (self.space.scale == 1.0).all() else offsets * self.space.scale.astype(np.float32)

    def _rank_all(self, query: Any) -> Any:
        differences = self._weigh(tf.expand_dims(query, 1) - tf.expand_dims(self._table, 0))
        return self._nearest(differences, None)

    def _rank_candidates(self, query: Any, weighted: Any) -> Any:
        lengths = (self.enrolled.astype(np.float64) * self.space.scale) ** 2
        bias = (-0.5 * lengths.sum(axis=1)).astype(np.float32)
        scores = tf.nn.bias_add(tf.matmul(self._weigh(weighted), self._table, transpose_b=True), tf.constant(bias))
        best, candidates = tf.math.top_k(scores, self._candidates)
        # In order of the training index, so that an exact tie goes to the lower one.
        candidates = -tf.math.top_k(-candidates, self._candidates).values
        differences = self._weigh(tf.expand_dims(query, 1) - tf.gather(self._table, candidates))
        squared = tf.reduce_sum(weighted * weighted, axis=1)
        # No row outside the candidates has a score over the last of theirs, but for rounding.
        reach = tf.sqrt(squared) + np.float32(self.space.reach)
        bound = squared - 2.0 * best[:, -1] - self._rho * (reach * reach)
        return self._nearest(differences, candidates), tf.sqrt(tf.maximum(bound, 0.0))

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
            indices = tf.gather(candidates, indices, batch_dims=1)
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

    def _certain(self, base: Any, following: Any, shares: Any) -> Any:
        kth, rounding = base[:, -1], np.float32(self.space.rounding)
        if following is None:  # every training row is a neighbour
            certain = kth >= 0.0
        else:
            certain = following > kth * np.float32(1.0 + 4.0 * self._rho) + 4.0 * rounding
        if self.weights == "distance":
            doubt = self._rho + rounding / tf.maximum(base[:, 0], np.float32(max(self.space.zero, float(_TINY))))
            if len(self.classes) > 1:
                two = tf.math.top_k(shares, 2).values
                certain = tf.logical_and(certain, two[:, 0] - two[:, 1] > 8.0 * doubt)
            if rounding > 0.0:
                certain = tf.logical_and(certain, doubt < np.float32(1e-5) + self._rho)
        return certain

    def export(self, path: str | os.PathLike[str]) -> None:
        """Writes the module as a bare `.tflite` with both signatures, and without knnkit's metadata.

        `knnkit.model.build.build_model` makes the complete file that a device runs.
        """
        from pathlib import Path

        from knnkit.model.convert import convert

        Path(path).write_bytes(convert(self))

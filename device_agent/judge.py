"""The golden judge: does this runtime answer as the float64 reference does?

Numpy alone, no I/O, no runtime: bytes and arrays in, a verdict out. The device runs it at every activation, the host
when it builds; it is the same code, so both mean the same by *identical*, *equivalent* and *different*.

A golden row carries the reference's neighbours beyond the k-th as far as the row's tolerance reaches, their classes
and float64 distances. That is all it takes to tell a swap of near-tied neighbours from a wrong answer without the
training matrix:

- *identical*: the same neighbours in the same order, and the same label;
- *equivalent*: each place is held by a row whose reference distance is within the tolerance of that place's, and the
  label is the same;
- *different*: anything else; also a distance or a probability that departs from what the reference says of the very
  neighbours that were answered.

The tolerance of a row is `margin * max(d_k, R)`: d_k is its k-th reference distance, R the RMS distance of the
training rows from their mean, both in model space (Euclidean or Manhattan; sqeuclidean and cosine are compared as the
Euclidean distances that they are functions of).
"""

from __future__ import annotations

import io
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from device_agent.arrays import read_arrays
from device_agent.contract import (
    MAX_CONFUSED,
    MAX_DIFFERENCES,
    UNKNOWN,
    UNKNOWN_LABEL,
    Gates,
    KnnInfo,
    Metric,
    RowDifference,
)
from device_agent.errors import ModelUnusable
from device_agent.record import record

#: How far a probability may be from the reference's.
PROBABILITY_TOLERANCE = 1e-5

_ARRAYS = {
    "rows": (np.dtype(np.float32), 2),
    "truth": (np.dtype(np.int32), 1),
    "label": (np.dtype(np.int32), 1),
    "indices": (np.dtype(np.int32), 2),
    "distances": (np.dtype(np.float64), 2),
    "classes": (np.dtype(np.int32), 2),
    "tolerance": (np.dtype(np.float64), 1),
}


@record
class Golden:
    """golden.npz: n query rows with the reference's answers, and the truth where it is known.

    Attributes:
        metric: of the model, in which `distances` are given.
        rows: (n, n_features) float32, raw.
        truth: (n,) int32, true class, -1 where it is not known.
        label: (n,) int32, the reference's class index or UNKNOWN.
        indices: (n, e) int32 with e >= k: the reference's neighbours by (distance, index), padded with -1.
        distances: (n, e) float64, padded with infinity.
        classes: (n, e) int32, the neighbours' classes, padded with -1.
        tolerance: (n,) float64, as this module's docstring says.
    """

    metric: Metric
    rows: NDArray[np.float32]
    truth: NDArray[np.int32]
    label: NDArray[np.int32]
    indices: NDArray[np.int32]
    distances: NDArray[np.float64]
    classes: NDArray[np.int32]
    tolerance: NDArray[np.float64]

    def to_bytes(self) -> bytes:
        """Returns golden.npz: the same arrays always give the same bytes."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, metric=np.array(self.metric), **{name: getattr(self, name) for name in _ARRAYS})
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Golden:
        """Reads golden.npz strictly: names, types, shapes and ranges; never unpickles.

        Raises:
            ModelUnusable: it is not a golden set.
        """
        try:
            arrays: dict[str, Any] = read_arrays(data)
            if set(arrays) != {"metric", *_ARRAYS}:
                raise ValueError(f"it holds {', '.join(sorted(arrays))}")
            golden = cls(metric=_metric(arrays.pop("metric")), **arrays)
            golden._check()
        except ValueError as error:
            raise ModelUnusable(f"golden.npz is not a golden set: {error}") from None
        return golden

    def _check(self) -> None:
        for name, (dtype, ndim) in _ARRAYS.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.ndim != ndim or len(array) != len(self.rows):
                raise ValueError(f"{name} has type {array.dtype} and shape {array.shape}")
        if not self.indices.shape == self.distances.shape == self.classes.shape:
            raise ValueError("indices, distances and classes have different shapes")
        if not np.isfinite(self.rows).all() or not (np.isfinite(self.tolerance) & (self.tolerance >= 0)).all():
            raise ValueError("a row or a tolerance is not a finite number")
        held = self.indices >= 0
        if not (np.isfinite(self.distances) == held).all() or (self.distances < 0).any():
            raise ValueError("a neighbour has no distance, or a distance no neighbour")
        if not ((self.classes >= 0) == held).all():
            raise ValueError("a neighbour has no class, or a class no neighbour")


@record
class Verdict:
    """What the judge found; the fields are those of `contract.Certificate`."""

    identical: int
    equivalent: int
    different: int
    differences: tuple[RowDifference, ...]
    largest_distance_error: float
    accuracy: float | None
    accuracy_rows: int
    accepted: float | None
    confusion: tuple[tuple[int, ...], ...]
    failures: tuple[str, ...]


def judge(golden: Golden, answers: Any, info: KnnInfo, gates: Gates, *, p50_ms: float | None = None) -> Verdict:
    """Compares `answers` to the golden rows (`Answers` of `golden.rows`) with the reference's, and applies the gates.

    Accuracy counts over all rows whose truth is known; an "unknown" is not a right answer. `p50_ms` is the median
    time of one row, judged when it and the latency gate are given.

    Raises:
        ModelUnusable: the golden set was made for another model (k, features or classes differ).
    """
    _require_match(golden, info)
    kinds = ["different"] * len(golden.rows)
    errors = np.zeros(len(golden.rows))
    if _shapes_fit(golden, answers, info):
        for row in range(len(golden.rows)):
            kinds[row], errors[row] = _judge_row(golden, answers, info, row)
    differences = tuple(
        _difference(golden, answers, info, row, errors[row]) for row, kind in enumerate(kinds) if kind == "different"
    )
    accuracy, accepted, count, confusion = _score(golden, answers, len(info.classes))
    different = kinds.count("different")
    return Verdict(
        identical=kinds.count("identical"),
        equivalent=kinds.count("equivalent"),
        different=different,
        differences=differences[:MAX_DIFFERENCES],
        largest_distance_error=float(errors.max(initial=0.0)),
        accuracy=accuracy,
        accuracy_rows=count,
        accepted=accepted,
        confusion=confusion,
        failures=_failures(gates, different, len(kinds), accuracy, p50_ms),
    )


def base_distance(distances: NDArray[Any], metric: Metric) -> NDArray[np.float64]:
    """Returns the Euclidean (Manhattan) distances in model space that `distances` are a function of."""
    values = np.asarray(distances, dtype=np.float64)
    if metric == "sqeuclidean":
        values = np.sqrt(np.maximum(values, 0.0))
    elif metric == "cosine":
        values = np.sqrt(2.0 * np.maximum(values, 0.0))
    return values


def votes(classes: NDArray[np.int32], distances: NDArray[np.float64], info: KnnInfo) -> NDArray[np.float64]:
    """Returns (n_classes,) shares of the votes of neighbours in order of distance; exact matches take all."""
    if info.weights == "uniform":
        weight = np.ones(len(classes))
    elif distances.min() == 0.0:
        weight = (distances == 0.0).astype(np.float64)
    else:
        weight = distances.min() / distances
    shares = np.bincount(classes, weight, minlength=len(info.classes))
    result: NDArray[np.float64] = shares / shares.sum()
    return result


def _judge_row(golden: Golden, answers: Any, info: KnnInfo, row: int) -> tuple[str, float]:
    k, tolerance = info.k, golden.tolerance[row]
    found, told = np.asarray(answers.indices[row]), np.asarray(answers.distances[row], dtype=np.float64)
    places = [np.flatnonzero(golden.indices[row] == index) for index in found]
    strangers = found.min() < 0 or any(len(place) == 0 for place in places)  # padding is no neighbour
    if strangers or not np.isfinite(told).all() or len(set(found.tolist())) < k:
        return "different", _largest(told, golden.distances[row, :k])
    at = np.concatenate(places)
    tellable = _in_float32(golden.distances[row, at])
    error = _largest(told, tellable)
    base = base_distance(golden.distances[row], golden.metric)
    swapped = np.abs(base[at] - base[:k]).max()
    off = np.abs(base_distance(told, golden.metric) - base_distance(tellable, golden.metric)).max()
    expected = votes(golden.classes[row, at], golden.distances[row, at], info)
    shares = np.asarray(answers.probabilities[row], dtype=np.float64)
    wrong_share = not np.abs(shares - expected).max() <= PROBABILITY_TOLERANCE
    if swapped > tolerance or off > tolerance or wrong_share or answers.label[row] != golden.label[row]:
        return "different", error
    return ("identical" if np.array_equal(at, np.arange(k)) else "equivalent"), error


def _in_float32(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns distances as a device can tell them: beyond the largest number that one, under the smallest 0."""
    told: NDArray[np.float64] = np.minimum(distances, np.finfo(np.float32).max).astype(np.float32).astype(np.float64)
    return told


def _largest(told: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    gaps = np.abs(told - expected)
    return float(gaps[np.isfinite(gaps)].max(initial=0.0))


def _difference(golden: Golden, answers: Any, info: KnnInfo, row: int, error: float) -> RowDifference:
    return RowDifference(
        row=row,
        expected_label=label_text(info, int(golden.label[row])),
        label=label_text(info, int(answers.label[row])),
        expected_indices=tuple(int(index) for index in golden.indices[row, : info.k]),
        indices=tuple(int(index) for index in answers.indices[row]),
        distance_error=float(error),
    )


def label_text(info: KnnInfo, index: int) -> str:
    """Returns a class index as people write it; `unknown` for a rejected row."""
    return str(info.classes[index]) if 0 <= index < len(info.classes) else UNKNOWN_LABEL


def _score(
    golden: Golden, answers: Any, n_classes: int
) -> tuple[float | None, float | None, int, tuple[tuple[int, ...], ...]]:
    known = np.flatnonzero(golden.truth >= 0)
    if len(known) == 0:
        return None, None, 0, ()
    truth, label = golden.truth[known], np.asarray(answers.label)[known]
    confusion = _confusion(truth, label, n_classes) if n_classes <= MAX_CONFUSED else ()
    return float(np.mean(label == truth)), float(np.mean(label != UNKNOWN)), len(known), confusion


def _confusion(truth: NDArray[np.int32], label: NDArray[np.int32], n_classes: int) -> tuple[tuple[int, ...], ...]:
    accepted = (label >= 0) & (label < n_classes)
    table = np.zeros((n_classes, n_classes + 1), np.int64)
    np.add.at(table, (truth, np.where(accepted, label, n_classes)), 1)
    return tuple(tuple(int(count) for count in line) for line in table)


def _failures(gates: Gates, different: int, rows: int, accuracy: float | None, p50_ms: float | None) -> tuple[str, ...]:
    found = []
    if different:
        found.append(f"parity: {different} of {rows} golden rows are different")
    if gates.accuracy is not None and accuracy is None:
        found.append(f"accuracy: the floor is {gates.accuracy:g}, but no golden row has a known truth")
    elif gates.accuracy is not None and accuracy is not None and accuracy < gates.accuracy:
        found.append(f"accuracy: {accuracy:.6g} is under the floor of {gates.accuracy:g}")
    if gates.latency_ms is not None and p50_ms is not None and p50_ms > gates.latency_ms:
        found.append(f"latency: {p50_ms:.4g} ms a row is over the budget of {gates.latency_ms:g} ms")
    return tuple(found)


def _require_match(golden: Golden, info: KnnInfo) -> None:
    fits = (
        golden.metric == info.metric
        and golden.rows.shape[1] == info.n_features
        and golden.indices.shape[1] >= info.k
        and bool((golden.indices[:, : info.k] >= 0).all())
        and int(golden.indices.max(initial=-1)) < info.n_train
        and max(int(golden.truth.max(initial=-1)), int(golden.label.max(initial=-1))) < len(info.classes)
        and int(golden.classes.max(initial=-1)) < len(info.classes)
    )
    if not fits:
        raise ModelUnusable("golden.npz was made for another model", reason="golden-mismatch")


def _shapes_fit(golden: Golden, answers: Any, info: KnnInfo) -> bool:
    n = len(golden.rows)
    return bool(
        answers.label.shape == (n,)
        and answers.indices.shape == answers.distances.shape == (n, info.k)
        and answers.probabilities.shape == (n, len(info.classes))
    )


def _metric(value: NDArray[Any]) -> Metric:
    text = str(value)
    for metric in get_args(Metric):
        if text == metric:
            found: Metric = metric
            return found
    raise ValueError(f"unknown metric {text!r}")

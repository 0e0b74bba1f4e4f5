"""Compares a runtime's answers with the float64 reference's.

A device runs it at every activation, the host at every build. A golden row is a query row with the reference's answer:
the neighbours, their classes and float64 distances, including neighbours after the k-th that are within the row's
tolerance. That is enough to distinguish a swap of nearly tied neighbours from a wrong answer without the training
matrix:

- *identical*: the same neighbours in the same order, and the same label;
- *equivalent*: at each position, the reference distance of the neighbour found is within the tolerance of the expected
  one, and the label is the same;
- *different*: anything else, including a distance or probability that does not fit the neighbours in the answer.

The tolerance of a row is `margin * max(d_k, R)`: d_k is its k-th reference distance, R the RMS distance of the training
rows from their mean, both in model space (Euclidean or Manhattan; sqeuclidean and cosine distances are converted to the
Euclidean ones that they are functions of). NumPy only, no I/O, no runtime.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared import regression
from device_agent.shared.golden import class_gates, error_gates
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol.constants import MAX_CONFUSED, MAX_DIFFERENCES, UNKNOWN, UNKNOWN_LABEL
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.protocol.model_info import Gates, KnnInfo, TargetError
from device_agent.shared.protocol.record import record
from device_agent.shared.protocol.reports import ColumnScore, RowDifference
from device_agent.shared.votes import base_distance, votes

#: Largest difference of a probability from the reference's.
PROBABILITY_TOLERANCE = 1e-5


@record
class Verdict:
    """The result of `judge`; its fields become those of a `reports.Certificate`."""

    identical: int  # golden rows, as the next two
    equivalent: int
    different: int
    differences: tuple[RowDifference, ...]
    largest_distance_error: float
    accuracy: float | None  # share of right answers; None without rows of known class
    accuracy_rows: int  # rows with a known true class
    accepted: float | None  # share of these that is not "unknown"; None without such rows
    confusion: tuple[tuple[int, ...], ...]
    failures: tuple[str, ...]  # a message for each missed gate
    errors: tuple[TargetError, ...] = ()
    columns: tuple[ColumnScore, ...] = ()


def judge(
    golden: Golden,
    answers: Any,
    info: KnnInfo,
    gates: Gates,
    *,
    p50_ms: float | None = None,
    values: NDArray[np.float64] | None = None,
) -> Verdict:
    """Compares `answers` to the golden rows with the reference's answers, and applies the gates.

    `answers` has `label`, `probabilities`, `indices` and `distances`. Accuracy counts all rows whose true class is
    known; "unknown" counts as wrong. If the model was measured on more held-out rows than these, each class counts by
    its share of those (`info.evaluation`). `p50_ms` is the median time of one row in milliseconds; if None, the latency
    gate is not applied. `values` are the (n, t) answers of a regression or of label columns: a row whose values differ
    from the reference's is different, too.

    Raises:
        ModelUnusable: the golden set belongs to another model (k, features or classes differ).
    """
    require_match(golden, info)
    kinds = ["different"] * len(golden.rows)
    errors = np.zeros(len(golden.rows))
    if _shapes_fit(golden, answers, info):
        for row in range(len(golden.rows)):
            kinds[row], errors[row] = _judge_row(golden, answers, info, row)
    errors_of: tuple[TargetError, ...] = ()
    columns: tuple[ColumnScore, ...] = ()
    if info.targets is not None and values is not None and golden.values is not None and golden.targets is not None:
        for row in np.flatnonzero(regression.differ(values, golden.values, info.targets.spread)).tolist():
            kinds[row] = "different"
        if info.targets.classes:
            from device_agent.shared.label_columns import scores

            columns = scores(info.targets.names, values, golden.targets)
        else:
            errors_of = regression.errors(info.targets.names, values, golden.targets)
    differences = tuple(
        _difference(golden, answers, info, row, errors[row]) for row, kind in enumerate(kinds) if kind == "different"
    )
    accuracy, accepted, count, confusion = _score(golden, answers, info)
    by_class = class_failures(gates, golden, np.asarray(answers.label), info)
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
        failures=(
            *_failures(gates, different, len(kinds), accuracy, p50_ms),
            *by_class,
            *error_gates.missed(gates, errors_of, info.targets.names if info.targets else ()),
            *error_gates.missed_columns(gates, columns, info.targets.names if info.targets else ()),
        ),
        errors=errors_of,
        columns=columns,
    )


def _judge_row(golden: Golden, answers: Any, info: KnnInfo, row: int) -> tuple[str, float]:
    k, tolerance = info.k, golden.tolerance[row]
    found, distances = np.asarray(answers.indices[row]), np.asarray(answers.distances[row], dtype=np.float64)
    places = [np.flatnonzero(golden.indices[row] == index) for index in found]
    unlisted = found.min() < 0 or any(len(place) == 0 for place in places)  # -1 is padding, not a neighbour
    if unlisted or not np.isfinite(distances).all() or len(set(found.tolist())) < k:
        return "different", _largest(distances, golden.distances[row, :k])
    at = np.concatenate(places)
    expected_distances = _in_float32(golden.distances[row, at])
    error = _largest(distances, expected_distances)
    base = base_distance(golden.distances[row], golden.metric)
    swapped = np.abs(base[at] - base[:k]).max()
    off = np.abs(base_distance(distances, golden.metric) - base_distance(expected_distances, golden.metric)).max()
    if golden.shares is None:
        expected = votes(golden.classes[row : row + 1, at], golden.distances[row : row + 1, at], info)[0]
    else:
        expected = golden.shares[row]
    shares = np.asarray(answers.probabilities[row], dtype=np.float64)
    wrong_share = not np.abs(shares - expected).max() <= PROBABILITY_TOLERANCE
    if swapped > tolerance or off > tolerance or wrong_share or answers.label[row] != golden.label[row]:
        return "different", error
    return ("identical" if np.array_equal(at, np.arange(k)) else "equivalent"), error


def _in_float32(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns distances rounded as a device stores them in float32; those beyond float32 become its largest number."""
    narrow: NDArray[np.float64] = np.minimum(distances, np.finfo(np.float32).max).astype(np.float32).astype(np.float64)
    return narrow


def _largest(found: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    gaps = np.abs(found - expected)
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
    """Returns the label of a class index; `unknown` for a rejected row."""
    return str(info.classes[index]) if 0 <= index < len(info.classes) else UNKNOWN_LABEL


def _score(
    golden: Golden, answers: Any, info: KnnInfo
) -> tuple[float | None, float | None, int, tuple[tuple[int, ...], ...]]:
    known = np.flatnonzero(golden.truth >= 0)
    if len(known) == 0:
        return None, None, 0, ()
    truth, label = golden.truth[known], np.asarray(answers.label)[known]
    confusion = _confusion(truth, label, len(info.classes)) if len(info.classes) <= MAX_CONFUSED else ()
    weights = _weights(truth, info)
    right, accepted = (float(np.average(each, weights=weights)) for each in (label == truth, label != UNKNOWN))
    return right, accepted, len(known), confusion


def _weights(truth: NDArray[np.int32], info: KnnInfo) -> NDArray[np.float64] | None:
    """Returns (n,) weights by which each class counts as among all held-out rows; None: all of them are golden rows.

    Of many held-out rows, a golden set has more rows of rare classes than their share. `truth` are its true classes.
    """
    found, counts = info.evaluation, np.bincount(truth, minlength=len(info.classes))
    if found is None or (found.of or found.rows) <= len(truth) or len(found.support) != len(counts):
        return None
    weights = np.array(found.support)[truth] / counts[truth]
    return weights if weights.any() else None


def class_failures(gates: Gates, golden: Golden, label: NDArray[np.int32], info: KnnInfo) -> tuple[str, ...]:
    """Returns a message for each class gate that the golden rows miss; `label` are the class indices answered."""
    support = np.bincount(golden.truth[golden.truth >= 0], minlength=len(info.classes))
    right = np.bincount(golden.truth[(golden.truth >= 0) & (golden.truth == label)], minlength=len(info.classes))
    return class_gates.failures(gates, tuple(map(str, info.classes)), support.tolist(), right.tolist())


def _confusion(truth: NDArray[np.int32], label: NDArray[np.int32], n_classes: int) -> tuple[tuple[int, ...], ...]:
    accepted = (label >= 0) & (label < n_classes)
    table = np.zeros((n_classes, n_classes + 1), np.int64)
    np.add.at(table, (truth, np.where(accepted, label, n_classes)), 1)
    return tuple(tuple(int(count) for count in line) for line in table)


def _failures(gates: Gates, different: int, rows: int, accuracy: float | None, p50_ms: float | None) -> tuple[str, ...]:
    found = []
    if different:
        found.append(f"parity: {different} of {rows} golden rows are answered differently")
    if gates.accuracy is not None and accuracy is None:
        found.append(f"accuracy: the gate is {gates.accuracy:g}, but no golden row has a known true class")
    elif gates.accuracy is not None and accuracy is not None and accuracy < gates.accuracy:
        found.append(f"accuracy: {accuracy:.6g} is below the gate of {gates.accuracy:g}")
    if gates.latency_ms is not None and p50_ms is not None and p50_ms > gates.latency_ms:
        found.append(f"latency: {p50_ms:.4g} ms per row is above the gate of {gates.latency_ms:g} ms")
    return tuple(found)


def require_match(golden: Golden, info: KnnInfo) -> None:
    """Checks that a golden set has the columns, classes and sizes of a model.

    Raises:
        ModelUnusable: the golden set was made for another model.
    """
    fits = (
        golden.metric == info.metric
        and golden.rows.shape[1] == info.n_features
        and golden.indices.shape[1] >= info.k
        and bool((golden.indices[:, : info.k] >= 0).all())
        and int(golden.indices.max(initial=-1)) < info.n_train
        and max(int(golden.truth.max(initial=-1)), int(golden.label.max(initial=-1))) < len(info.classes)
        and int(golden.classes.max(initial=-1)) < len(info.classes)
        and (None if golden.shares is None else golden.shares.shape[1])
        == (len(info.classes) if info.float64 is not None and info.float64.radius is not None else None)
        and (None if golden.values is None else golden.values.shape[1])
        == (None if info.targets is None else len(info.targets.names))
    )
    if not fits:
        said = "golden.npz was made for another model"
        raise ModelUnusable(said, reason="golden-mismatch", hint="build the release again")


def _shapes_fit(golden: Golden, answers: Any, info: KnnInfo) -> bool:
    n = len(golden.rows)
    return bool(
        answers.label.shape == (n,)
        and answers.indices.shape == answers.distances.shape == (n, info.k)
        and answers.probabilities.shape == (n, len(info.classes))
    )

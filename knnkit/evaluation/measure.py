"""Evaluation of the float64 reference on held-out rows.

The reference is the exact classifier in float64 NumPy, which defines the right answers. It runs on the host at build.
Devices are checked to answer as the reference does, so these figures hold for devices as well. All held-out rows are
measured, or a sample if that would take too long (`affordable`). Also counts the rows that an imported scikit-learn
estimator answers differently.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.constants import MAX_CONFUSED
from device_agent.shared.protocol.model_info import Evaluation, Targets
from device_agent.shared.protocol.record import replace as record_replace
from device_agent.shared.regression import differ, errors, spreads
from knnkit.data.dataset import Dataset, drawn
from knnkit.evaluation.metrics import percent
from knnkit.evaluation.splits import LEAVE_ONE_OUT
from knnkit.model.reference.classifier import Reference, ReferenceAnswers
from knnkit.model.reference.enrolment import codes_of

#: Rows that the reference answers at a time: its lists of neighbours take memory.
_CHUNK = 500
#: Rows left out one by one, at most: a gallery is small, and each row is measured against all others.
_MOST_LEFT_OUT = 5000

#: Most distance terms (rows x training rows x features), which is about half a minute; but always so many rows.
_WORK, _LEAST = 4_000_000_000, 1000

Classes = tuple[int | str, ...]


def affordable(held_out: Dataset, reference: Reference) -> Dataset:
    """Returns all held-out rows, or a random sample if the reference would take too long to answer all."""
    rows, most = len(held_out.rows), most_rows(reference)
    return held_out if rows <= most else held_out.take(drawn(rows, most))


def most_rows(*references: Reference) -> int:
    """Returns the number of rows that even the slowest reference classifies in about half a minute; at least 1000."""
    return max(_LEAST, _WORK // max(each.enrolled.size for each in references))


def measure(
    reference: Reference, classes: Classes, held_out: Dataset | None, how: str, of: int | None = None
) -> Evaluation | None:
    """Returns counts of the reference's right and wrong answers to the held-out rows; None if nothing is measured.

    `how` says how the rows were held out (by `split`), and `of` the number of rows from which `held_out` was drawn
    (None: it has all of them). If `held_out` is None, only the `how` LEAVE_ONE_OUT measures: each row whose class has
    another row, against all rows except itself; at most 5,000 rows, drawn at random.

    Raises:
        DataError: a held-out row has a label that no training row has.
    """
    if held_out is not None:
        truth = codes_of(classes, held_out.labels)
        labels = [reference.answer(rows).label for rows in parts_of(held_out.rows)]
    elif how == LEAVE_ONE_OUT and reference.k < len(reference.enrolled):
        counts = np.bincount(reference.classes, minlength=len(classes))
        chosen = np.flatnonzero(counts[reference.classes] > 1)
        of = len(chosen)
        chosen = chosen[drawn(of, _MOST_LEFT_OUT)]
        truth = reference.classes[chosen]
        labels = [reference.leave_one_out(part).label for part in parts_of(chosen)]
    else:
        return None
    return _counted(truth, np.concatenate(labels), len(classes), how, of) if labels else None


def measure_errors(
    reference: Reference, targets: Targets, held_out: Dataset | None, how: str, of: int | None = None
) -> Targets:
    """Returns `targets` with the reference's errors on the rows held out (by `how`); unchanged if there are none.

    For label columns, returns `targets` with an evaluation of each column. `of` is the number of rows from which
    `held_out` was drawn (None: it has all of them).
    """
    if held_out is None or held_out.targets is None:
        return targets
    values = np.concatenate([reference.values(reference.answer(rows)) for rows in parts_of(held_out.rows)])
    if targets.classes:
        codes = np.nan_to_num(values, nan=-1.0).astype(np.int32)
        columns = zip(held_out.targets.astype(np.int32).T, codes.T, map(len, targets.classes))
        return record_replace(targets, how=how, evaluations=tuple(_counted(*each, how, of) for each in columns))
    found = errors(targets.names, values, held_out.targets)
    return record_replace(targets, how=how, errors=found, of=of if of != len(held_out.rows) else None)


def _counted(truth: NDArray[np.int32], label: NDArray[np.int32], count: int, how: str, of: int | None) -> Evaluation:
    table = np.zeros((count, count + 1), np.int64)
    np.add.at(table, (truth, np.where(label < 0, count, label)), 1)
    return Evaluation(
        how=how,
        rows=len(truth),
        support=tuple(table.sum(axis=1).tolist()),
        right=tuple(table.diagonal().tolist()),
        answered=tuple(table.sum(axis=0)[:-1].tolist()),
        confusion=tuple(map(tuple, table.tolist())) if count <= MAX_CONFUSED else (),
        of=of if of != len(truth) else None,
    )


class Compared(NamedTuple):
    """How an imported estimator and the reference answer the same rows."""

    share: float | None  # of rows that both answer alike; None if the estimator cannot predict
    warnings: tuple[str, ...] = ()  # about the other rows


def compare_with_estimator(estimator: Any, reference: Reference, classes: Classes, held_out: Dataset) -> Compared:
    """Compares a scikit-learn estimator's answers to held-out rows with those of `reference`, imported from it."""
    found, ties, votes = _answers(reference, held_out) if held_out.targets is None else (None, None, None)
    asked = held_out if votes is None else held_out.take(np.flatnonzero(votes))  # else it raises
    try:
        predicted = _predict(estimator, asked) if len(asked.rows) else np.empty(0)
    except (ValueError, TypeError):
        if held_out.raw is None:
            raise
        return Compared(None)  # it chooses columns of a data frame by their names, and here are arrays
    if found is None or ties is None:
        return _compare_values(predicted, reference, held_out)
    own, names = np.array(list(map(str, predicted.tolist()))), np.array(list(map(str, classes)))
    differs = (found[votes] >= 0) & (names[found[votes]] != own)
    differences, tied = int(differs.sum()), int((differs & ties[votes]).sum())
    if not differences:
        return Compared(1.0)
    right = float(np.mean(own == np.array(list(map(str, asked.labels.tolist())))))
    reasons = [f"{tied:,} where neighbours or votes tie"] if tied else []
    reasons += [f"{differences - tied:,} where scikit-learn's rounding decides"] if differences > tied else []
    said = (
        f"scikit-learn itself answers {differences:,} of {len(found):,} test rows differently ({', '.join(reasons)}); "
        f"its accuracy is {percent(right)}"
    )
    return Compared(1.0 - differences / len(found), (said,))


def _answers(reference: Reference, rows: Dataset) -> tuple[NDArray[Any], ...]:
    """Returns the (n,) class indices that the reference answers; whether each is a tie; whether any neighbour votes."""
    answers = map(reference.answer, parts_of(rows.rows))
    parts = [(each.label, _tied(each, reference.k), each.probabilities.any(axis=1)) for each in answers]
    return tuple(np.concatenate(column) for column in zip(*parts))


def _predict(estimator: Any, held_out: Dataset) -> NDArray[Any]:
    asked: Any = held_out.rows.astype(np.float64)
    if held_out.raw is not None:
        asked = held_out.raw.rows.astype(object)
        for place, texts in (held_out.raw.levels or {}).items():
            asked[:, place] = [texts[int(code)] if code == code else np.nan for code in held_out.raw.rows[:, place]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it may have been fitted with names; the columns are in that order
        predicted = np.asarray(estimator.predict(asked))
        if not hasattr(estimator, "score_samples"):
            return predicted
        return np.stack([-estimator.score_samples(asked), predicted == -1], axis=1)  # outlier factors


def _compare_values(predicted: NDArray[Any], reference: Reference, held_out: Dataset) -> Compared:
    own = _codes(predicted, held_out.target_classes).reshape(len(held_out.rows), -1)
    values = np.concatenate([reference.values(reference.answer(rows)) for rows in parts_of(held_out.rows)])
    known = ~np.isnan(values + own).any(axis=1)  # no value: rejected, or no neighbour has weight
    count = int(differ(values[known], own[known], spreads(own[known]).tolist()).sum()) if known.any() else 0
    why = "where neighbours tie, or scikit-learn's rounding decides"
    said = f"scikit-learn itself answers {count:,} of {len(own):,} test rows differently ({why})"
    return Compared(1.0 - count / len(own), (said,) if count else ())


def _codes(predicted: NDArray[Any], classes: tuple[Classes, ...]) -> NDArray[np.float64]:
    """Returns predictions as numbers; for label columns, whose labels `classes` has, as indices of these labels."""
    if not classes:
        return np.asarray(predicted, np.float64)
    columns = [codes_of(labels, column) for labels, column in zip(classes, np.asarray(predicted).T)]
    return np.stack(columns, axis=1).astype(np.float64)


def _tied(answers: ReferenceAnswers, k: int) -> NDArray[np.bool_]:
    """Returns (n,) bool for each answer: whether votes are even, or k-th and (k + 1)-th neighbour are equally near."""
    top = np.sort(answers.probabilities, axis=1)
    even = top[:, -1] - top[:, -2] < 1e-9 if top.shape[1] > 1 else np.zeros(len(top), bool)
    if answers.distances.shape[1] <= k:
        return np.asarray(even)
    last, following = answers.distances[:, k - 1], answers.distances[:, k]
    return np.asarray(even | (following <= last * (1 + 1e-6)))


def parts_of(rows: NDArray[Any]) -> list[NDArray[Any]]:
    """Splits rows, or indices of rows, into parts of at most 500, to save memory."""
    return [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]

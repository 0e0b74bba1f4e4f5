"""Columns of numbers or labels that a model predicts.

A file is read with the first target as its label, and the other targets as features; `read` then separates them. With
several label columns, the targets are indices in the sorted labels of each column. Reads no file itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from device_agent.shared.queries import column_names, is_gap
from knnkit.data import precision
from knnkit.data.columns import find
from knnkit.data.dataset import Dataset, dataset, label_array, shortened
from knnkit.errors import DataError

#: The class of every row of a regression.
CLASS = "value"
#: The labels of each of several label columns.
Known = tuple[tuple[int | str, ...], ...]
#: Reads the rows of a file in float64: takes the label's column, and the features' or None.
Read = Callable[[str, Sequence[str] | None], Dataset]


def read(
    reader: Read, targets: Sequence[str], features: Sequence[str] | None, *, narrow: bool, known: Known | None = None
) -> Dataset:
    """Reads rows whose targets are the columns `targets`.

    Args:
        reader: reads the file with a given label column and given features.
        targets: names of the target columns.
        features: names or patterns of the features; None: all other columns.
        narrow: whether rows become float32 if float32 holds them well enough.
        known: for label columns, the allowed labels of each, or () for any label; None: the targets are numbers.

    Raises:
        DataError: a column is missing, or a target is not a finite number.
    """
    first, *others = targets
    found = reader(first, None if features is None else (*features, *others))
    names = list(found.feature_names)
    places = [find(names, name, Path(found.source), "target") for name in others]
    kept = [place for place in range(len(names)) if place not in places]
    if not kept:
        raise DataError(f"{found.source}: all columns are targets; there is no feature", hint="add columns of numbers")
    text = next((names[place] for place in places if place in (found.levels or {})), None)
    if text is not None and known is None:
        raise DataError(f"{found.source}: the target {text!r} holds text, not numbers", hint="label: for classes")
    levels = {kept.index(place): texts for place, texts in (found.levels or {}).items() if place in kept}
    rows: NDArray[Any] = found.rows[:, kept]
    if known is None:
        numbers = np.array([_number(text, row, first, found.source) for row, text in enumerate(found.labels.tolist())])
        matrix = np.column_stack([numbers, found.rows[:, places].astype(np.float64)])
        apart = with_targets(found, matrix, tuple(targets))
    else:
        columns = [found.labels, *(_texts(found, place) for place in places)]
        apart = with_labels(found, columns, tuple(targets), known)
    rows = precision.float32_if_enough(rows) if narrow else np.ascontiguousarray(rows)
    return replace(apart, rows=rows, feature_names=tuple(names[place] for place in kept), levels=levels or None)


def with_targets(rows: Dataset, targets: Any, names: tuple[str, ...] | None = None) -> Dataset:
    """Returns the rows with (n,) or (n, t) numbers as targets; all rows get the class `CLASS`.

    Raises:
        DataError: the number of targets is not that of the rows, or a target is not a finite number.
    """
    try:
        matrix = np.asarray(targets, np.float64).reshape(len(rows.rows), -1)
    except (TypeError, ValueError):
        said = f"{rows.source}: {len(rows.rows)} rows, but targets of shape {np.shape(targets)}"
        raise DataError(said, hint="give one number for each row, or one list of numbers for each row") from None
    names = names or default_names(matrix.shape[1])
    wrong = np.argwhere(~np.isfinite(matrix))
    if len(wrong):
        row, column = wrong[0].tolist()
        said = f"{rows.source}: row {row}: the target {names[column]!r} is {matrix[row, column]}, not a finite number"
        raise DataError(said, hint="drop the row")
    return replace(rows, labels=np.full(len(matrix), CLASS), targets=matrix, target_names=names)


def with_labels(rows: Dataset, columns: Sequence[Any], names: tuple[str, ...], known: Known = ()) -> Dataset:
    """Returns the rows with several (n,) columns of labels; `known`: the allowed labels of each column; (): any labels.

    Raises:
        DataError: a label cannot be used, or no training row has it.
    """
    classes, codes = list[tuple[int | str, ...]](), []
    for place, (name, column) in enumerate(zip(names, columns)):
        labels = label_array(np.asarray(column).tolist(), f"{rows.source}, column {shortened(name)}")
        own = known[place] if known else tuple(np.unique(labels).tolist())
        places = {str(label): code for code, label in enumerate(own)}
        new = next((label for label in labels.tolist() if str(label) not in places), None)
        if new is not None:
            said = f"{rows.source}: the column {name!r} has a label that no training row has: {new!r}"
            raise DataError(said, hint="add a training row with this label, or leave the row out")
        classes.append(own)
        codes.append([float(places[str(label)]) for label in labels.tolist()])
    found = with_targets(rows, np.array(codes).T, names)
    return replace(found, target_classes=tuple(classes))


def _texts(rows: Dataset, place: int) -> NDArray[Any]:
    """Returns the (n,) labels in column `place`, which was read as a feature: categories or numbers."""
    cells, levels = rows.rows[:, place], (rows.levels or {}).get(place)
    empty = np.flatnonzero(np.isnan(cells))
    if len(empty):
        said = f"{rows.source}: row {empty[0]}: the label ({rows.feature_names[place]!r}) is empty"
        raise DataError(said, hint="drop the row, or fill the cell")
    return cells if levels is None else np.array(levels)[cells.astype(int)]


def of_arrays(
    rows: ArrayLike, labels: ArrayLike | None, targets: ArrayLike | None, names: Sequence[str] | None
) -> Dataset:
    """Returns checked rows with labels (text stays text, even if it is digits), or with targets.

    Raises:
        DataError: rows, labels or targets are invalid.
    """
    if targets is not None:
        if labels is not None:
            raise DataError("give labels or targets, not both", hint="TfKNN(rows, targets=targets) for a regression")
        return with_targets(dataset(rows, None, names), targets, column_names(targets))
    values = None if labels is None else np.asarray(labels)
    if values is not None and values.dtype.kind not in "iub":
        _require_labels(np.asarray(labels, object))  # an array of text would hold "nan"
    if values is not None and values.ndim == 2 and values.shape[1] > 1:
        found = dataset(rows, None, names)
        _require_length(found, values)
        return with_labels(found, list(values.T), column_names(labels) or default_names(values.shape[1], "label"))
    training = dataset(rows, values, names)
    if values is None:
        return training
    given = values.tolist()
    if all(isinstance(label, str) for label in given):
        training = replace(training, labels=np.array(given))
    if training.labels.tolist() != given:
        raise DataError(f"labels of type {values.dtype} are not supported", hint="integers or text: labels.astype(str)")
    return training


def _require_labels(labels: NDArray[Any]) -> None:
    empty = next((place for place, cell in enumerate(labels.reshape(-1).tolist()) if is_gap(cell)), None)
    if empty is not None:
        said = f"arrays: row {empty // (labels.size // len(labels))}: the label is missing"
        raise DataError(said, hint="keep = labels.notna(), then rows[keep] and labels[keep]")


def _require_length(rows: Dataset, labels: NDArray[Any]) -> None:
    if len(labels) != len(rows.rows):
        raise DataError(f"{rows.source}: {len(rows.rows)} rows, but labels of shape {labels.shape}")


def answered(rows: Dataset, answers: Any, names: tuple[str, ...], known: Known) -> Dataset:
    """Returns test rows with the right answers: targets or label columns. Rows of one label column are unchanged."""
    if not known:
        return with_targets(rows, answers, names) if names else rows
    matrix = np.asarray(answers, object)
    if matrix.shape != (len(rows.rows), len(names)):
        raise DataError(f"{rows.source}: {len(rows.rows)} rows, but labels of shape {matrix.shape}")
    return with_labels(rows, list(matrix.T), names, known)


def default_names(count: int, word: str = "target") -> tuple[str, ...]:
    """Returns names for `count` targets without names: target, or target_0, target_1, ..."""
    return (word,) if count == 1 else tuple(f"{word}_{place}" for place in range(count))


def _number(label: Any, row: int, name: str, source: str) -> float:
    text = str(label)
    try:
        return float(text if "." in text else text.replace(",", "."))
    except ValueError:
        said = f"{source}: row {row}: the target {name!r} is {shortened(text)}, not a number"
        raise DataError(said, hint=f"label: {name} for classes") from None

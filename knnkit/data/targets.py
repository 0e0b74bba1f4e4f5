"""Columns of numbers that a regression predicts.

A file is read with the first target as its label and the others as features; `read` takes them apart. Reads no file
itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from device_agent.shared.queries import column_names
from knnkit.data import precision
from knnkit.data.columns import find
from knnkit.data.dataset import Dataset, dataset, shortened
from knnkit.errors import DataError

#: The class of every row of a regression.
CLASS = "value"
#: Reads the rows of a file in float64: takes the label's column, and the features' or None.
Read = Callable[[str, Sequence[str] | None], Dataset]


def read(reader: Read, targets: Sequence[str], features: Sequence[str] | None, *, narrow: bool) -> Dataset:
    """Returns rows with the columns `targets` as their targets.

    Args:
        reader: reads the file.
        targets: names of columns.
        features: names or patterns of the features; None: all other columns.
        narrow: whether rows that float32 holds become float32.

    Raises:
        DataError: a column is missing, or a target is not a finite number.
    """
    first, *others = targets
    found = reader(first, None if features is None else (*features, *others))
    names = list(found.feature_names)
    places = [find(names, name, Path(found.source), "target") for name in others]
    kept = [place for place in range(len(names)) if place not in places]
    if not kept:
        raise DataError(f"{found.source}: there is no feature beside the targets", hint="add columns of numbers")
    text = next((names[place] for place in places if place in (found.levels or {})), None)
    if text is not None:
        raise DataError(f"{found.source}: the target {text!r} holds text, not numbers", hint="label: for classes")
    levels = {kept.index(place): texts for place, texts in (found.levels or {}).items()}
    numbers = np.array([_number(text, row, first, found.source) for row, text in enumerate(found.labels.tolist())])
    rows: NDArray[Any] = found.rows[:, kept]
    apart = with_targets(found, np.column_stack([numbers, found.rows[:, places].astype(np.float64)]), tuple(targets))
    rows = precision.float32_if_enough(rows) if narrow else np.ascontiguousarray(rows)
    return replace(apart, rows=rows, feature_names=tuple(names[place] for place in kept), levels=levels or None)


def with_targets(rows: Dataset, targets: Any, names: tuple[str, ...] | None = None) -> Dataset:
    """Returns the rows with (n,) or (n, t) targets; their one class is `CLASS`.

    Raises:
        DataError: the targets do not fit the rows, or one is not a finite number.
    """
    try:
        matrix = np.asarray(targets, np.float64).reshape(len(rows.rows), -1)
    except (TypeError, ValueError):
        said = f"{rows.source}: {len(rows.rows)} rows, but targets of shape {np.shape(targets)}"
        raise DataError(said, hint="one number, or one row of numbers, for each row") from None
    names = names or default_names(matrix.shape[1])
    wrong = np.argwhere(~np.isfinite(matrix))
    if len(wrong):
        row, column = wrong[0].tolist()
        said = f"{rows.source}: row {row}: the target {names[column]!r} is {matrix[row, column]}, not a finite number"
        raise DataError(said, hint="drop the row")
    return replace(rows, labels=np.full(len(matrix), CLASS), targets=matrix, target_names=names)


def of_arrays(
    rows: ArrayLike, labels: ArrayLike | None, targets: ArrayLike | None, names: Sequence[str] | None
) -> Dataset:
    """Returns checked rows with unchanged labels (text stays text, even if it is digits), or with targets.

    Raises:
        DataError: rows, labels or targets are invalid.
    """
    if targets is not None:
        if labels is not None:
            raise DataError("give labels or targets, not both", hint="TfKNN(rows, targets=targets) for a regression")
        return with_targets(dataset(rows, None, names), targets, column_names(targets))
    values = None if labels is None else np.asarray(labels)
    training = dataset(rows, values, names)
    if values is None:
        return training
    given = values.tolist()
    if all(isinstance(label, str) for label in given):
        training = replace(training, labels=np.array(given))
    if training.labels.tolist() != given:
        raise DataError(f"labels of type {values.dtype} are not supported", hint="integers or text: labels.astype(str)")
    return training


def default_names(count: int) -> tuple[str, ...]:
    """Returns the names of unnamed targets: target, or target_0, target_1, ..."""
    return ("target",) if count == 1 else tuple(f"target_{place}" for place in range(count))


def _number(label: Any, row: int, name: str, source: str) -> float:
    text = str(label)
    try:
        return float(text if "." in text else text.replace(",", "."))
    except ValueError:
        said = f"{source}: row {row}: the target {name!r} is {shortened(text)}, not a number"
        raise DataError(said, hint=f"label: {name} for classes") from None

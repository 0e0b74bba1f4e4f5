"""Columns of numbers or labels that a model predicts.

A file is read by a policy that names the targets, which then are its last columns; `read` separates them. With several
label columns, the targets are indices in the sorted labels of each column. Reads no file itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from device_agent.shared.protocol.constants import counted
from device_agent.shared.queries import answers_by_name, as_array, as_numbers, column_names, is_gap
from knnkit.data import precision
from knnkit.data.dataset import Dataset, by_text, dataset, label_array, require_distinct, spelt_as
from knnkit.errors import DataError

#: The class of every row of a regression.
CLASS = "value"
#: The labels of each of several label columns.
Known = tuple[tuple[int | str, ...], ...]
_LABELS = "one label for each row, or a row of labels: integers or text"
_KINDS = (str, int, float, np.integer, np.floating)
#: Reads the rows of a file in float64: takes the label's column, and the features' or None.
Read = Callable[[str, Sequence[str] | None], Dataset]


def read(
    reader: Read, targets: Sequence[str], features: Sequence[str] | None, *, narrow: bool, known: Known | None = None
) -> Dataset:
    """Reads rows whose targets are the columns `targets`.

    Args:
        reader: function (label column, features) -> rows of the file, read by a policy that names these targets.
        targets: names of the target columns.
        features: names or patterns of the features; None: all other columns.
        narrow: whether rows become float32 if float32 holds them well enough.
        known: for label columns, the allowed labels of each, or () for any label; None: the targets are numbers.

    Raises:
        DataError: a column is missing, or a target is not a finite number.
    """
    found = reader(targets[0], features)
    width = len(found.feature_names) - (0 if known is not None else len(targets))
    rows: NDArray[Any] = found.rows[:, :width]
    if known is None:
        apart = with_targets(found, found.rows[:, width:], tuple(targets))
    else:
        apart = with_labels(found, (found.labels, *found.more_labels), tuple(targets), known)
    rows = precision.float32_if_enough(rows) if narrow else np.ascontiguousarray(rows)
    return replace(apart, rows=rows, feature_names=found.feature_names[:width], more_labels=())


def with_targets(rows: Dataset, targets: Any, names: tuple[str, ...] | None = None) -> Dataset:
    """Returns the rows with (n,) or (n, t) targets; all rows get the class `CLASS`.

    `names` are those of the targets; None: the names of a data frame or a series, or default names.

    Raises:
        DataError: the number of targets is not that of the rows, or a target is not a finite number.
    """
    hint = "one number, or one row of numbers, for each row"
    try:
        matrix = np.array(as_numbers(targets, np.float64))  # a copy: the caller may change its own later
    except (TypeError, ValueError) as error:
        raise DataError(f"{rows.source}: the targets are not numbers: {error}", hint=hint) from None
    if matrix.ndim > 2 or len(matrix) != len(rows.rows) or not matrix.size:
        said = f"{rows.source}: {len(rows.rows)} rows, but targets of shape {matrix.shape}"
        raise DataError(said, hint=hint)
    matrix = matrix.reshape(len(matrix), -1)
    names = names or column_names(targets) or _series_name(targets) or default_names(matrix.shape[1])
    require_distinct(names, "the targets")
    wrong = np.argwhere(~np.isfinite(matrix))
    if len(wrong):
        row, column = wrong[0].tolist()
        said = f"{rows.source}: row {row}: the target {names[column]!r} is {matrix[row, column]}, not a finite number"
        raise DataError(said, hint="drop the row")
    return replace(rows, labels=np.full(len(matrix), CLASS), targets=matrix, target_names=names)


def with_labels(rows: Dataset, columns: Sequence[Any], names: tuple[str, ...], known: Known = ()) -> Dataset:
    """Returns the rows with several (n,) arrays of labels; `known`: the allowed labels of each column; (): any labels.

    Raises:
        DataError: a label is not among the `known` ones of its column.
    """
    classes, codes = list[tuple[int | str, ...]](), []
    for place, (name, labels) in enumerate(zip(names, columns)):
        own = known[place] if known else tuple(np.unique(labels).tolist())
        places, labels = by_text(own, range(len(own))), spelt_as(labels, own)
        new = next((label for label in labels.tolist() if str(label) not in places), None)
        if new is not None:
            said = f"{rows.source}: the column {name!r} has a label that no training row has: {new!r}"
            raise DataError(said, hint="add a training row with this label, or leave the row out")
        classes.append(own)
        codes.append([float(places[str(label)]) for label in labels.tolist()])
    found = with_targets(rows, np.array(codes).T, names)
    return replace(found, target_classes=tuple(classes))


def of_arrays(
    rows: ArrayLike, labels: ArrayLike | None, targets: ArrayLike | None, names: Sequence[str] | None
) -> Dataset:
    """Returns checked rows with `labels` or `targets`, not both; if both are None, all labels are 0.

    Text labels stay text, even if they are digits. `names` are those of the features; None: default names.

    Raises:
        DataError: shapes do not match, a number is not finite, or a label cannot be used.
    """
    training = dataset(rows, None, names)
    if targets is not None:
        return with_targets(training, targets)
    return training if labels is None else labelled(training, labels)


def labelled(rows: Dataset, labels: Any) -> Dataset:
    """Returns the rows with (n,) or (n, t) labels; text stays text, even if it is digits.

    Raises:
        DataError: a label is missing, or neither an integer nor text; or their number is not that of the rows.
    """
    columns = [_unchanged(column) for column in _columns(rows, labels)]
    if len(columns) == 1:
        return replace(rows, labels=columns[0])
    names = column_names(labels) or default_names(len(columns), "label")
    require_distinct(names, "the labels")
    return with_labels(rows, columns, names)


def _columns(rows: Dataset, labels: Any) -> list[NDArray[Any]]:
    try:
        values, cells = as_array(labels), as_array(labels, object)  # an array of text would hold "nan"
    except TypeError as error:
        raise DataError(f"{rows.source}: the labels are not an array: {error}", hint=_LABELS) from None
    count = len(rows.rows)
    if values.shape[:1] != (count,) or values.ndim > 2 or values.shape[1:] in ((0,), (1,)):
        said = f"{rows.source}: {count} rows, but labels of shape {values.shape}"
        (name, *_) = column_names(labels) or ("",)
        one = f"labels[{name!r}]" if name else "labels.ravel()"
        raise DataError(said, hint=one if values.shape == (count, 1) else _LABELS)
    empty = next((place for place, cell in enumerate(cells.reshape(-1).tolist()) if is_gap(cell)), None)
    if empty is not None:
        said = f"{rows.source}: row {empty // (cells.size // count)}: the label is missing"
        in_pandas = "keep = labels.notna(), then rows[keep] and labels[keep]"
        raise DataError(said, hint=in_pandas if hasattr(labels, "notna") else "leave rows without a label out")
    return list(values.reshape(count, -1).T)


def _unchanged(column: NDArray[Any]) -> NDArray[Any]:
    """Returns (n,) labels as an array of integers or text; raises DataError for labels that this would change."""
    given = column.tolist()
    good = column.dtype.kind not in "mM" and all(isinstance(label, _KINDS) for label in given)
    labels = label_array(given, "arrays") if good else column
    labels = np.array(given) if good and all(isinstance(label, str) for label in given) else labels
    if not good or labels.tolist() != given:
        raise DataError(f"labels of type {column.dtype} are not supported", hint="integers or text: labels.astype(str)")
    return labels


def answered(rows: Dataset, answers: Any, names: tuple[str, ...], known: Known) -> Dataset:
    """Returns test rows with the true `answers`: targets, labels, or several columns of labels, as the model predicts.

    `names` are the model's targets or label columns, and () for a model that answers one label. `known` has the allowed
    labels of each column of a model with several label columns, and is () for any other.
    """
    answers = answers_by_name(answers, names, DataError)
    if names and not known:
        return with_targets(rows, answers, names)
    columns = [label_array(column.tolist(), rows.source) for column in _columns(rows, answers)]
    if len(columns) != max(1, len(names)):
        said = f"{rows.source}: {counted(len(columns), 'column')} of labels, but the model answers {max(1, len(names))}"
        raise DataError(said, hint="give as many columns of labels as the model answers")
    return with_labels(rows, columns, names, known) if known else replace(rows, labels=columns[0])


def _series_name(values: Any) -> tuple[str, ...]:
    """Returns the name of a series of pandas or polars; () if it has none, or `values` is something else."""
    name = getattr(values, "name", None)
    return (name,) if isinstance(name, str) and name and getattr(values, "ndim", 1) == 1 else ()


def default_names(count: int, word: str = "target") -> tuple[str, ...]:
    """Returns names for `count` targets without names: target, or target_0, target_1, ..."""
    return (word,) if count == 1 else tuple(f"{word}_{place}" for place in range(count))

"""Held-out rows of an imported pipeline, read as raw cells.

A classifier whose pipeline has nonlinear steps takes raw cells: numbers, text, and empty cells. Fits nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from device_agent.shared.arguments import require
from device_agent.shared.features.coder import UNUSED, Coder
from device_agent.shared.features.frames import cell_matrix, is_missing
from device_agent.shared.protocol.constants import counted
from device_agent.shared.protocol.table_info import Table
from device_agent.shared.queries import as_numbers, check_raw_rows, column_names, not_numbers, select
from knnkit.config.parse import TestFile
from knnkit.data import files, targets
from knnkit.data.dataset import Dataset, dataset
from knnkit.data.policy import PLAIN
from knnkit.errors import DataError
from knnkit.training.fitted import Fitted
from knnkit.training.table import apply, policy_for, with_unused


def read_held_out(test: TestFile, answers: tuple[str, ...], imported: Fitted, *, named: bool) -> Dataset:
    """Reads a test file, and returns its rows as features of an imported estimator.

    Args:
        test: the test file.
        answers: the label columns or targets of the file.
        imported: the imported estimator.
        named: whether the estimator was fitted with column names; if not, every column of the file is a feature.

    Raises:
        DataError: a column is missing, or a cell cannot be read.
    """
    table, policy = imported.table, PLAIN
    if table is not None and not named:
        source = imported.enrolment.source
        said = f"{source} was fitted on an array, without column names, so its columns in {test.file} are not known"
        where = f"knnkit.from_skops({source!r}).build_release(..., test=(rows, labels))"
        raise DataError(said, hint=f"fit the estimator on a data frame; or in Python: {where}")
    names = imported.enrolment.feature_names if named else None
    if table is not None:
        policy, names = policy_for(table), tuple(column.name for column in table.columns if column.encoding != UNUSED)
    known = imported.enrolment.target_classes
    if not test.target and len(answers) != max(1, len(known)):
        has = counted(max(1, len(known)), "label column")
        said = f"{imported.enrolment.source} answers {has}, and `label` names {len(answers)}"
        columns = ", ".join(["COLUMN"] * max(1, len(known)))
        raise DataError(said, hint=f"test: {{file: {test.file}, label: [{columns}]}}")
    policy = policy.for_answers(answers, are_labels=not test.target)

    def read(label: str, features: Sequence[str] | None) -> Dataset:
        return files.load(test.file, label, features, policy, wide=True)

    if test.target or known:
        found = targets.read(read, answers, names, narrow=False, known=None if test.target else known)
    else:
        found = read(answers[0], names)
    if table is None:
        return found
    return replace(apply(table, with_unused(table, found)), feature_names=imported.enrolment.feature_names)


def features_of(fitted: Fitted, rows: Any, source: str = "rows") -> Dataset:
    """Returns the features of `rows`. A pipeline with nonlinear steps computes them from raw cells.

    The labels of the returned dataset mean nothing. `rows` is an array, nested lists or a data frame, and `source` its
    name in messages.

    Raises:
        DataError: the rows have the wrong columns, or a cell that the model does not accept.
    """
    held = fitted.enrolment
    if fitted.table is None:
        checked = check_raw_rows(rows, held.feature_names, DataError, held.space.origin)
        return Dataset(checked, np.empty(0), held.feature_names, source)
    found = apply(fitted.table, cells(fitted.table, rows, source))
    checked = check_raw_rows(found.rows, held.feature_names, DataError, held.space.origin)
    return replace(found, rows=checked, feature_names=held.feature_names)


def labelled_rows(fitted: Fitted, test: Any) -> Dataset | None:
    """Returns `test`, a pair of rows and their labels or targets, as labelled features; unchanged if None or a Dataset.

    Raises:
        DataError: `test` is not such a pair, or its rows or answers do not fit the classifier.
    """
    if test is None or isinstance(test, Dataset):
        return test
    require(isinstance(test, tuple | list) and len(test) == 2, "test", test, DataError, "test=(rows, labels)")
    (rows, answers), held = test, fitted.enrolment
    raw = features_of(fitted, rows)
    found = dataset(raw.rows, None, held.feature_names, "test", wide=held.space.origin is not None)
    return targets.answered(replace(found, raw=raw.raw), answers, held.target_names, held.target_classes)


def cells(table: Table, rows: Any, source: str = "arrays") -> Dataset:
    """Returns the cells of a data frame or an array as a dataset called `source`, for `table.apply`; labels are 0.

    Raises:
        DataError: the columns are not those of the table, or a cell is text where a number is needed.
    """
    names = [column.name for column in table.columns]
    matrix = cell_matrix(names, rows, DataError, f"{source}: ")
    found, levels, coder = np.full(matrix.shape, np.nan), {}, Coder(table)
    for place, column in enumerate(table.columns):
        if column.encoding == UNUSED:
            continue
        there = np.array([not is_missing(coder, place, cell) for cell in matrix[:, place]], bool)
        values = matrix[there, place].tolist()
        try:
            if column.encoding == "number":
                found[there, place] = as_numbers(values, np.float64)
            else:
                words = [coder.text(place, value) for value in values]
                levels[place], found[there, place] = np.unique(words, return_inverse=True)
        except (TypeError, ValueError) as error:
            said, hint = f"the column {column.name!r} has a cell that is not a number: {error}", ""
            if column_names(rows) is not None:
                said, hint = not_numbers(select(rows, [column.name]), error)
            raise DataError(f"{source}: {said}", hint=hint) from None
    texts = {place: tuple(map(str, each)) for place, each in levels.items()}
    return Dataset(found, np.zeros(len(found), np.int64), tuple(names), source, levels=texts)

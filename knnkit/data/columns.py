"""Chooses label and feature columns; warns of row numbers.

A column that numbers the rows says nothing about their class. As a feature it changes the neighbours silently: rows
that are close in the file become close in the model. Reads no file, and never leaves out a column by itself.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from knnkit.data.dataset import Dataset, shortened
from knnkit.errors import DataError

_MAX_LISTED = 20
_MAX_NAMED = 12
#: A name that needs no quotes in YAML, unless it is one of the words that YAML reads as a value.
_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORDS = frozenset({"false", "n", "no", "null", "off", "on", "true", "y", "yes"})
#: Last words in the names of id columns. The numbers in a column of such a name may have gaps.
_IDS = frozenset({"guid", "id", "idx", "index", "key", "nr", "no", "pk", "row", "rowid", "rownum", "serial", "uuid"})
#: Names that pandas gives an index when it writes a table.
_PANDAS = re.compile(r"__index_level_\d+__|Unnamed: \d+(\.\d+)?")
#: With fewer rows, distinct whole numbers may be chance; the second limit is for columns with the name of an id.
_FEW, _FEW_NAMED = 20, 5
#: From here on, float32 cannot represent every whole number.
_EXACT = 2.0**24


def choose(
    header: list[str], label: str, features: Sequence[str] | None, file: Path, *beside: str | None
) -> tuple[int, list[int]]:
    """Returns the index of the label column and those of the features: `features`, or all other columns but `beside`.

    Raises:
        DataError: a column is missing, or the label is a feature.
    """
    at = find(header, label, file, "label")
    if features is None:
        chosen = [column for column, name in enumerate(header) if column != at and name not in beside]
    else:
        chosen = [find(header, name, file, "features") for name in features]
    if at in chosen:
        raise DataError(f"{file}: {label!r} is the label; it cannot be a feature too", hint="leave it out of features:")
    if not chosen:
        raise DataError(f"{file}: {label!r} is the only column; there is no feature", hint="add columns of numbers")
    return at, chosen


def find(header: list[str], name: str, file: Path, key: str) -> int:
    """Returns the index of the column `name`; `key` is its key in deploy.yaml, for the message.

    Raises:
        DataError: there is no such column; the hint has the closest name.
    """
    if name in header:
        return header.index(name)
    close = difflib.get_close_matches(name, header, n=1, cutoff=0.5)
    if not close:
        close = [other for other in header if other.casefold() == name.casefold()]
    bare = [other.isprintable() and "," not in other for other in header]
    names = ", ".join(other if plain else shortened(other) for other, plain in zip(header[:_MAX_LISTED], bare))
    names += ", ..." if len(header) > _MAX_LISTED else ""
    where = f"{key}: in deploy.yaml, --{key} on the command line"
    hint = f"did you mean {close[0]!r} ({where})?" if close else f"set it to one of them ({where})"
    if not close and len(header) > 1 and sum(map(_is_number, header)) >= len(header) - 1:
        hint += "; if these are numbers of a row, put a header above it"
    raise DataError(f"{file}: no column {name!r}; there are {names}", hint=hint)


def as_yaml(names: Sequence[str]) -> str:
    """Returns column names as a YAML list for `features:`; of many, only the first ones and the last."""
    written = [
        name if _BARE.fullmatch(name) and name.casefold() not in _WORDS else "'" + name.replace("'", "''") + "'"
        for name in names
    ]
    return f"[{', '.join(written if len(written) <= _MAX_NAMED else [*written[:3], '...', written[-1]])}]"


def numbering(rows: Dataset) -> tuple[str, ...]:
    """Returns the features that number the rows: distinct whole numbers, without gaps unless named like an id."""
    return tuple(
        name
        for column, name in enumerate(rows.feature_names)
        if (_indexes if _PANDAS.fullmatch(name) else _numbers)(rows.rows[:, column].astype(np.float64), _is_id(name))
    )


def warnings(rows: Dataset) -> tuple[str, ...]:
    """Returns a warning for each feature that numbers the rows, with the key that leaves it out."""
    found = numbering(rows)
    others = [name for name in rows.feature_names if name not in found]
    return tuple(_warning(rows, name, others) for name in found)


def _warning(rows: Dataset, name: str, others: list[str]) -> str:
    column = rows.rows[:, rows.feature_names.index(name)]
    once = len(np.unique(column)) == len(column)
    how = "each once" if once else "in order" if _goes_up(column) else "in whole numbers"
    said = f"the column {shortened(name)} holds {column.min():.0f} to {column.max():.0f}, {how}, as row numbers do"
    mend = "then there is no other feature"
    if others:
        mend = f"features: {as_yaml(others)} beside `label` in deploy.yaml leaves it out"
    return f"{rows.source}: {said}, and is a feature of the model; {mend}"


def _numbers(column: np.ndarray[tuple[int], np.dtype[np.float64]], named: bool) -> bool:
    count = len(column)
    if count < (_FEW_NAMED if named else _FEW) or not np.array_equal(column, np.floor(column)):
        return False
    distinct = len(np.unique(column))
    if distinct < count:
        return named and distinct > 1 and bool(np.abs(column).max() >= _EXACT) and _goes_up(column)
    return named or bool(column.max() - column.min() == count - 1)


def _indexes(column: np.ndarray[tuple[int], np.dtype[np.float64]], named: bool) -> bool:
    """Whether a column that pandas named is an index: one can have gaps, and repeats where tables were joined."""
    return len(column) >= _FEW_NAMED and bool((column == np.floor(column)).all()) and bool((column != column[0]).any())


def _goes_up(column: np.ndarray[tuple[int], np.dtype[Any]]) -> bool:
    """Whether the numbers never decrease; float32 may make large neighbours equal."""
    return bool((np.diff(column) >= 0).all())


def _is_id(name: str) -> bool:
    words = re.findall(r"[a-z]+|[A-Z]+(?![a-z])|[A-Z][a-z]+", name)
    return bool(words) and words[-1].casefold() in _IDS


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True

"""Columns that number the rows of a file: an id tells a row from the others, and nothing of what it is like.

As a feature it moves neighbours about, silently: rows that follow each other in the file come to lie together. Looks at
numbers and names alone; reads no file, and leaves nothing out by itself.
"""

from __future__ import annotations

import re

import numpy as np

from knnkit.data.columns import as_yaml
from knnkit.data.dataset import Dataset, shortened

#: What the last word of an id's name is. A column of such a name need not count without gaps.
_IDS = frozenset({"guid", "id", "idx", "index", "key", "nr", "no", "pk", "row", "rowid", "rownum", "serial", "uuid"})
#: Fewer rows than these may be told apart by whole numbers by chance; in a column whose name says so, than these.
_FEW, _FEW_NAMED = 20, 5
#: From here on float32 does not tell one whole number from the next.
_EXACT = 2.0**24


def numbering(rows: Dataset) -> tuple[str, ...]:
    """Returns the names of the features that number the rows: each whole number once, without gaps or in a column whose
    name says so."""
    return tuple(
        name
        for column, name in enumerate(rows.feature_names)
        if _numbers(rows.rows[:, column].astype(np.float64), named=_is_id(name))
    )


def warnings(rows: Dataset) -> tuple[str, ...]:
    """Returns what to say of each such column: that it is a feature, and the key that leaves it out."""
    found = numbering(rows)
    others = [name for name in rows.feature_names if name not in found]
    return tuple(_warning(rows, name, others) for name in found)


def _warning(rows: Dataset, name: str, others: list[str]) -> str:
    column = rows.rows[:, rows.feature_names.index(name)]
    how = "each once" if len(np.unique(column)) == len(column) else "in order"
    said = f"the column {shortened(name)} holds {column.min():.0f} to {column.max():.0f}, {how}, as row numbers do"
    mend = "then there is no other feature"
    if others:
        mend = f"features: {as_yaml(others)} beside `label` in deploy.yaml leaves it out"
    return f"{rows.source}: {said}, and is a feature of the model; {mend}"


def _numbers(column: np.ndarray[tuple[int], np.dtype[np.float64]], *, named: bool) -> bool:
    count = len(column)
    if count < (_FEW_NAMED if named else _FEW) or not np.array_equal(column, np.floor(column)):
        return False
    distinct = len(np.unique(column))
    if distinct < count:
        return named and distinct > 1 and bool(np.abs(column).max() >= _EXACT) and _goes_up(column)
    return named or bool(column.max() - column.min() == count - 1)


def _goes_up(column: np.ndarray[tuple[int], np.dtype[np.float64]]) -> bool:
    """Numbers too large for float32 to tell apart, which still do not fall."""
    return bool((np.diff(column) >= 0).all())


def _is_id(name: str) -> bool:
    words = re.findall(r"[a-z]+|[A-Z]+(?![a-z])|[A-Z][a-z]+", name)
    return bool(words) and words[-1].casefold() in _IDS

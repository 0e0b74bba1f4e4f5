"""Missing cells and categories of a table.

A table (`table_info.Table`) lists the raw columns of a model, which are those of the user's file. Here their cells
become numbers: a missing cell the fill value of its column, a category its position in the column's list. `expand` then
computes the model's features. Host and device use this code, so that a cell means the same on both. No I/O.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.features.categories import Codes
from device_agent.shared.protocol.table_info import Column, Table
from device_agent.shared.tabular.csv_dialect import short
from device_agent.shared.tabular.csv_reader import BadCell

if TYPE_CHECKING:
    from device_agent.shared.features.transforms import Transforms

#: What stands in a cell without a value, in any case: what pandas reads as missing. A model keeps its meaning only if
#: this set stays as it is: further words are in `Table.missing_words`.
MISSING = frozenset({"", "nan", "-nan", "na", "<na>", "n/a", "#n/a", "#na", "null", "none"})
#: The code of a category that the table does not list.
UNKNOWN_CATEGORY = -1.0
#: `Column.missing` of a cell that the transforms take.
KEEP = "keep"
#: `Column.encoding` of a column that the pipeline drops.
UNUSED = "unused"
#: `Coder.last` of a row with nothing to count.
NONE = (0, 0)
_MAX_LISTED = 6
#: Columns that are reported by name; then one line stands for all others.
_MAX_TOLD = 10
_MORE = "further columns have missing cells or unknown categories; status counts them all"


def is_missing(text: str, words: Collection[str]) -> bool:
    """Whether a cell has no value: in lower case, without blanks around it, it is in `MISSING` or in `words`."""
    word = text.strip().casefold()
    return word in MISSING or word in words


def missing_cell(text: str) -> str:
    """Returns the message for `text`, a cell without a value."""
    return f"{short(text)} stands for a missing value" if text else "the cell is empty"


def feature_names(table: Table) -> tuple[str, ...]:
    """Returns the names of a table's features; a one-hot column has one named `column=category` for each category."""
    names: list[str] = []
    for column in table.columns:
        hot = column.encoding == "one-hot"
        names += [f"{column.name}={category}" for category in column.categories] if hot else [column.name]
    return tuple(names)


def expand(columns: Sequence[Column], rows: NDArray[Any]) -> NDArray[Any]:
    """Returns the (n, n_features) features of (n, n_columns) numbers and category codes, in the type of `rows`."""
    if all(column.encoding != "one-hot" for column in columns):
        return rows
    parts = []
    for place, column in enumerate(columns):
        values = rows.reshape(-1, len(columns))[:, place : place + 1]
        hot = column.encoding == "one-hot"
        parts.append((values == np.arange(len(column.categories))).astype(rows.dtype) if hot else values)
    return np.ascontiguousarray(np.concatenate(parts, axis=1))


def collapse(columns: Sequence[Column], features: Sequence[float]) -> list[float | str | None]:
    """Returns the raw cells of one row of features, one for each of `columns`.

    The inverse of `expand`, with categories as text: None if the table does not list the category. A missing cell
    appears as the value that filled it.
    """
    cells: list[float | str | None] = []
    rest = iter(features)
    for column in columns:
        if column.encoding in ("number", UNUSED):
            cells.append(next(rest))
        elif column.encoding == "one-hot":
            hot = [text for text, value in zip(column.categories, rest) if value == 1.0]
            cells.append(hot[0] if hot else None)
        else:
            code = next(rest)
            cells.append(column.categories[int(code)] if code >= 0.0 else None)
    return cells


def transforms_of(table: Table) -> Transforms | None:
    """Returns the transforms of a table, ready to run; None if it has none. Imports their code only when needed."""
    if not table.transforms:
        return None
    from device_agent.shared.features.transforms import Transforms

    return Transforms(table.transforms)


class Coder:
    """Reads the cells of a model's raw columns; counts missing cells that it fills and unknown categories.

    Attributes:
        filled: column -> number of its missing cells that were filled.
        unknown: column -> number of its cells with a category that the table does not list.
        last: (number of missing cells, number of unknown categories) of the last good row.
        transforms: transforms of the table; None if it has none.
    """

    def __init__(self, table: Table, dtype: type[np.floating[Any]] = np.float32) -> None:
        self.names = tuple(column.name for column in table.columns)
        self.filled: dict[str, int] = {}
        self.unknown: dict[str, int] = {}
        self.last = NONE
        self._row: list[tuple[dict[str, int], int, str]] = []
        self._news: list[str] = []
        self._said: set[str] = set()
        self.use(table, dtype)

    def use(self, table: Table, dtype: type[np.floating[Any]]) -> None:
        """Switches to the table of another release with the same columns; keeps the counts."""
        self._table, self._dtype, self.transforms = table, dtype, transforms_of(table)
        exact = bool(table.transforms)  # of an estimator, whose encoder knows one spelling
        self._codes = [Codes(column.categories, exact=exact) for column in table.columns]

    @property
    def thousands(self) -> str:
        """The thousands separator in numbers; "" if there is none."""
        return self._table.thousands

    def is_number(self, index: int) -> bool:
        """Whether the cells of a column are numbers."""
        return self._table.columns[index].encoding == "number"

    def categories(self, index: int) -> tuple[str, ...]:
        """Returns the categories of a column; () for a column of numbers."""
        return self._table.columns[index].categories

    def _is_unused(self, index: int) -> bool:
        return self._table.columns[index].encoding == UNUSED

    def is_missing(self, index: int, text: str) -> bool:
        """Whether a cell of a column has no value. A listed category is a value, even if its name is `NA` or empty."""
        missing = is_missing(text, self._table.missing_words)
        return missing and text not in self._codes[index].exactly and not self._is_unused(index)

    def codes(self, index: int, cells: Sequence[str]) -> list[float] | None:
        """Returns the category codes of a column's cells; None if a cell is missing or not a listed category."""
        if self._is_unused(index):
            return [0.0] * len(cells)
        codes = self._codes[index]
        found = list(map(codes.exactly.get, cells))
        found = list(map(codes.get, cells)) if None in found else found
        return None if None in found else found  # type: ignore[return-value]

    def missing(self, index: int, text: str = "") -> float:
        """Returns the fill value for a missing cell, or NaN if a transform fills it; `end_row` counts the cell.

        Raises:
            BadCell: the model does not fill missing cells of this column.
        """
        column = self._table.columns[index]
        if column.missing == KEEP:
            self._row.append(
                (self.filled, index, f"{short(column.name)} is missing: the pipeline of the model fills it")
            )
            return math.nan
        if column.fill is None:
            self._row.clear()
            hint = f"fill the cell, or build with missing: median in place of missing: {column.missing}"
            raise BadCell(index, missing_cell(text), hint)
        place = int(column.fill)
        value = f"{column.fill:.7g}" if column.encoding == "number" else short(column.categories[place])
        self._row.append((self.filled, index, f"{short(column.name)} is missing: filled with {value}"))
        return column.fill

    def category(self, index: int, text: str) -> float:
        """Returns the code of a category; `UNKNOWN_CATEGORY` if the table does not list it and such rows are allowed.

        Raises:
            BadCell: the table does not list the category, and refuses such rows.
        """
        column, code = self._table.columns[index], self._codes[index].get(text)
        if column.encoding == UNUSED:
            return 0.0
        if code is not None:
            return code
        if (column.unknown or self._table.unknown_category) == "refuse":
            self._row.clear()
            more = ", ..." if len(column.categories) > _MAX_LISTED else ""
            known = ", ".join(map(short, column.categories[:_MAX_LISTED])) + more
            hint = f"the model has {known}; to allow others, build with unknown_category: ignore"
            raise BadCell(index, f"{short(text)} is not a category of the model", hint)
        self._row.append((self.unknown, index, f"{short(column.name)} has the unknown category {short(text)}: ignored"))
        return UNKNOWN_CATEGORY

    def bad(self, error: BadCell, cell: str) -> float:
        """Raises `error`, about a bad cell; discards the counts of its row."""
        self._row.clear()
        sign = self._table.thousands
        if sign and sign in cell and not error.hint:
            other = "decimal points" if sign != "." else "decimal commas, and semicolons between the columns"
            error.hint = f"{sign!r} separates thousands in this model: write {other}; or give JSON lines"
        raise error

    def value(self, index: int, value: Any) -> float | None:
        """Returns the number for a JSON value that is missing or a category; 0 if the column is unused.

        Returns None if it should be a number: the caller must parse it.

        Raises:
            BadCell: the model refuses the missing cell or the unknown category, or a category is a list or an object.
        """
        if self._is_unused(index):
            return 0.0
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return self.missing(index)
        if isinstance(value, str) and self.is_missing(index, value.strip()):
            return self.missing(index)
        if self.is_number(index):
            return None
        if isinstance(value, list | dict):
            raise BadCell(index, f"{short(json.dumps(value))} is not a category")
        return self.category(index, self.text(index, value))

    def text(self, index: int, value: Any) -> str:
        """Returns the text of a value of JSON, Python or NumPy, to look it up among the categories of a column.

        JSON's true becomes `True`, or the category that differs only in case (`true`); 3.0 becomes `3`, unless `3.0` is
        a category; 3 becomes `3.0` if only `3.0` is one: pandas turns whole numbers into floats if a cell is missing.
        """
        if isinstance(value, np.floating):
            value = float(str(value))  # 0.1 in float32 is no more than 0.1
        elif isinstance(value, np.generic):
            value = value.item()
        text = str(value).strip()
        if isinstance(value, bool):
            return next((known for known in self._codes[index].exactly if known.casefold() == text.casefold()), text)
        known = self._codes[index].exactly
        if isinstance(value, float) and value.is_integer() and text not in known:
            return str(int(value))
        whole = isinstance(value, int) and text not in known and f"{text}.0" in known
        return f"{text}.0" if whole else text

    def end_row(self) -> None:
        """Adds the fills and unknown categories of a good row to the counts."""
        if self._row:
            missing = sum(counts is self.filled for counts, _, _ in self._row)
            self.last = missing, len(self._row) - missing
        for counts, index, said in self._row:
            name, kind = self.names[index], f"{counts is self.filled} {index}"
            if kind not in self._said and len(self._said) <= _MAX_TOLD:
                self._news.append(said if len(self._said) < _MAX_TOLD else _MORE)
            self._said.add(kind)
            counts[name] = counts.get(name, 0) + 1
        self._row.clear()

    def drop_row(self) -> None:
        """Discards the uncounted fills and unknown categories of a row that is bad."""
        self._row.clear()

    def take_news(self) -> list[str]:
        """Returns the new messages since the last call."""
        news, self._news = self._news, []
        return news

    def take_counts(self) -> dict[str, dict[str, int]]:
        """Returns, as `filled` and `unknown`, column -> number of filled cells and unknown categories; resets both."""
        taken = {"filled": self.filled, "unknown": self.unknown}
        self.filled, self.unknown = {}, {}
        return taken

    def expand(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Returns the (n, n_features) features of (n, n_columns) numbers and category codes."""
        if not len(rows):
            return rows
        features = expand(self._table.columns, rows)
        if self.transforms is None:
            return features
        with np.errstate(over="ignore"):
            return self.transforms(features).astype(self._dtype)

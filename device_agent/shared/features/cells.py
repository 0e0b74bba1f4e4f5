"""CSV columns whose cells may be missing or categories.

Raw columns are those of the user's file, from which the features of a model are computed.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from device_agent.shared.tabular.csv_dialect import Decimals, has_controls, is_number
from device_agent.shared.tabular.csv_reader import BadCell, Block, Columns

#: Other characters that spreadsheets write for a separator of thousands.
_ALSO = {" ": "\u00a0\u202f\u2009", "'": "\u2019"}


def without_thousands(text: str, sign: str) -> str | None:
    """Returns the number `text` without its thousands separators (`sign`): `1234` for `1,234`.

    Returns None if a separator is in a wrong place: `12,34`, or `0,395`, which must be a decimal comma. For a blank or
    an apostrophe as `sign`, also accepts the no-break space or typographic apostrophe that spreadsheets write.
    """
    for other in _ALSO.get(sign, ""):
        text = text.replace(other, sign)
    if sign not in text:
        return text
    grouped = re.fullmatch(rf"[+-]?[1-9]\d{{0,2}}(?:{re.escape(sign)}\d{{3}})+(?:[.,]\d*)?", text)
    return text.replace(sign, "") if grouped else None


class CellCoder(Protocol):
    """Reads cells that are not plain numbers; `index` is the index of a raw column.

    A device uses `Coder`, which raises BadCell for a bad cell. The host's coder learns categories; for a bad cell, it
    records the error and returns NaN.
    """

    @property
    def thousands(self) -> str:
        """The thousands separator in numbers; "" if there is none."""

    def is_number(self, index: int) -> bool:
        """Whether the cells of a column are numbers."""

    def is_missing(self, index: int, text: str) -> bool:
        """Whether a cell has no value."""

    def codes(self, index: int, cells: Sequence[str]) -> list[float] | None:
        """Returns the category codes of a column's cells; None: read each by `missing` or `category`."""

    def missing(self, index: int, text: str) -> float:
        """Returns the number for `text`, a missing cell of a column."""

    def category(self, index: int, text: str) -> float:
        """Returns the code of the category `text` of a column."""

    def bad(self, error: BadCell, cell: str) -> float:
        """Raises `error`, about a bad `cell`; or records it, and returns a number for the cell."""

    def end_row(self) -> None:
        """Ends a row: called after its last cell."""


class Cells(Columns):
    """The raw columns of one table, some of them categories.

    Args:
        separator: the character between columns.
        count: number of columns in a line.
        places: positions of the raw columns in a line, in the order of the result.
        coder: turns cells that are not plain numbers into numbers.
        texts: positions of the columns to return as text.
    """

    def __init__(
        self,
        separator: str,
        count: int,
        places: Sequence[int],
        coder: CellCoder,
        texts: Sequence[int] = (),
        dtype: type[np.floating[Any]] = np.float32,
    ) -> None:
        self._coder, self._n_texts = coder, len(texts)
        numeric = [index for index in range(len(places)) if coder.is_number(index)]
        self._categories = [index for index in range(len(places)) if not coder.is_number(index)]
        numbers = [places[index] for index in numeric] or places[:1]
        super().__init__(separator, count, numbers, [*texts, *(places[index] for index in self._categories)], dtype)
        self.numbers, self.numeric, self._decimals = places, numeric, Decimals(separator, coder.thousands)

    def read_block(self, block: bytes) -> Block | None:
        """Returns the numbers (with category codes) of whole lines, and the text of columns that are copied as text.

        None if a cell, such as a missing one, needs `read_fields`, which reads each line alone.
        """
        found = super().read_block(block) if self.numeric and not self._coder.thousands else None
        if found is None or not self._categories:
            return found
        numbers, texts = found
        table = np.empty((len(numbers), len(self.numbers)), numbers.dtype)
        table[:, self.numeric] = numbers
        for index, cells in zip(self._categories, texts[self._n_texts :]):
            codes = self._coder.codes(index, [cell.strip() for cell in cells])
            if codes is None:
                return None
            table[:, index] = codes
        return table, texts[: self._n_texts]

    def read_fields(self, fields: Sequence[str]) -> list[float]:
        """Returns the numbers and codes of the cells of one line.

        Raises:
            BadCell: a cell is not a number or a known category, and the model has no value for such a cell.
            BadInput: the numbers have different decimal separators.
        """
        if not (self._categories or self._coder.thousands):
            with contextlib.suppress(BadCell):  # nearly every line has plain numbers alone
                return super().read_fields(fields)
        cells = [cell if has_controls(cell) else cell.strip() for cell in map(fields.__getitem__, self.numbers)]
        there = [index for index in self.numeric if not self._coder.is_missing(index, cells[index])]
        plain = {index: self._without_thousands(cells[index]) for index in there}
        pointed = dict(zip(there, self._decimals.pointed(list(plain.values()))))
        values = [self._value(index, cell, pointed.get(index)) for index, cell in enumerate(cells)]
        self._coder.end_row()
        return values

    def are_cells(self, fields: Sequence[str]) -> bool:
        """Whether each field of a number column is missing, or looks like a number."""
        cells = ((index, fields[self.numbers[index]].strip()) for index in self.numeric)
        return all(
            self._coder.is_missing(index, cell) or is_number(self._without_thousands(cell), self.separator)
            for index, cell in cells
        )

    def is_row(self, fields: Sequence[str]) -> bool:
        """Whether each cell is missing, a number, or a category that the model has."""
        cells = ((index, fields[self.numbers[index]].strip()) for index in self._categories)
        known = all(self._coder.is_missing(index, cell) or self._coder.codes(index, [cell]) for index, cell in cells)
        return known and self.are_cells(fields)

    def _without_thousands(self, cell: str) -> str:
        """Returns a cell without thousands separators; if one is misplaced, text that is not a number."""
        found = without_thousands(cell, self._coder.thousands) if self._coder.thousands else cell
        return f"{cell!r}" if found is None else found

    def _value(self, index: int, cell: str, pointed: str | None) -> float:
        if pointed is None:
            missing = self._coder.is_missing(index, cell)
            return self._coder.missing(index, cell) if missing else self._coder.category(index, cell)
        try:
            return self._read_cell(index, pointed, cell)
        except BadCell as error:
            return self._coder.bad(error, cell)

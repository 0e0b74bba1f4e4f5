"""Parsers of rows with missing cells and categories.

They follow the rules of the plain parsers for headers, separators and lines. Loaded only for a model that has a table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.features.cells import Cells
from device_agent.shared.features.coder import NONE, Coder
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.protocol.record import replace
from device_agent.shared.protocol.table_info import Table
from device_agent.shared.queries import row_type
from device_agent.shared.tabular.csv_dialect import short
from device_agent.shared.tabular.csv_reader import BadCell, Columns, CsvParser
from device_agent.shared.tabular.json_reader import JsonParser
from device_agent.shared.tabular.reader import Counts, Line, Parsed, Parser, without_rows

if TYPE_CHECKING:
    from device_agent.shared.embedding.chain import Chain

#: Takes, once for each column, the line about what is filled or ignored in it.
Tell = Callable[[str], None]


class _TableParser(Parser):
    """Base of the CSV and JSON parsers: `Parsed.rows` are the features that the table computes from the cells.

    Args:
        tell: function called with a message, once for each column with filled cells or ignored categories.
        options: `ignore_extra`, whether to ignore columns that the model does not have; `keep`, columns whose values
            are returned with each row.

    Attributes:
        counted: whether `Parsed.kept` ends with (number of filled cells, number of unknown categories) of each row.
    """

    counted = False

    def __init__(
        self, table: Table, dtype: type[np.floating[Any]] = np.float32, *, tell: Tell = lambda _: None, **options: Any
    ) -> None:
        self.coder, self._tell = Coder(table, dtype), tell
        self._plain = all(map(self.coder.is_number, range(len(self.coder.names))))
        cells = np.float64 if table.transforms else dtype
        super().__init__(self.coder.names, cells, **options)

    def parse(self, block: bytes) -> Parsed:
        """Parses a block of lines, with a newline at its end."""
        parsed = super().parse(block)
        for said in self.coder.take_news():
            self._tell(said)
        counts = [[NONE] * len(parsed.rows)] if len(parsed.kept) < len(self._keep) + self.counted else []
        parsed = replace(parsed, rows=self.coder.expand(parsed.rows), kept=[*parsed.kept, *counts])
        if self.coder.transforms is None or not len(parsed.rows):
            return parsed
        bad = np.flatnonzero(~np.isfinite(parsed.rows).all(axis=1)).tolist()
        error = BadInput("the pipeline turns the row into NaN or infinity in float32")
        return without_rows(parsed, dict.fromkeys(bad, error))

    def _parse_line(self, line: bytes) -> Line:
        self.coder.last = NONE
        numbers, kept = super()._parse_line(line)
        return numbers, [*kept, self.coder.last] if self.counted else kept

    def take_counts(self) -> Counts:
        """Returns kind of count (`filled`, `unknown`, `left_out`) -> {column: count since the last call}."""
        return {**self.coder.take_counts(), "left_out": self.left_out.take()}

    def follow(self, info: KnnInfo, chain: Chain | None) -> None:
        """Switches to the table of another model, in its knn.json `info`; keeps the counts. Does not use `chain`."""
        super().follow(info, chain)
        self.coder.use(info.table or Table(()), row_type(info.origin))


class TableCsvParser(_TableParser, CsvParser):
    """Parses CSV lines of raw columns, those of the user's file."""

    def _hash_begins_rows(self) -> bool:
        return any(text.startswith("#") for text in self.coder.categories(0))

    def _make_columns(self, separator: str, count: int, numbers: Sequence[int]) -> Columns:
        return Cells(separator, count, numbers, self.coder, self._kept)


class TableJsonParser(_TableParser, JsonParser):
    """Parses JSON lines of raw columns, those of the user's file; an absent key is a missing cell."""

    def _parse_plain(self, block: bytes) -> NDArray[Any] | None:
        return super()._parse_plain(block) if self._plain else None

    def _from_object(self, found: dict[str, Any]) -> list[Any]:
        return super()._from_object({**dict.fromkeys(self._names), **found})

    def _read_values(self, values: Sequence[Any]) -> list[float]:
        try:
            numbers = super()._read_values(values)
        except BadInput:
            self.coder.drop_row()
            raise
        self.coder.end_row()
        return numbers

    def _read_value(self, index: int, value: Any) -> float:
        try:
            found = self.coder.value(index, value)
        except BadCell as error:
            raise BadInput(f"value {index + 1} ({self._names[index]!r}): {error}", hint=error.hint) from None
        return super()._read_value(index, value) if found is None else found


def read_array(coder: Coder, rows: NDArray[Any], before: int = 0) -> NDArray[Any]:
    """Returns the features of (n, n_columns) numbers, in which NaN is a missing cell; infinity is not changed.

    `before` is the number of rows before these, for messages.

    Raises:
        BadInput: a cell is missing, and the model does not fill it; or the model has categories.
    """
    category = next((index for index in range(len(coder.names)) if not coder.is_number(index)), None)
    if category is not None:
        hint = "give the rows as CSV or JSON lines"
        said = f"the column {short(coder.names[category])} takes a category, but the array has only numbers"
        raise BadInput(said, hint=hint)
    filled = np.array(rows)
    for row, index in zip(*map(np.ndarray.tolist, np.nonzero(np.isnan(filled)))):
        try:
            filled[row, index] = coder.missing(index)
        except BadCell as error:
            said = f"rows[{before + row}, {index}] ({short(coder.names[index])}): {error}"
            raise BadInput(said, hint=error.hint) from None
        coder.end_row()
    return coder.expand(filled)

"""CSV in, rows out, a block of whole lines at a time.

A block of plain numbers is read at once; anything else (a quote, a word, a wrong count) falls back to line by line,
where each bad line is named with its number and column. Both ways give the same numbers, correctly rounded. Never reads
from anywhere, and never lets a value through that is not a finite float32.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.tabular import csv_dialect
from device_agent.shared.tabular.csv_dialect import Decimals, fields_of, listed, text_of
from device_agent.shared.tabular.float_parser import read_table
from device_agent.shared.tabular.reader import Parsed, checked, line_by_line, more, plain_numbers, short

_MARK = b"\xef\xbb\xbf"


class CsvParser:
    """Rows of numbers with commas, semicolons or tabs between them, with or without a header line.

    With a header, columns are matched by feature name, in any order. The first line that fits the model says what
    stands between the columns.

    Args:
        info: of the model.
        ignore_extra: whether columns that the model does not know are left out instead of refused.
    """

    def __init__(self, info: KnnInfo, *, ignore_extra: bool = False) -> None:
        self.header: bool | None = None
        self.line = 0
        self._names = info.feature_names
        self._places = set(info.feature_names)
        self._ignore_extra = ignore_extra
        self._order: list[int] | None = None
        self._columns = info.n_features
        self._separator: str | None = None
        self._decimals = Decimals(",")

    def parse(self, block: bytes) -> Parsed:
        """Parses a block that ends with a newline.

        Raises:
            BadInput: the header does not fit the model.
        """
        if self.header is None:
            block = self._take_header(block)
        rows = self._parse_plain(block)
        if rows is not None:
            self.line += len(rows)
            return Parsed(rows, len(rows))
        return line_by_line(self, block, self._parse_line)

    # --- the header -----------------------------------------------------------------------------------------------
    def _take_header(self, block: bytes) -> bytes:
        while block:
            line, _, rest = block.partition(b"\n")
            if not line.strip() or (self.line == 0 and _names_separator(line)):
                self.line, block = self.line + 1, rest
                continue
            return self._look_at_first(line.removeprefix(_MARK), rest)
        return block

    def _look_at_first(self, line: bytes, rest: bytes) -> bytes:
        """A first line that names no feature is a row, good or bad: a serial port may start with anything."""
        try:
            text = text_of(line.strip(b"\r "))
            separator = csv_dialect.separator_of_header(text, self._names)
        except BadInput:
            separator = None
        self.header = separator is not None
        if separator is None:
            return line + b"\n" + rest
        self.line += 1
        self._separate_by(separator)
        self._match([name.strip() for name in fields_of(text, separator)])
        return rest

    def _separate_by(self, separator: str) -> None:
        self._separator, self._decimals = separator, Decimals(separator)

    def _match(self, names: list[str]) -> None:
        while not names[-1]:
            names.pop()  # a spreadsheet had something there once
        counts = Counter(names)  # a header may have as many names as a line holds
        missing = [name for name in self._names if name not in counts]
        extra = [name for name in counts if name not in self._places]
        twice = [name for name, count in counts.items() if name and count > 1]
        if missing:
            near = csv_dialect.alike(missing[0], names)
            raise BadInput(
                f"line {self.line}: the header has no column {missing[0]!r}{more(missing)}"
                + (f"; {near!r} is another name" if near else ""),
                hint=f"the model takes the columns {listed(self._names)}",
            )
        if twice:
            raise BadInput(f"line {self.line}: the header names the column {short(twice[0])} twice")
        if extra and not self._ignore_extra:
            known = f"no column {short(extra[0])}" if extra[0] else f"no column without a name ({names.index('') + 1})"
            raise BadInput(
                f"line {self.line}: the model knows {known}{more(extra)}",
                hint="--ignore-extra leaves out the columns that the model does not know",
            )
        self._columns = len(names)
        order = [names.index(name) for name in self._names]
        self._order = None if order == list(range(len(names))) else order

    # --- the rows -------------------------------------------------------------------------------------------------
    def _parse_plain(self, block: bytes) -> NDArray[np.float32] | None:
        """The fast way: None unless every line is `_columns` plain finite numbers."""
        text: bytes | None = block.replace(b"\r\n", b"\n") if b"\r" in block else block
        if self._separator not in (None, ","):
            text = self._decimals.pointed_block(text or b"", self._separator or "")
        table = None if text is None else read_table(text, self._columns, _read_fields)
        if table is None or self._order is None:
            return table
        return np.ascontiguousarray(table[:, self._order])

    def _parse_line(self, line: bytes) -> list[float]:
        text = text_of(line)
        if self._separator is None:
            found = csv_dialect.separator_of_row(text, self._columns)
            if found:
                self._separate_by(found)
        separator = self._separator or ","
        fields = csv_dialect.without_tail(fields_of(text, separator), self._columns)
        self._require_row(fields)
        order = self._order or range(len(self._names))
        shown = [fields[place] for place in order]
        cells = shown if separator == "," else self._decimals.pointed(shown)
        places = zip(order, self._names)
        return [_number(cell, text, place, name) for cell, text, (place, name) in zip(cells, shown, places)]

    def _require_row(self, fields: list[str]) -> None:
        if len(fields) != self._columns:
            hint = f"the model takes {listed(self._names)}"
            if len(fields) > self._columns and not self.header:
                hint += "; under a header line, --ignore-extra leaves out other columns"
            raise BadInput(
                f"expected {self._columns} columns, found {len(fields)}{self._no_header(fields)}",
                hint="" if self.header else hint,
            )
        if not any(map(str.strip, fields)):
            raise BadInput("its cells are all empty", hint="take the line out")
        if self.line == 1 and self._no_header(fields):
            raise BadInput(f"not numbers{self._no_header(fields)}", hint=f"the model takes {listed(self._names)}")

    def _no_header(self, fields: list[str]) -> str:
        """What to add about a first line of words."""
        if self.header or self.line > 1 or any(csv_dialect.is_number(text, ";") for text in fields):
            return ""
        names = [text.strip() for text in fields]
        near = next(((own, found) for own in self._names if (found := csv_dialect.alike(own, names))), None)
        said = f"{near[1]!r} is not {near[0]!r}" if near else "it names none of the columns that the model takes"
        return f", and no header either: {said}"


def _names_separator(line: bytes) -> bool:
    """Whether it is the line `sep=;`, by which a spreadsheet tells itself what follows."""
    return line.removeprefix(_MARK).strip() in (b"sep=,", b"sep=;", b"sep=")


def _read_fields(fields: list[bytes]) -> list[float]:
    return list(map(float, plain_numbers(fields)))


def _number(cell: str, shown: str, place: int, name: str) -> float:
    """Returns the number that a cell is, `shown` in messages as its file has it."""
    try:
        value = csv_dialect.number(cell)
    except ValueError:
        why = f"{short(shown)} is not a number{_because(cell, shown)}" if shown.strip() else "the cell is empty"
        raise BadInput(f"{_where(place, name)}: {why}") from None
    return checked(value, shown, _where(place, name))


def _where(place: int, name: str) -> str:
    return f"column {place + 1} ({short(name)})"


def _because(cell: str, text: str) -> str:
    plain = csv_dialect.in_ascii(cell)
    if plain is not None:
        return f": write {plain}, with the digits 0 to 9"
    if "," in text and "." in text:
        return ": leave out the sign between thousands"
    return ": a decimal comma needs semicolons or tabs between the columns" if csv_dialect.is_number(text, ";") else ""

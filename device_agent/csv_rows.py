"""CSV in, rows out, a block of whole lines at a time.

A block of plain numbers is read at once; anything else (a quote, a word, a wrong count) falls back to line by line,
where each bad line is named with its number and column. Both ways give the same numbers, correctly rounded. Never reads
from anywhere, and never lets a value through that is not a finite float32.
"""

from __future__ import annotations

import csv
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from device_agent.contract import KnnInfo
from device_agent.decimals import read_table
from device_agent.errors import BadInput
from device_agent.rows import Parsed, checked, line_by_line, more, plain_numbers, short


class CsvParser:
    """Rows of numbers with commas between them, with or without a header line.

    With a header, columns are matched by feature name, in any order.

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

    def _take_header(self, block: bytes) -> bytes:
        while block:
            line, _, rest = block.partition(b"\n")
            if line.strip():
                break
            self.line, block = self.line + 1, rest
        else:
            return block
        line = line.removeprefix(b"\xef\xbb\xbf")
        self.header = self._names_a_feature(line)
        if not self.header:
            return line + b"\n" + rest
        self.line += 1
        self._match([name.strip() for name in self._fields(line)])
        return rest

    def _names_a_feature(self, line: bytes) -> bool:
        """A first line that names no feature is a row, good or bad: a serial port may start with anything."""
        try:
            return any(text.strip() in self._names for text in self._fields(line))
        except BadInput:
            return False

    def _match(self, names: list[str]) -> None:
        counts = Counter(names)  # a header may have as many names as a line holds
        missing = [name for name in self._names if name not in counts]
        extra = [name for name in counts if name not in self._places]
        twice = [name for name, count in counts.items() if count > 1]
        if missing:
            raise BadInput(
                f"line {self.line}: the header has no column {missing[0]!r}{more(missing)}",
                hint=f"the model takes the columns {', '.join(self._names)}",
            )
        if twice:
            raise BadInput(f"line {self.line}: the header names the column {twice[0]!r} twice")
        if extra and not self._ignore_extra:
            raise BadInput(
                f"line {self.line}: the model knows no column {extra[0]!r}{more(extra)}",
                hint="--ignore-extra leaves out the columns that the model does not know",
            )
        self._columns = len(names)
        order = [names.index(name) for name in self._names]
        self._order = None if order == list(range(len(names))) else order

    def _parse_plain(self, block: bytes) -> NDArray[np.float32] | None:
        """The fast way: None unless every line is `_columns` plain finite numbers."""
        text = block.replace(b"\r\n", b"\n") if b"\r" in block else block
        table = read_table(text, self._columns, _read_fields)
        if table is None or self._order is None:
            return table
        return np.ascontiguousarray(table[:, self._order])

    def _parse_line(self, line: bytes) -> list[float]:
        fields = self._fields(line)
        if len(fields) != self._columns:
            raise BadInput(f"expected {self._columns} columns, found {len(fields)}{self._no_header(fields)}")
        order = self._order or range(len(self._names))
        if self.line == 1 and self._no_header(fields):
            raise BadInput(f"not numbers{self._no_header(fields)}")
        return [_number(fields[place], f"column {place + 1} ({name!r})") for place, name in zip(order, self._names)]

    def _no_header(self, fields: list[str]) -> str:
        """What to add about a first line of words."""
        if self.header or self.line > 1 or any(_is_number(text) for text in fields):
            return ""
        return f", and no header either: it names none of the columns {', '.join(self._names)}"

    @staticmethod
    def _fields(line: bytes) -> list[str]:
        try:
            text = line.decode("utf-8")
            return next(csv.reader([text], strict=True), [])
        except (UnicodeDecodeError, csv.Error) as error:
            raise BadInput(f"not a line of CSV: {error}") from None


def _read_fields(fields: list[bytes]) -> list[float]:
    return list(map(float, plain_numbers(fields)))


def _number(text: str, where: str) -> float:
    try:
        value = float(text.replace("_", "?"))
    except ValueError:
        raise BadInput(f"{where}: {short(text)} is not a number") from None
    return checked(value, text, where)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

"""Text in, rows out: CSV and JSON lines, a block of whole lines at a time.

A block of plain numbers is parsed by numpy at once; anything else (a quote, a word, a wrong count) falls back to line
by line, where each bad line is named with its number and column. Both ways give the same numbers, correctly rounded.
Never reads from anywhere, and never lets a value through that is not a finite float32.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from device_agent.contract import KnnInfo
from device_agent.errors import BadInput

_MAX_FLOAT32 = float(np.finfo(np.float32).max)
_NUMBER_BYTES = b"0123456789+-.eE \t\n,"
#: Where numpy would read -1: a field, or a line, of blanks.
_BLANK_FIELD = re.compile(rb"(?:^|[,\n])[ \t]+[,\n]")
_COMMA, _NEWLINE = 0x2C, 0x0A


@dataclass(frozen=True)
class Parsed:
    """What a block of lines holds: `count` lines that are not blank, in order.

    Attributes:
        rows: (n, n_features) float32, those that are good.
        count: how many answers the block asks for, bad lines among them.
        errors: place among the `count` lines -> (line number, what is wrong with it).
    """

    rows: NDArray[np.float32]
    count: int
    errors: dict[int, tuple[int, str]] = field(default_factory=dict)


class Parser(Protocol):
    """Turns blocks of whole lines into rows; remembers the header and how many lines went by."""

    header: bool | None
    line: int

    def parse(self, block: bytes) -> Parsed:
        """Parses a block that ends with a newline."""


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
        return _line_by_line(self, block, self._parse_line)

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
                f"line {self.line}: the header has no column {missing[0]!r}{_more(missing)}",
                hint=f"the model takes the columns {', '.join(self._names)}",
            )
        if twice:
            raise BadInput(f"line {self.line}: the header names the column {twice[0]!r} twice")
        if extra and not self._ignore_extra:
            raise BadInput(
                f"line {self.line}: the model knows no column {extra[0]!r}{_more(extra)}",
                hint="--ignore-extra leaves out the columns that the model does not know",
            )
        self._columns = len(names)
        order = [names.index(name) for name in self._names]
        self._order = None if order == list(range(len(names))) else order

    def _parse_plain(self, block: bytes) -> NDArray[np.float32] | None:
        """The fast way: None unless every line is `_columns` plain finite numbers."""
        block = block.replace(b"\r\n", b"\n")
        if block.translate(None, _NUMBER_BYTES):
            return None
        if block.count(b"\n") == 1:
            return self._parse_one(block)
        codes = np.frombuffer(block, np.uint8)
        ends = codes[(codes == _COMMA) | (codes == _NEWLINE)]
        if not len(ends) or len(ends) % self._columns:
            return None
        ends = ends.reshape(-1, self._columns)
        if not (ends[:, -1] == _NEWLINE).all() or (ends[:, :-1] == _NEWLINE).any():
            return None
        if (b" " in block or b"\t" in block) and _BLANK_FIELD.search(block):
            return None
        values = _numbers(block.replace(b"\n", b","))
        if values is None or len(values) != ends.size:
            return None
        table = values.reshape(ends.shape)
        return np.ascontiguousarray(table if self._order is None else table[:, self._order])

    def _parse_one(self, line: bytes) -> NDArray[np.float32] | None:
        """One plain line: arrays of a handful of numbers cost more than the numbers."""
        fields = line.split(b",")
        if len(fields) != self._columns:
            return None
        try:
            values = [float(field) for field in fields]
        except ValueError:
            return None
        if self._order is not None:
            values = [values[place] for place in self._order]
        return _finite(np.array([values], np.float64))

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


class JsonParser:
    """One JSON array, or one object with the feature names as keys, on each line."""

    def __init__(self, info: KnnInfo, *, ignore_extra: bool = False) -> None:
        self.header: bool | None = False
        self.line = 0
        self._names = info.feature_names
        self._places = set(info.feature_names)
        self._ignore_extra = ignore_extra

    def parse(self, block: bytes) -> Parsed:
        """Parses a block that ends with a newline."""
        rows = self._parse_plain(block)
        if rows is not None:
            self.line += len(rows)
            return Parsed(rows, len(rows))
        return _line_by_line(self, block, self._parse_line)

    def _parse_plain(self, block: bytes) -> NDArray[np.float32] | None:
        """The fast way: None unless every line is a flat array of plain finite numbers."""
        lines = block.count(b"\n")
        if block.count(b"[") != lines or block.count(b"]") != lines or block.translate(None, _NUMBER_BYTES + b"[]"):
            return None
        if not block.startswith(b"[") or block.count(b"\n[") != lines - 1:
            return None
        try:
            table = json.loads(b"[" + block[:-1].replace(b"\n", b",") + b"]")
            if len(table) != lines or any(len(row) != len(self._names) for row in table):
                return None
            return _finite(np.array(table, np.float64))
        except (ValueError, OverflowError):  # an integer may have thousands of digits
            return None

    def _parse_line(self, line: bytes) -> list[float]:
        try:
            found = json.loads(line, object_pairs_hook=_unique_keys)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"not JSON: {error}") from None
        if isinstance(found, dict):
            values: Sequence[Any] = self._from_object(found)
        elif isinstance(found, list):
            values = found
        else:
            raise BadInput("expected a JSON array or object")
        if len(values) != len(self._names):
            raise BadInput(f"expected {len(self._names)} values, found {len(values)}")
        return [_json_number(value, f"value {i + 1} ({self._names[i]!r})") for i, value in enumerate(values)]

    def _from_object(self, found: dict[str, Any]) -> list[Any]:
        missing = [name for name in self._names if name not in found]
        if missing:
            raise BadInput(f"the object has no key {missing[0]!r}{_more(missing)}")
        extra = [key for key in found if key not in self._places]
        if extra and not self._ignore_extra:
            raise BadInput(f"the model knows no feature {extra[0]!r}{_more(extra)} (--ignore-extra leaves them out)")
        return [found[name] for name in self._names]


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Which of two values is meant, nobody can say."""
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {_short(twice)} stands twice")
    return found


def _line_by_line(parser: Parser, block: bytes, parse_line: Any) -> Parsed:
    good: list[list[float]] = []
    errors: dict[int, tuple[int, str]] = {}
    for line in block.split(b"\n")[:-1]:
        parser.line += 1
        line = line.strip(b"\r \t")
        if not line:
            continue
        try:
            good.append(parse_line(line))
        except BadInput as error:
            errors[len(good) + len(errors)] = (parser.line, str(error))
    rows = np.array(good, np.float64).astype(np.float32) if good else np.empty((0, 0), np.float32)
    return Parsed(rows, len(good) + len(errors), errors)


def _numbers(text: bytes) -> NDArray[np.float32] | None:
    """Numbers, each with a comma behind it; None unless numpy reads them to the last character.

    Some versions of numpy stop at what is no number, with a warning that nobody sees: a number of ours at the end must
    be reached, or the last field is what it stopped in.
    """
    try:
        values = np.fromstring(text + b"7", np.float64, sep=",")
    except (ValueError, DeprecationWarning):  # an empty field, two numbers in one
        return None
    return _finite(values[:-1]) if len(values) == text.count(b",") + 1 else None


def _finite(values: NDArray[np.float64]) -> NDArray[np.float32] | None:
    if not values.size or not -_MAX_FLOAT32 <= values.min() <= values.max() <= _MAX_FLOAT32:
        return None
    return values.astype(np.float32)


def _number(text: str, where: str) -> float:
    try:
        value = float(text.replace("_", "?"))
    except ValueError:
        raise BadInput(f"{where}: {_short(text)} is not a number") from None
    return _checked(value, text, where)


def _json_number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInput(f"{where}: {_short(json.dumps(value))} is not a number")
    try:
        return _checked(float(value), str(value), where)
    except OverflowError:
        raise BadInput(f"{where}: the number is too large") from None


def _checked(value: float, text: str, where: str) -> float:
    if not math.isfinite(value):
        raise BadInput(f"{where}: {_short(text)} is not a finite number")
    if abs(value) > _MAX_FLOAT32:
        raise BadInput(f"{where}: {_short(text)} is too large for float32")
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _more(names: Sequence[str]) -> str:
    return f" (nor {len(names) - 1} more)" if len(names) > 1 else ""


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")

"""Parses blocks of JSON lines into rows.

A block of flat arrays of plain numbers is read at once. Any other block is read line by line, and each bad line gets an
error with its number and the value. Both methods give the same numbers, correctly rounded. No I/O; every value returned
is finite in float32.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from device_agent.shared.console.lists import listed
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.json_codec import unique_keys
from device_agent.shared.tabular.csv_dialect import is_number, short
from device_agent.shared.tabular.fields import Layout
from device_agent.shared.tabular.float_parser import TOO_LARGE, read_table
from device_agent.shared.tabular.reader import Line, Parsed, Parser, line_by_line, more, plain_numbers, unlike_finite


class JsonParser(Parser):
    """Parses JSON lines: each is one array, or one object with the feature names as keys."""

    header = False
    _as_object = "write each row as an object"

    def parse(self, block: bytes) -> Parsed:
        """Parses a block that ends with a newline."""
        rows = None if self._keep else self._parse_plain(block)
        if rows is not None:
            self.line += len(rows)
            return Parsed(rows, len(rows), lines=range(self.line - len(rows) + 1, self.line + 1))
        return line_by_line(self, block, self._parse_line)

    def _parse_plain(self, block: bytes) -> NDArray[Any] | None:
        """Returns the rows of a block of flat arrays of plain finite numbers; None for any other block."""
        block = block.replace(b"\r\n", b"\n") if b"\r" in block else block
        text = block[1:-2].replace(b"]\n[", b"\n") + b"\n"
        two_less_in_each_line = len(block) - len(text) == 2 * block.count(b"\n")
        if not (two_less_in_each_line and block.startswith(b"[") and block.endswith(b"]\n")):
            return None
        found = read_table(text, Layout(len(self._names), dtype=self.dtype, strict=True), _read_fields)
        return None if found is None else found[0]

    def _parse_line(self, line: bytes) -> Line:
        try:
            found = json.loads(line, object_pairs_hook=unique_keys)
        except (ValueError, RecursionError) as error:
            hint = _ONE_A_LINE if line in (b"[", b"{") else "" if line[:1] in (b"[", b"{") else _NO_JSON
            if not hint and line.endswith(b","):
                hint = "leave out the comma between lines: sed 's/,[[:space:]]*$//' FILE > rows.jsonl"
            elif not hint and b'"' not in line and b"'" in line:
                hint = "JSON has double quotes: write a row of Python with json.dumps(row)"
            raise BadInput(f"not JSON: {error}", hint=hint) from None
        if isinstance(found, dict):
            values: Sequence[Any] = self._from_object(found)
        elif isinstance(found, list):
            if any(isinstance(value, list | dict) for value in found[:1]):
                raise BadInput("several rows in one line", hint=_ONE_A_LINE)
            values = found
        else:
            raise BadInput("expected a JSON array or object")
        kept = self._kept(found)
        if len(values) != len(self._names):
            raise BadInput(f"expected {len(self._names)} values, found {len(values)}")
        return self._read_values(values), kept

    def _read_values(self, values: Sequence[Any]) -> list[float]:
        return [self._read_value(index, value) for index, value in enumerate(values)]

    def _read_value(self, index: int, value: Any) -> float:
        where = f"value {index + 1} ({self._names[index]!r})"
        if not isinstance(value, int | float):  # true and false are 1 and 0
            quoted = isinstance(value, str) and is_number(value, ";")
            hint = "in JSON, numbers have no quotes and a decimal point: 3.5" if quoted else ""
            raise BadInput(f"{where}: {short(json.dumps(value))} is not a number", hint=hint)
        try:
            number = float(value)
        except OverflowError:
            raise BadInput(f"{where}: the number is too large for float32") from None
        if not abs(number) < TOO_LARGE:
            raise BadInput(f"{where}: {unlike_finite(number, str(value))}")
        return number

    def _kept(self, found: dict[str, Any] | list[Any]) -> list[Any]:
        if not isinstance(found, dict) and self._keep:
            raise BadInput(f"an array has no key {self._keep[0]!r} (--keep)", hint=self._as_object)
        missing = [name for name in self._keep if name not in found]
        if missing:
            raise BadInput(f"the object has no key {missing[0]!r}{more(missing)} (--keep)")
        return [_writable(found[name], name) for name in self._keep] if isinstance(found, dict) else []

    def _from_object(self, found: dict[str, Any]) -> list[Any]:
        missing = [name for name in self._names if name not in found]
        if missing:
            hint = f"the model has the columns {listed(self._names)}"
            raise BadInput(f"the object has no key {missing[0]!r}{more(missing)}", hint=hint)
        extra = [key for key in found if key not in self._places]
        if extra and not self._ignore_extra:
            raise BadInput(f"the model has no feature {extra[0]!r}{more(extra)} (--ignore-extra leaves them out)")
        if extra:
            self.left_out.note(extra, 1)
        return [found[name] for name in self._names]


#: What to do about a document that is not JSON lines.
_NO_JSON = 'a row is [5.1, 3.5] or {"width": 5.1, ...}; for lines of CSV: --format csv'
_ONE_A_LINE = "each row needs a line of its own: jq -c '.[]' FILE > rows.jsonl"


def _writable(value: Any, name: str) -> Any:
    """Returns `value`; raises BadInput, with the key `name`, for NaN or a lone surrogate, which JSON does not allow."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise BadInput(f"{short(name)}: {error}") from None
    return value


def _read_fields(fields: list[bytes]) -> list[float]:
    values: list[float] = json.loads(b"[" + b",".join(plain_numbers(fields)) + b"]")
    if len(values) != len(fields):  # one field, and nothing in it
        raise ValueError("an empty array")
    return values

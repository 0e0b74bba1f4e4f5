"""Strict conversion between frozen dataclasses and JSON.

Reads and writes every document that host and device exchange, and every JSON file of either side. The reader limits
size and nesting before it parses. A missing key, a wrong type or a number that is not finite is an error that names the
place. Standard library only; no I/O.

A newer version may add keys to a document. The caller chooses what happens to unknown keys:

    loads(Status, text)                         ignored: the document is only read
    loads(StoreState, text, extra="keep")       kept: `dump_file` writes them again
    loads(Manifest, text, extra="refuse")       an error: the document is signed, so nobody may add keys
"""

from __future__ import annotations

import enum
import functools
import json
import math
import re
import types
import typing
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from device_agent.shared.protocol.record import keep, kept, shape

T = TypeVar("T")
Extra = Literal["ignore", "keep", "refuse"]

#: Largest JSON document that is read, in bytes, unless the caller sets another limit.
MAX_DOCUMENT = 4 * 1024 * 1024
#: Deepest nesting of objects and arrays that is parsed.
MAX_DEPTH = 16
#: Most characters of a document that an error message quotes.
_MAX_QUOTED = 80


class MalformedDocument(ValueError):
    """A document does not have the expected form; the message names the place (`$.gates.accuracy`)."""


class TooLarge(ValueError):
    """A document would be larger than its reader accepts; nothing was written."""


class NewerDocument(MalformedDocument):
    """A document has a newer `schema` (version number of its format) than this version can read."""


def dumps(value: Any) -> str:
    """Returns `value` (a dataclass, or plain JSON data) as one line of JSON with sorted keys.

    Pure ASCII, so that no locale changes it and no character in it controls a terminal.
    """
    return json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def dump_file(value: Any, *, limit: int = MAX_DOCUMENT) -> bytes:
    """Returns `value` as indented UTF-8 JSON with a closing newline, for files that a person may open.

    Raises:
        TooLarge: the text exceeds `limit` bytes, the most that the reader of this file accepts.
    """
    text = json.dumps(to_plain(value), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    data = f"{text}\n".encode("utf-8", "replace")  # the name of a file may not be UTF-8
    if len(data) > limit:
        raise TooLarge(f"the document would have {len(data):,} bytes; its reader accepts at most {limit:,}")
    return data


def to_plain(value: Any) -> Any:
    """Returns `value` with dataclasses as dictionaries, tuples as lists and enums as their values.

    Leaves out the fields in a class's `omitted` that are None, 0, False or empty.
    """
    if value is None or (isinstance(value, str | int | float) and not isinstance(value, enum.Enum)):
        return value
    if (fields := shape(type(value))) is not None:
        silent = getattr(type(value), "omitted", ())  # fields that are left out where they say nothing
        return {
            **kept(value),
            **{name: to_plain(found) for name in fields if (found := getattr(value, name)) or name not in silent},
        }
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value


def loads(cls: type[T], text: str | bytes, *, limit: int = MAX_DOCUMENT, extra: Extra = "ignore") -> T:
    """Parses one JSON document into the dataclass `cls`; `extra`: whether unknown keys are ignored, kept or refused.

    Raises:
        MalformedDocument: `text` is over `limit` bytes, deeper than `MAX_DEPTH`, not JSON, or does not fit `cls`.
        NewerDocument: the document's `schema` is newer than that of `cls`.
    """
    return from_plain(cls, parse(text, limit=limit), extra=extra)


def parse(text: str | bytes, *, limit: int = MAX_DOCUMENT) -> Any:
    """Parses JSON with limits on size and depth; refuses duplicate keys, NaN and infinity.

    Raises:
        MalformedDocument: the text is not JSON, or breaks one of these rules.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(data) > limit:
        raise MalformedDocument(f"the document has {len(data):,} bytes; at most {limit:,} are allowed")
    _refuse_depth(data)
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=unique_keys, parse_constant=_refuse_constant)
        if b"\\ud" in data.lower():  # half a surrogate pair could be read, but never printed or written
            json.dumps(value, ensure_ascii=False).encode()
    except MalformedDocument:
        raise
    except (ValueError, RecursionError) as error:
        raise MalformedDocument(f"not a JSON document: {error}") from None
    return value


def _refuse_depth(data: bytes) -> None:
    depth, in_string = 0, False
    for found in re.finditer(rb'\\.|["\[\]{}]', data, re.DOTALL):
        if found[0] == b'"':
            in_string = not in_string
        elif not in_string:
            depth += {b"{": 1, b"[": 1, b"}": -1, b"]": -1}.get(found[0], 0)
        if depth > MAX_DEPTH:
            raise MalformedDocument(f"the document is nested deeper than {MAX_DEPTH} levels")


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns the JSON object of these pairs.

    Raises:
        MalformedDocument: a key appears twice, so either value could be meant.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise MalformedDocument(f"the key {_quoted(twice)} appears twice")
    return found


def _refuse_constant(name: str) -> Any:
    raise MalformedDocument(f"{name} is not a JSON number")


def from_plain(cls: type[T], data: Any, where: str = "$", *, extra: Extra = "ignore") -> T:
    """Builds the dataclass `cls` from parsed JSON; checks every key and type.

    `where` is the path of `data` in the document, for messages. Unknown keys are ignored, refused, or attached to the
    result (`record.keep`), as `extra` states.

    Raises:
        MalformedDocument: a value does not fit `cls`; the message has the path of the first one.
        NewerDocument: the document's `schema` is newer than that of `cls`.
    """
    if not isinstance(data, dict):
        raise MalformedDocument(f"{where}: expected an object, found {kind_of(data)}")
    _require_schema(cls, data, where, extra)
    hints: dict[str, Any] = _hints(cls)  # type: ignore[arg-type]
    strange = sorted(set(data) - set(hints))
    if strange and extra == "refuse":
        raise MalformedDocument(f"{where}: unknown key {_quoted(strange[0])}")
    values = {}
    for name, optional in (shape(cls) or {}).items():
        if name in data:
            values[name] = _convert(hints[name], data[name], f"{where}.{name}", extra)
        elif not optional:
            raise MalformedDocument(f"{where}: the key {name!r} is missing")
    try:
        found = cls(**values)
    except ValueError as error:
        raise MalformedDocument(f"{where}: {error}") from None
    return keep(found, {key: data[key] for key in strange}) if extra == "keep" else found


def _require_schema(cls: type, data: Mapping[str, Any], where: str, extra: Extra) -> None:
    newest, found = getattr(cls, "schema", None), data.get("schema")
    if not isinstance(newest, int) or not isinstance(found, int):
        if isinstance(newest, int) and "schema" not in data and extra == "refuse":
            raise MalformedDocument(f"{where}: the key 'schema' is missing")
        return
    if found > newest:
        raise NewerDocument(f"{where}: its schema is {found}, but this version reads at most schema {newest}")
    if found < 1:
        raise MalformedDocument(f"{where}: its schema is {found}; the lowest is 1")


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _convert(hint: Any, value: Any, where: str, extra: Extra) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(typing.get_args(hint), value, where, extra)
    if origin is tuple:
        return _convert_tuple(typing.get_args(hint), value, where, extra)
    if origin is typing.Literal:
        if any(value == choice and type(value) is type(choice) for choice in typing.get_args(hint)):
            return value
        choices = ", ".join(map(repr, typing.get_args(hint)))
        raise MalformedDocument(f"{where}: {_quoted(value)} is not one of {choices}")
    if origin is dict:
        if not isinstance(value, dict):
            raise MalformedDocument(f"{where}: expected an object, found {kind_of(value)}")
        item = typing.get_args(hint)[1]
        return {key: _convert(item, entry, f"{where}[{_quoted(key)}]", extra) for key, entry in value.items()}
    if isinstance(hint, type) and shape(hint) is not None:
        return from_plain(hint, value, where, extra=extra)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        try:
            return hint(value)
        except ValueError:
            raise MalformedDocument(
                f"{where}: {_quoted(value)} is not one of {', '.join(m.value for m in hint)}"
            ) from None
    return _convert_scalar(hint, value, where)


def _convert_union(choices: tuple[Any, ...], value: Any, where: str, extra: Extra) -> Any:
    if value is None and type(None) in choices:
        return None
    failures = []
    for choice in choices:
        if choice is type(None):
            continue
        try:
            return _convert(choice, value, where, extra)
        except MalformedDocument as error:
            # Its traceback would form a reference cycle with this frame, and keep the callers' data in memory.
            failures.append(error.with_traceback(None))
    raise failures[-1]


def _convert_tuple(items: tuple[Any, ...], value: Any, where: str, extra: Extra) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise MalformedDocument(f"{where}: expected an array, found {kind_of(value)}")
    if len(items) == 2 and items[1] is Ellipsis:
        return tuple(_convert(items[0], entry, f"{where}[{index}]", extra) for index, entry in enumerate(value))
    if len(items) != len(value):
        raise MalformedDocument(f"{where}: expected {len(items)} entries, found {len(value)}")
    return tuple(_convert(hint, entry, f"{where}[{i}]", extra) for i, (hint, entry) in enumerate(zip(items, value)))


def _convert_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
        raise MalformedDocument(f"{where}: the number is not finite")
    if hint is int and isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 2**63 - 1:
        return value
    if hint in (str, bool) and isinstance(value, hint):
        return value
    names = {str: "a string", int: "an integer", float: "a number", bool: "true or false"}
    raise MalformedDocument(f"{where}: expected {names.get(hint, hint)}, found {kind_of(value)}")


def _quoted(value: Any) -> str:
    """Returns the value's repr, which escapes control characters, cut to `_MAX_QUOTED` characters."""
    text = repr(value)
    return text if len(text) <= _MAX_QUOTED else text[: _MAX_QUOTED - 3] + "..."


def kind_of(value: Any) -> str:
    """Returns the JSON type of a value, for messages."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")

"""Every document of both packages, found by looking through them, and one example of each."""

from __future__ import annotations

import dataclasses
import enum
import pkgutil
import types
import typing
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import device_agent
from device_agent.shared.protocol import json_codec
from device_agent.shared.protocol.record import shape

ROOT = Path(__file__).parents[2]
#: What a newer version may have added: under every object of a document.
MORE = {"x_word": "new", "x_number": 7, "x_object": {"inside": [1, {"deeper": None}]}}


class NotWritten(Exception):
    """A type that JSON cannot represent: its values never leave their process."""


def example(hint: Any) -> Any:
    """Returns an example value of a type, with every field filled.

    Raises:
        NotWritten: JSON cannot represent the type.
    """
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return example(next(kind for kind in inside if kind is not type(None)))
    if origin is tuple:
        return (example(inside[0]),) if inside[-1] is Ellipsis else tuple(map(example, inside))
    if origin is dict:
        return {"key": example(inside[1])}
    if origin is typing.Literal:
        return inside[0]
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return next(iter(hint))
    if isinstance(hint, type) and shape(hint) is not None:
        hints = typing.get_type_hints(hint)
        values = {name: example(hints[name]) for name in shape(hint) or ()}
        return hint(**{name: getattr(hint, name) if name == "schema" else value for name, value in values.items()})
    plain = {str: "text", int: 1, float: 0.5, bool: True}
    if hint not in plain:
        raise NotWritten(str(hint))
    return plain[hint]


def grown(value: Any) -> Any:
    """Returns a document as plain JSON data, with more keys in every object of it."""
    if (fields := shape(type(value))) is not None:
        return {name: grown(getattr(value, name)) for name in fields} | MORE
    if isinstance(value, tuple):
        return [grown(item) for item in value]
    return json_codec.to_plain(value)


def shrunk(value: Any) -> Any:
    """Returns a document without the keys that may be left out, as a version before them wrote it."""
    if (fields := shape(type(value))) is not None:
        return {name: shrunk(getattr(value, name)) for name, optional in fields.items() if not optional}
    if isinstance(value, tuple):
        return [shrunk(item) for item in value]
    return json_codec.to_plain(value)


def _modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(device_agent.__path__, "device_agent."):
        if not found.name.endswith("__main__"):
            yield import_module(found.name)
    for path in sorted(ROOT.glob("knnkit/**/report.py")):
        yield import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))


def all_documents() -> dict[str, Any]:
    """Returns name -> example of every record, and of every class of a fleet's report, that can be written as JSON."""
    found = {}
    for module in _modules():
        for name, kind in vars(module).items():
            if isinstance(kind, type) and (hasattr(kind, "__record__") or dataclasses.is_dataclass(kind)):
                try:
                    found[name] = example(kind)
                except (NotWritten, NameError):  # a name that is there for type checkers alone
                    continue
    return found

"""What deploy.yaml expects, in words: of each key what may stand there, an example, and what was found instead.

Drawn from the models themselves, so that no bound is written down twice. Never shows pydantic's own words.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator
from pydantic.fields import FieldInfo

from knnkit.config import yaml_reader
from knnkit.config.field_types import LONGEST_SHOWN, Section, Words, keys_of, shorten

Place = tuple[str | int, ...]

_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_A_LIST = "a list, each "

#: Of every key, a value that stands for itself in a `try:` line.
EXAMPLES = {
    "model": "{name: fruit, data: {file: train.csv, label: species}}",
    "models": "[{name: small, device_class: zero, data: {file: train.csv, label: species}}]",
    "name": "fruit",
    "data": "{file: train.csv, label: species}",
    "file": "train.csv",
    "label": "species",
    "features": "[width, height]",
    "sklearn": "iris",
    "skops": "model.skops",
    "test": "0.3",
    "seed": "0",
    "k": "3",
    "metric": "euclidean",
    "weights": "uniform",
    "scale": "standard",
    "reject": "0.99",
    "device_class": "zero",
    "runtime": "ai_edge_litert",
    "gates": "{accuracy: 0.9}",
    "accuracy": "0.9",
    "latency_ms": "5.0",
    "margin": "1e-5",
    "release": "{dir: dist, version: 1.0.0}",
    "dir": "dist",
    "version": '"1.0"',
    "sequence": "12",
    "expires": "90d",
    "signing": "{key: keys/signing.pem}",
    "key": "keys/signing.pem",
    "trusted": "[keys/signing.pub]",
    "fleet": "{targets: [pi@board-1]}",
    "defaults": "{user: pi}",
    "user": "pi",
    "port": "22",
    "root": "~/.knnkit",
    "identity": "~/.ssh/id_ed25519",
    "jump": "pi@gate",
    "tags": "[canary]",
    "targets": "[pi@board-1]",
    "host": "board-1.example",
    "known_hosts": "known_hosts",
    "ssh_config": "~/.ssh/config",
    "rollout": "{max_failures: 1}",
    "waves": "[25%, 100%]",
    "max_failures": "1",
    "confirm_within": "60s",
    "concurrency": "16",
    "connect_timeout": "10s",
    "connect_retries": "2",
    "command_timeout": "5m",
}


def said_of(place: Place) -> str:
    """Returns a place as messages name it: `fleet.targets[0].host: `; nothing for the file as a whole."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return f"{text[1:]}: " if text else ""


def key_of(place: Place) -> str:
    """Returns the key that a place belongs to; nothing for the file as a whole."""
    return next((part for part in reversed(place) if isinstance(part, str)), "")


def example(key: str) -> str:
    """Returns a line to type in for a key; what lists all keys where there is none."""
    return f"{key}: {EXAMPLES[key]}" if key in EXAMPLES else "knnkit schema"


def found(document: yaml_reader.Document, place: Place) -> str:
    """Returns what stands at a place, as a message bears it."""
    value = document.data
    for part in place:
        value = value[part]
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "keys with values" if value else "an empty {}"
    if isinstance(value, tuple):
        return "a list" if value else "an empty list"
    shown = shorten(document.scalars.get(place, str(value)))
    return repr(shown) if isinstance(value, str) else shown


def expected(root: type[Section], place: Place) -> str:
    """Returns what may stand at a place, in words."""
    return ", or ".join(dict.fromkeys(_described(*node) for node in _nodes(root, place)))


def wrong_value(root: type[Section], document: yaml_reader.Document, place: Place) -> tuple[str, str]:
    """Returns what is wrong with a value that is none of what may stand there, and a line to type instead."""
    key, wanted, here = key_of(place), expected(root, place), found(document, place)
    choices = [str(choice) for kind, _ in _nodes(root, place) for choice in get_args(kind) if _origin(kind) is Literal]
    written = document.scalars.get(place)
    if choices and written:
        close = difflib.get_close_matches(written, choices, n=1, cutoff=0.5)
        more = f"; did you mean {close[0]!r}?" if close else ""
        said = f"{here} is not one of {', '.join(choices)}{more}"
        return said, f"{key}: {close[0]}" if close else example(key)
    if here == "an empty list" and wanted.startswith(_A_LIST):
        return f"found {here}, expected at least one: {wanted.removeprefix(_A_LIST)}", example(key)
    if written and wanted.startswith(_A_LIST) and _is_plain(written) and here != written and _lists_text(root, place):
        return f"found {here}, expected {wanted}", f"{key}: [{written}]"
    if here == written and any(_would_take(*node, written) for node in _nodes(root, place)):
        quoted = f'"{written}"'
        mend = f"{key}: [{quoted}]" if isinstance(place[-1], int) else f"{key}: {quoted}"
        return f"found {here}, expected {wanted}; write it in quotes: {quoted}", mend
    return f"found {here}, expected {wanted}", example(key)


def _is_plain(written: str) -> bool:
    return len(written) <= LONGEST_SHOWN and all(letter.isalnum() or letter in "._-/@%" for letter in written)


def _would_take(kind: Any, metadata: tuple[Any, ...], text: str) -> bool:
    """Whether `text` would do where it was taken for something else."""
    if kind is not str:
        return kind is Path
    try:
        for check in metadata:
            if isinstance(check, AfterValidator):
                check.func(text)  # type: ignore[call-arg]  # ours take the value alone
    except ValueError:
        return False
    return True


def _lists_text(root: type[Section], place: Place) -> bool:
    """Whether an entry of the list at a place may be written as a word."""
    return any(kind in (str, Path) or _words(metadata) for kind, metadata in _nodes(root, (*place, 0)))


# --- the models, by place ---------------------------------------------------------------------------------------------
_Node = tuple[Any, tuple[Any, ...]]


def _nodes(root: type[Section], place: Place) -> list[_Node]:
    """Returns the types that may stand at a place, and what is said about each."""
    nodes: list[_Node] = [(root, ())]
    for part in place:
        if isinstance(part, int):
            inner = [_flat(get_args(kind)[0], ()) for kind, _ in nodes if _origin(kind) is tuple]
        else:
            fields = [kind.model_fields[part] for kind, _ in nodes if _is_section(kind) and part in kind.model_fields]
            inner = [_flat(field.annotation, tuple(field.metadata)) for field in fields]
        nodes = [node for group in inner for node in group]
    return nodes


def _flat(annotation: Any, metadata: tuple[Any, ...]) -> Iterator[_Node]:
    """Yields the alternatives of an annotation, without what wraps them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        yield from _flat(inner, (*_spread(more), *metadata))
    elif origin in (Union, types.UnionType) and not any(isinstance(each, Words) for each in metadata):
        for alternative in get_args(annotation):
            if alternative is not type(None):
                yield from _flat(alternative, metadata)
    else:
        yield annotation, metadata


def _spread(metadata: Sequence[Any]) -> Iterator[Any]:
    for each in metadata:
        yield from each.metadata if isinstance(each, FieldInfo) else (each,)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _described(kind: Any, metadata: tuple[Any, ...]) -> str:
    words = _words(metadata)
    if _is_section(kind):
        keys = f"keys such as {keys_of(kind)}"
        return f"{words}, or {keys}" if words else keys
    if _origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if _origin(kind) is tuple:
        inside = ", or ".join(_described(*node) for node in _flat(get_args(kind)[0], ()))
        return f"{_A_LIST}{'with ' if inside.startswith('keys') else ''}{inside}"
    plain = words or {int: "a whole number", float: "a number", Path: "a path"}.get(kind, "text")
    return plain + _bounds(metadata)


def _origin(kind: Any) -> Any:
    """As typing's own, which mypy takes for one that returns a ParamSpec."""
    return get_origin(kind)


def _words(metadata: tuple[Any, ...]) -> str:
    return next((each.text for each in metadata if isinstance(each, Words)), "")


def _bounds(metadata: tuple[Any, ...]) -> str:
    bounds = {
        name: getattr(each, name) for each in metadata for name in _BOUNDS if getattr(each, name, None) is not None
    }
    if {"ge", "le"} <= bounds.keys():
        return f" from {bounds['ge']:.16g} to {bounds['le']:.16g}"
    found = [f"{word} {bounds[name]:.16g}" for name, word in _BOUNDS.items() if name in bounds]
    return f", {' and '.join(found)}" if found else ""

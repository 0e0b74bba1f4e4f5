"""Messages about wrong values in deploy.yaml.

A message names what a key expects, an example and what was found, all derived from the models. It never contains text
of pydantic. A `place` is the path to a value: its keys and list indices, such as ("fleet", "targets", 0, "host").
"""

from __future__ import annotations

import difflib
import json
import operator
import re
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, ValidationError
from pydantic.fields import FieldInfo

from knnkit.config import yaml_reader
from knnkit.config.field_types import LONGEST_SHOWN, Example, Section, Words, keys_of, shorten

Place = tuple[str | int, ...]

_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_BOUND = {"ge": operator.ge, "gt": operator.gt, "le": operator.le, "lt": operator.lt}
#: Longest name that a line to type repeats, in characters; YAML reads keys up to 128.
_LONGEST_NAME = 60
#: A number in another form: a percentage, with a decimal comma, or as text.
_NUMBER = re.compile(r"([0-9]+(?:[.,][0-9]+)?) ?%?")
_A_LIST = "a list, each "


def prefix_of(place: Place) -> str:
    """Returns the prefix of a message about the value at `place`: `fleet.targets[0].host: `; "" for the whole file."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return f"{text[1:]}: " if text else ""


def key_of(place: Place) -> str:
    """Returns the last key of the path `place`; "" for the whole file."""
    return next((part for part in reversed(place) if isinstance(part, str)), "")


def above(place: Place) -> Place:
    """Returns the path of the mapping that contains the last key of `place`."""
    return place[: max((index for index, part in enumerate(place) if isinstance(part, str)), default=0)]


def example(root: type[Section], key: str, place: Place = ()) -> str:
    """Returns an example line `key: value` of the mapping at `place`, or else of any mapping under `root`.

    Returns `knnkit schema` if the models have no example for the key.
    """
    nodes = _nodes(root, place)
    here = [kind.model_fields for kind, _ in nodes if _is_section(kind)]
    if key and place and not here:  # an entry of a map, whose keys are the user's
        values = [node for kind, _ in nodes if _origin(kind) is dict for node in _flat(get_args(kind)[1], ())]
        typed = next((each.text for _, found in values for each in found if isinstance(each, Example)), "")
        bare = key if _is_plain(key) else json.dumps(key)
        return f"{bare}: {typed}" if typed else example(root, key_of(place), above(place))
    text = next(filter(None, (_example(fields[key]) for fields in (*here, *_all_fields(root)) if key in fields)), "")
    return f"{key}: {text}" if text else "knnkit schema"


def _example(field: FieldInfo) -> str:
    typed = (each.text for each in field.metadata if isinstance(each, Example))
    return next(typed, str(field.default) if isinstance(field.default, str | int | float | Path) else "")


def _all_fields(kind: Any) -> Iterator[dict[str, FieldInfo]]:
    """Yields the fields (key -> FieldInfo) of a section, then of the sections inside it."""
    if _is_section(kind):
        yield kind.model_fields
        for field in kind.model_fields.values():
            yield from _all_fields(field.annotation)
    else:
        for inner in get_args(kind):
            yield from _all_fields(inner)


def unknown_key(
    root: type[Section], document: yaml_reader.Document, place: Place, context: dict[str, Any]
) -> tuple[str, str]:
    """Returns the message about an unknown key of the mapping at `place`, and a line to type instead.

    `context` is that of pydantic's error: the key, and the details of `field_types._unknown`.
    """
    key, mapping = context["key"], value_at(document, place)
    glued = yaml_reader.glued(key)
    if glued and mapping[key] is None:
        return f"unknown key {key!r}; a blank is missing after the colon", glued
    *_, before = ["", *list(mapping)[: list(mapping).index(key)]]
    words = document.scalars.get((*place, before), ""), key
    if mapping[key] is None and _lists_text(root, (*place, before)) and all(map(_is_plain, words)):
        return f"unknown key {key!r}; is it part of {before!r}?", f"{before}: [{', '.join(words)}]"
    home = None if context["sure"] else _home_of(root, key)
    # A section may have other forms: `data` has `label` for a file, and not for an estimator.
    if home is None or _section(home) == _section(place):
        return context["problem"], example(root, context["meant"], place)
    written = document.scalars.get((*place, key), "")
    written = written if written and _is_plain(written) else example(root, key, home).partition(": ")[2]
    listed = home[-1] == 0  # in each entry of a list
    path = home[:-1] if listed else home
    fix = f"{path[-1]}: [{{{key}: {written}}}]" if listed else f"{path[-1]}: {{{key}: {written}}}"
    return f"unknown key {key!r}; it belongs in {prefix_of(path).removesuffix(': ')!r}", fix


def _section(place: Place) -> object:
    return next((part for part in reversed(place) if isinstance(part, str)), None)


def _home_of(root: type[Section], key: str) -> Place | None:
    """Returns the key path of the first section under `root` that has `key`; None if there is none."""
    places: list[Place] = [()]
    for place in places:
        nodes = _nodes(root, place)
        fields = [kind.model_fields for kind, _ in nodes if _is_section(kind)]
        if any(key in each for each in fields):
            return place
        places += [(*place, name) for each in fields for name in each]
        places += [(*place, 0)] * any(_origin(kind) is tuple for kind, _ in nodes)
    return None


def found(document: yaml_reader.Document, place: Place) -> str:
    """Returns the value at `place` as text for a message."""
    value = value_at(document, place)
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "keys with values" if value else "an empty {}"
    if isinstance(value, tuple):
        return "a list" if value else "an empty list"
    shown = shorten(document.scalars.get(place, str(value)))
    return repr(shown) if isinstance(value, str) else shown


def expected(root: type[Section], place: Place) -> str:
    """Returns a description of the values that are allowed at the key path `place` under `root`."""
    return ", or ".join(dict.fromkeys(_described(*node) for node in _nodes(root, place)))


def wrong_value(root: type[Section], document: yaml_reader.Document, place: Place) -> tuple[str, str]:
    """Returns the message about a value that is not allowed at `place`, and a line to type instead."""
    key, wanted, here = key_of(place), expected(root, place), found(document, place)
    choices = [str(choice) for kind, _ in _nodes(root, place) for choice in get_args(kind) if _origin(kind) is Literal]
    written = document.scalars.get(place)
    if choices and written:
        close = difflib.get_close_matches(written, choices, n=1, cutoff=0.5)
        more = f"; did you mean {close[0]!r}?" if close else ""
        problem = f"{here} is not one of {_named(choices)}{more}"
        inside = "" if close else _in_section(root, document, place)
        return problem, f"{key}: {close[0]}" if close else inside or example(root, key, above(place))
    if here == "an empty list" and wanted.startswith(_A_LIST):
        return f"found {here}, expected at least one: {wanted.removeprefix(_A_LIST)}", example(root, key, above(place))
    section = [kind.model_fields for kind, _ in _nodes(root, above(place)) if _is_section(kind)]
    if here == "a list" and any(f"{key}s" in fields for fields in section):
        return f"found {here}, expected {wanted}", example(root, f"{key}s", above(place))
    one, words = key.removesuffix("s"), value_at(document, place)
    if one != key and here == "a list" and any(one in fields for fields in section) and all(map(_is_word, words)):
        return f"found {here}, expected {wanted}; columns belong in {one!r}", f"{one}: [{', '.join(words)}]"
    shown = here not in (written, "nothing")  # `null` is not a name
    if written and "," in written and _lists_text(root, place) and _is_plain(re.sub(", *", "", written)):
        return f"found {here}, expected {wanted}", f"{key}: [{written}]"
    if written and wanted.startswith(_A_LIST) and _is_plain(written) and shown and _lists_text(root, place):
        return f"found {here}, expected {wanted}", f"{key}: [{written}]"
    if here == written and any(_would_take(*node, written) for node in _nodes(root, place)):
        quoted = f'"{written}"'
        fix = f"{key}: [{quoted}]" if isinstance(place[-1], int) else f"{key}: {quoted}"
        return f"found {here}, expected {wanted}; write it in quotes: {quoted}", fix
    own = _as_number(root, document, place) or _by_column(root, document, place) or _in_section(root, document, place)
    return f"found {here}, expected {wanted}", own or example(root, key, above(place))


def _by_column(root: type[Section], document: yaml_reader.Document, place: Place) -> str:
    """Returns a line that gives each name at `place` a word, where a word or {column: word} is allowed; else ""."""
    value, kinds = value_at(document, place), [kind for node, _ in _nodes(root, place) for kind, _ in _flat(node, ())]
    names = [value] if isinstance(value, str) else value
    if not {dict, Literal}.issubset(map(_origin, kinds)) or not isinstance(names, tuple | list) or not all(names):
        return ""
    choices = [str(each) for kind in kinds if _origin(kind) is Literal for each in get_args(kind)]
    if close := difflib.get_close_matches(str(names[0]), choices, n=1, cutoff=0.7) if len(names) == 1 else []:
        return f"{key_of(place)}: {close[0]}"
    word = re.findall(r"[\w-]+", example(root, key_of(place), above(place)))[-1]
    of_column = [each for kind in kinds if _origin(kind) is dict for each, _ in _flat(get_args(kind)[1], ())]
    good = names and all(isinstance(name, str) and name.isprintable() and len(name) <= _LONGEST_NAME for name in names)
    if not good or not any(each is str or word in get_args(each) for each in of_column):
        return ""
    bare = [name if _is_plain(name) else json.dumps(name) for name in names]
    return f"{key_of(place)}: {{{', '.join(f'{name}: {word}' for name in bare)}}}"


def _as_number(root: type[Section], document: yaml_reader.Document, place: Place) -> str:
    """Returns a line with the number that the value at `place` means (`30%`, `0,3`, `"3"`, 3.0), if it is allowed."""
    match = _NUMBER.fullmatch(document.scalars.get(place, ""))
    if not match or not isinstance(place[-1], str):
        return ""
    value = float(match[1].replace(",", "."))
    for kind, metadata in _nodes(root, place):
        for number in (value, value / 100):
            right = (kind is int and number.is_integer()) or (kind is float and number != value_at(document, place))
            if right and all(_BOUND[name](number, bound) for name, bound in _limits(metadata)):
                return f"{place[-1]}: {number:.10g}"
    return ""


def _limits(metadata: tuple[Any, ...]) -> Iterator[tuple[str, float]]:
    for each in metadata:
        yield from ((name, getattr(each, name)) for name in _BOUNDS if getattr(each, name, None) is not None)


def _in_section(root: type[Section], document: yaml_reader.Document, place: Place) -> str:
    """Returns a line with the single value at `place` as the first key of a section (`test: {file: test.csv}`).

    Of several sections, the one whose example has the same suffix as the value comes first; "" if none takes the value.
    """
    written = document.scalars.get(place, "")
    if not _is_plain(written) or (_NUMBER.fullmatch(written) and isinstance(value_at(document, place), str)):
        return ""
    sections = [kind for kind, _ in _nodes(root, place) if _is_section(kind)]
    first = [(kind, *next(iter(kind.model_fields.items()))) for kind in sections]
    for kind, name, field in sorted(first, key=lambda each: Path(_example(each[2])).suffix != Path(written).suffix):
        if any(inner is Path for inner, _ in _flat(field.annotation, ())) and not {".", "/"}.intersection(written):
            continue  # a word, not a path
        try:
            kind.model_validate({name: value_at(document, place)})
        except ValidationError:
            continue
        start, line = f"{key_of(place)}: {{{name}: ", example(root, key_of(place), above(place))
        rest = re.match(r"[^,}]+(.*)", line[len(start) :]) if line.startswith(start) else None
        return f"{start}{written}{rest[1] if rest else '}'}"
    return ""


def value_at(document: yaml_reader.Document, place: Place) -> Any:
    """Returns the value at the key path `place`."""
    value = document.data
    for part in place:
        value = value[part]
    return value


def _is_plain(written: str) -> bool:
    return len(written) <= LONGEST_SHOWN and all(letter.isalnum() or letter in "._-/@%" for letter in written)


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and _is_plain(value)


def _would_take(kind: Any, metadata: tuple[Any, ...], text: str) -> bool:
    """Whether `text`, which YAML read as another type, would be valid in quotes for `kind` with its metadata."""
    if _origin(kind) is tuple:  # a list of columns may be one column
        return bool(_words(metadata)) and any(inner is str for inner, _ in _flat(get_args(kind)[0], ()))
    if kind is not str:
        return kind is Path
    try:
        for check in metadata:
            if isinstance(check, AfterValidator):
                check.func(text)  # type: ignore[call-arg]  # our validators take only the value
    except ValueError:
        return False
    return True


def _lists_text(root: type[Section], place: Place) -> bool:
    """Whether the list at `place` may have entries that are single words."""
    return any(kind in (str, Path) or _words(metadata) for kind, metadata in _nodes(root, (*place, 0)))


# --- the models, by place ---------------------------------------------------------------------------------------------
_Node = tuple[Any, tuple[Any, ...]]


def _nodes(root: type[Section], place: Place) -> list[_Node]:
    """Returns the types that are allowed at the key path `place` under `root`, each with its metadata."""
    nodes: list[_Node] = [(root, ())]
    for part in place:
        nodes = [node for kind, _ in nodes for node in _flat(kind, ())]  # also of a union that is described as a whole
        if isinstance(part, int):
            inner = [_flat(get_args(kind)[0], ()) for kind, _ in nodes if _origin(kind) is tuple]
        else:
            maps = [_flat(get_args(kind)[1], ()) for kind, _ in nodes if _origin(kind) is dict]
            fields = [kind.model_fields[part] for kind, _ in nodes if _is_section(kind) and part in kind.model_fields]
            inner = maps + [_flat(field.annotation, tuple(field.metadata)) for field in fields]
        nodes = [node for group in inner for node in group]
    return nodes


def _flat(annotation: Any, metadata: tuple[Any, ...]) -> Iterator[_Node]:
    """Yields the alternatives of an annotation, without Annotated and Union around them, each with all metadata."""
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
        return f"one of {_named(get_args(kind))}"
    if _origin(kind) is tuple and words:
        return words
    if _origin(kind) is tuple:
        inside = ", or ".join(_described(*node) for node in _flat(get_args(kind)[0], ()))
        return f"{_A_LIST}{'with ' if inside.startswith('keys') else ''}{inside}"
    plain = words or {int: "a whole number", float: "a number", Path: "a path"}.get(kind, "text")
    return plain + _bounds(metadata)


def _named(choices: Sequence[Any]) -> str:
    """Returns words or numbers for a message; signs, such as a comma, are in quotes."""
    return ", ".join(word if any(map(str.isalnum, word)) else repr(word) for word in map(str, choices))


def _origin(kind: Any) -> Any:
    """Calls `typing.get_origin`; mypy infers the wrong return type (ParamSpec) for a direct call."""
    return get_origin(kind)


def _words(metadata: tuple[Any, ...]) -> str:
    return next((each.text for each in metadata if isinstance(each, Words)), "")


def _bounds(metadata: tuple[Any, ...]) -> str:
    bounds = dict(_limits(metadata))
    if {"ge", "le"} <= bounds.keys():
        return f" from {bounds['ge']:.16g} to {bounds['le']:.16g}"
    found = [f"{word} {bounds[name]:.16g}" for name, word in _BOUNDS.items() if name in bounds]
    return f", {' and '.join(found)}" if found else ""

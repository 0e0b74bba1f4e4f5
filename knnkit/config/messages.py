"""Messages about wrong values in deploy.yaml.

A message names what a key expects, an example and what was found, all derived from the models. It never contains text
of pydantic. A `place` is the path to a value: its keys and list indices, such as ("fleet", "targets", 0, "host").
"""

from __future__ import annotations

import difflib
import functools
import itertools
import json
import re
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from knnkit.config import yaml_reader
from knnkit.config.field_types import LONGEST_SHOWN, TRUTHS, Example, Section, Words, keys_of, shorten
from knnkit.config.yaml_reader import Place
from knnkit.errors import ConfigError

_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
#: Longest name that a line to type repeats, in characters; YAML reads keys up to 128.
_LONGEST_NAME = 60
#: A number in another form: a percentage, with a decimal comma, or as text.
_NUMBER = re.compile(r"([0-9]+(?:[.,][0-9]+)?) ?%?")
_A_LIST = "a list, each "
#: Longest line to type, and longest list that it repeats, in characters.
_LONGEST_LINE, _LONGEST_LIST = 1000, 100


def prefix_of(place: Place) -> str:
    """Returns the prefix of a message about the value at `place`: `fleet.targets[0].host: `; "" for the whole file."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return f"{text[1:]}: " if text else ""


def key_of(place: Place) -> str:
    """Returns the last key of the path `place`; "" for the whole file."""
    return next((part for part in reversed(place) if isinstance(part, str)), "")


def above(place: Place) -> Place:
    """Returns `place` without its last key and the list indices after it: the path of the mapping with that key."""
    return place[: max((index for index, part in enumerate(place) if isinstance(part, str)), default=0)]


def example(root: type[Section], key: str, place: Place = ()) -> str:
    """Returns an example line `key: value` for the mapping at `place` in a file of the schema `root`.

    If this mapping does not allow `key`, uses the example of the first section that does. If the schema has no example
    for `key`, returns the command `knnkit schema`.
    """
    nodes = _nodes(root, place)
    here = [kind for kind, _ in nodes if _is_section(kind)]
    if key and place and not here:  # an entry of a map, whose keys are the user's
        values = [node for kind, _ in nodes if _origin(kind) is dict for node in _flat(get_args(kind)[1], ())]
        typed = next((each.text for _, found in values for each in found if isinstance(each, Example)), "")
        return f"{_typed(key)}: {typed}" if typed else example(root, key_of(place), above(place))
    sections = itertools.chain(here, (kind for _, kind in _sections(root)))
    text = next(filter(None, (_example(kind.model_fields[key]) for kind in sections if key in kind.model_fields)), "")
    return f"{key}: {text}" if text else "knnkit schema"


def _example(field: FieldInfo) -> str:
    typed = (each.text for each in field.metadata if isinstance(each, Example))
    return next(typed, str(field.default) if isinstance(field.default, str | int | float | Path) else "")


def _sections(root: type[Section]) -> Iterator[tuple[Place, type[Section]]]:
    """Yields (key path, class) of each section in the schema `root`, outermost first; 0 in a path is any list entry."""
    places: list[Place] = [()]
    for place in places:
        for kind, _ in _nodes(root, place):
            if _is_section(kind):
                yield place, kind
                places += [(*place, name) for name in kind.model_fields]
            elif _origin(kind) is tuple:
                places.append((*place, 0))


def unknown_key(
    root: type[Section], document: yaml_reader.Document, place: Place, context: dict[str, Any]
) -> tuple[str, str]:
    """Returns (message, line to type) about a key that the schema `root` does not know in the mapping at `place`.

    `context`: `key`, `problem` (message), `meant` (most similar known key, or ""), `sure` (whether `meant` is certain).
    """
    key, mapping = context["key"], document.value(place)
    glued = yaml_reader.glued(key)
    if glued and mapping[key] is None:
        return f"unknown key {key!r}; a blank is missing after the colon", glued
    *_, before = ["", *list(mapping)[: list(mapping).index(key)]]
    words = document.scalars.get((*place, before), ""), key
    line = f"{before}: [{', '.join(words)}]"
    if mapping[key] is None and all(map(_is_plain, words)) and _is_right(root, place, line):
        return f"unknown key {key!r}; is it part of {before!r}?", line
    homes = (home for home, kind in _sections(root) if key in kind.model_fields)
    home = None if context["sure"] else min(homes, key=lambda home: home != place[:-1], default=None)
    # A section may have other forms: `data` has `label` for a file, and not for an estimator.
    written = document.scalars.get((*place, key), "")
    if home is None or key_of(home) == key_of(place):  # never repeats a value for `identity`, which may be a password
        entries = mapping[key] if isinstance(mapping[key], tuple) else ()
        flow = f"[{', '.join(map(_typed, entries))}]" if all(isinstance(word, str) for word in entries) else ""
        line = f"{context['meant']}: {_typed(written) if written else flow}"
        right = (written or entries) and context["meant"] not in ("", "identity") and _is_right(root, place, line)
        return context["problem"], line if right else example(root, context["meant"], place)
    written = written if written and _is_plain(written) else example(root, key, home).partition(": ")[2]
    if not home:
        return f"unknown key {key!r}; it belongs at the top of the file", f"{key}: {written}"
    listed = home[-1] == 0  # in each entry of a list
    path = home[:-1] if listed else home
    fix = f"{path[-1]}: [{{{key}: {written}}}]" if listed else f"{path[-1]}: {{{key}: {written}}}"
    return f"unknown key {key!r}; it belongs in {prefix_of(path).removesuffix(': ')!r}", fix


def found(document: yaml_reader.Document, place: Place) -> str:
    """Returns the value at the key path `place` as text for a message."""
    value = document.value(place)
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "keys with values" if value else "an empty {}"
    if isinstance(value, tuple):
        return "a list" if value else "an empty list"
    shown = shorten(document.scalars.get(place, str(value)))
    return repr(shown) if isinstance(value, str) else shown


def expected(root: type[Section], place: Place) -> str:
    """Returns a description of the values that are allowed at the key path `place` in the schema `root`."""
    return ", or ".join(dict.fromkeys(_described(*node) for node in _nodes(root, place)))


def wrong_value(root: type[Section], document: yaml_reader.Document, place: Place) -> tuple[str, str]:
    """Returns (message, line to type) about a value that the schema `root` does not allow at the key path `place`."""
    wanted, here = expected(root, place), found(document, place)
    problem = f"found {here}, expected {wanted}"
    if here == "an empty list" and wanted.startswith(_A_LIST):
        problem = f"found {here}, expected at least one: {wanted.removeprefix(_A_LIST)}"
    elif document.scalars.get(place) and (choices := _choices(_nodes(root, place))):
        problem = f"{here} is not one of {_named(choices)}"
    for more, line in _likely(root, document, place):
        if _is_right(root, above(place), line):
            return problem + more, line
    return problem, example(root, key_of(place), above(place))


def in_list(root: type[Section], document: yaml_reader.Document, place: Place, fix: str) -> str:
    """Returns the user's list as a line to type: its wrong entry, at `place`, is replaced by that of `fix`.

    `fix` is a line `key: [entry]`. Returns `fix` itself if it is another line, or if the list has no other entries, and
    `- entry` if the new line is too long or the schema `root` does not allow it.
    """
    key, _, typed = fix.partition(": [")
    count = len(document.value(place[:-1])) if place and isinstance(place[-1], int) else 1
    if count == 1 or not typed:
        return fix
    others = [_typed(document.scalars.get((*place[:-1], at), "")) for at in range(count) if at != place[-1]]
    entry = typed.removesuffix("]").partition(", ")[0]
    more = (re.sub(r"(-\d+)?$", f"-{number}", entry, count=1) for number in itertools.count(2))
    entry = next(each for each in (entry, *itertools.islice(more, count)) if each not in others)
    others.insert(int(place[-1]), entry)
    line = f"{key}: [{', '.join(others)}]"
    return line if len(line) <= _LONGEST_LIST and _is_right(root, above(place), line) else f"- {entry}"


def _likely(root: type[Section], document: yaml_reader.Document, place: Place) -> Iterator[tuple[str, str]]:
    """Yields what the value at the key path `place` may mean, likeliest first: (text for the message, line to type).

    The schema `root` may not allow the value of a line; `wrong_value` takes the first line that it allows.
    """
    value, written = document.value(place), document.scalars.get(place, "")
    if not place or value is None:
        return
    key, usual, nodes = _typed(key_of(place)), example(root, key_of(place), above(place)), _nodes(root, place)
    words = [value] if isinstance(value, str) else [*value] if isinstance(value, tuple) else []
    all_text = bool(words) and all(isinstance(word, str) for word in words)

    def line(text: str) -> str:
        return f"{key}: [{text}]" if isinstance(place[-1], int) else f"{key}: {text}"

    for near in _closest(written or (words[0] if all_text and len(words) == 1 else ""), nodes):
        yield f"; did you mean {near!r}?", line(near)
    if words and not written:  # a list
        yield "", example(root, f"{key}s", above(place))
    if all_text and not written:
        one = key.removesuffix("s")
        yield f"; columns belong in {one!r}", f"{one}: [{', '.join(map(_typed, words))}]"
    if words and written and _is_plain(re.sub(", *", "", written)):
        yield "", f"{key}: [{written}]"
    if written and not words and (not isinstance(value, float) or abs(value) < float("inf")):
        yield f'; write it in quotes: "{written}"', line(f'"{written}"')
    if match := _NUMBER.fullmatch(written):  # `30%` may mean 30 or 0.3
        number = float(match[1].replace(",", "."))
        yield from (("", line(f"{each:.10g}")) for each in (number, number / 100))
    if all_text and all(word.isprintable() and len(word) <= _LONGEST_NAME for word in words):
        usually = re.findall(r"[\w.-]+", usual)[-1]
        yield "", f"{key}: {{{', '.join(f'{_typed(word)}: {usually}' for word in words)}}}"
    if written and _is_plain(written) and not (words and _NUMBER.fullmatch(written)):
        yield from (("", each) for each in _as_first_key(key, written, usual, nodes))


def _closest(written: str, nodes: Sequence[_Node]) -> list[str]:
    """Returns [the word most like `written`] of the words that the types `nodes` allow; [] if none is like it."""
    direct, inner = _choices(nodes), _choices([*_inside(nodes)])
    written = TRUTHS.get(written.lower(), written.lower()) if "true" in direct else written
    return difflib.get_close_matches(written, direct or inner, n=1, cutoff=0.5 if direct else 0.7)


def _as_first_key(key: str, written: str, usual: str, nodes: Sequence[_Node]) -> Iterator[str]:
    """Yields lines `key: {FIRST: written}`, such as `test: {file: test.csv}`, for each section in the types `nodes`.

    FIRST is the first key of the section. Further keys of the section are copied from `usual`, the example line of
    `key`. Of several sections, the one whose example has the same suffix as `written` (a file) is first.
    """
    first = [next(iter(kind.model_fields.items())) for kind, _ in nodes if _is_section(kind)]
    for name, field in sorted(first, key=lambda each: Path(_example(each[1])).suffix != Path(written).suffix):
        is_path = any(kind is Path for kind, _ in _flat(field.annotation, ()))
        if not is_path or {".", "/"}.intersection(written):
            start = f"{key}: {{{name}: "
            rest = re.match(r"[^,}]+(.*)", usual[len(start) :]) if usual.startswith(start) else None
            yield f"{start}{written}{rest[1] if rest else '}'}"


def _is_right(root: type[Section], place: Place, line: str) -> bool:
    """Whether the schema `root` allows `line`, `key: value`, in the mapping at `place`, whatever its other keys are."""
    try:
        typed = yaml_reader.read(line, "").data if len(line) <= _LONGEST_LINE else {}
    except ConfigError:
        return False
    while not (sections := [kind for kind, _ in _nodes(root, place) if _is_section(kind)]):
        typed, place = {key_of(place): typed}, above(place)  # a map, whose keys are the user's
    key = next(iter(typed), "") if isinstance(typed, dict) else ""
    return any(key in kind.model_fields and key not in _wrong_keys(kind, typed) for kind in sections)


def _wrong_keys(kind: type[Section], data: dict[str, Any]) -> set[Any]:
    try:
        kind.model_validate(data)
    except ValidationError as error:
        return {each["loc"][0] for each in error.errors() if each["loc"]}
    return set()


def _is_plain(written: str) -> bool:
    return len(written) <= LONGEST_SHOWN and all(letter.isalnum() or letter in "._-/@%" for letter in written)


def _typed(text: str) -> str:
    return text if _is_plain(text) else json.dumps(text, ensure_ascii=not text.isprintable())


# --- the models, by place ---------------------------------------------------------------------------------------------
_Node = tuple[Any, tuple[Any, ...]]


@functools.lru_cache(maxsize=1024)
def _nodes(root: type[Section], place: Place) -> list[_Node]:
    """Returns (type, metadata) of each type that the schema `root` allows at the key path `place`; [] if none."""
    nodes: list[_Node] = [(root, ())]
    for part in place:
        nodes = list(_inside(nodes))
        if isinstance(part, int):
            inner = [_flat(get_args(kind)[0], ()) for kind, _ in nodes if _origin(kind) is tuple]
        else:
            maps = [_flat(get_args(kind)[1], ()) for kind, _ in nodes if _origin(kind) is dict]
            fields = [kind.model_fields[part] for kind, _ in nodes if _is_section(kind) and part in kind.model_fields]
            inner = maps + [_flat(field.annotation, tuple(field.metadata)) for field in fields]
        nodes = [node for group in inner for node in group]
    return nodes


def _flat(annotation: Any, metadata: tuple[Any, ...]) -> Iterator[_Node]:
    """Yields (type, metadata) of each type in an annotation: `Annotated[int | str, M]` -> (int, (M,)), (str, (M,))."""
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


def _inside(nodes: Sequence[_Node]) -> Iterator[_Node]:
    """Yields (type, metadata) of each type in `nodes`; splits every union, even one that `Words` gives a name."""
    for kind, _ in nodes:
        yield from _flat(kind, ())


def _choices(nodes: Sequence[_Node]) -> list[str]:
    """Returns the words and numbers in each Literal among the types `nodes`, and for bool true and false."""
    kinds = (kind for kind, _ in nodes if kind is bool or _origin(kind) is Literal)
    return [str(choice) for kind in kinds for choice in get_args(kind) or ("true", "false")]


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
    kinds = {bool: "true or false", int: "a whole number", float: "a number", Path: "a path"}
    return (words or kinds.get(kind, "text")) + _bounds(metadata)


def _named(choices: Sequence[Any]) -> str:
    """Returns words or numbers for a message; signs, such as a comma, are in quotes."""
    return ", ".join(word if any(map(str.isalnum, word)) else repr(word) for word in map(str, choices))


def _origin(kind: Any) -> Any:
    """Calls `typing.get_origin`; mypy infers the wrong return type (ParamSpec) for a direct call."""
    return get_origin(kind)


def _words(metadata: tuple[Any, ...]) -> str:
    return next((each.text for each in metadata if isinstance(each, Words)), "")


def _bounds(metadata: tuple[Any, ...]) -> str:
    limits = [(name, getattr(each, name, None)) for each in metadata for name in _BOUNDS]
    bounds = {name: limit for name, limit in limits if limit is not None}
    if {"ge", "le"} <= bounds.keys():
        return f" from {bounds['ge']:.16g} to {bounds['le']:.16g}"
    found = [f"{word} {bounds[name]:.16g}" for name, word in _BOUNDS.items() if name in bounds]
    return f", {' and '.join(found)}" if found else ""

"""Changes values in the text of a deploy.yaml.

`with_values` replaces or adds keys of one mapping. It keeps every other character, and checks that no other value
changed. Never reads or writes a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from knnkit.config import yaml_reader
from knnkit.errors import ConfigError

_ANCHOR = re.compile(r"&\S+[ \t]+")


def with_values(text: str, place: Sequence[str | int], values: Mapping[str, str | int | float], source: str) -> str:
    """Returns `text` with the keys of `values` set to their new values in one mapping; adds keys that it does not have.

    `text` is that of a deploy.yaml called `source` in messages; `place` is the key path of the mapping: ("models", 0).

    Raises:
        ConfigError: other values would change, too (YAML aliases); the hint is what to write by hand.
    """
    hint = ", ".join(f"{key}: {value}" for key, value in values.items())
    wanted = yaml_reader.read(text, source)
    wanted.value(place).update(values)
    said = "knnkit cannot change these values, because the file uses them elsewhere, too"
    return _checked(wanted, lambda: _changed(text, place, values), wanted.error(place, said), hint)


def with_file(text: str, place: Sequence[str | int], file: str, name: str | None, source: str) -> str:
    """Returns `text` with `file` added to `files` in one `data` section: `file: a.csv` becomes `files: [a.csv, b.csv]`.

    `text` is that of a deploy.yaml called `source` in messages; `place` is the key path of the section. Also adds
    `id: NAME`, the column `name` that identifies rows, unless `name` is None.

    Raises:
        ConfigError: other values would change, too (YAML aliases); the hint is what to write by hand.
    """
    wanted = yaml_reader.read(text, source)
    data = wanted.value(place)
    before = data.pop("file", None) or data.get("files")
    data["files"] = (*((before,) if isinstance(before, str) else before), file)
    data |= {"id": name} if name else {}
    hint = f"files: [{', '.join(map(_quoted, data['files']))}]" + (f", id: {name}" if name else "")
    said = wanted.error(
        place, "knnkit cannot add a data file here, because deploy.yaml uses this section elsewhere, too"
    )
    return _checked(wanted, lambda: _with_file(text, place, file, name), said, hint)


def _checked(wanted: yaml_reader.Document, change: Callable[[], str], said: str, hint: str) -> str:
    """Returns the text of `change()`; ConfigError (`said`, `hint`) unless it is YAML with the values of `wanted`."""
    try:
        changed = change()
        if yaml_reader.read(changed, wanted.source).data == wanted.data:
            return changed
    except (ConfigError, StopIteration):
        pass
    raise ConfigError(said, hint=f"write them by hand: {hint}")


def _with_file(text: str, place: Sequence[str | int], file: str, name: str | None) -> str:
    node = _node(yaml.compose(text, Loader=yaml_reader.Loader), place)
    key, value = next(each for each in node.value if each[0].value in ("file", "files"))
    newline = "\r\n" if "\r\n" in text else "\n"
    if isinstance(value, yaml.ScalarNode):
        start, end = key.start_mark.index, value.end_mark.index
        new = f"files: [{text[value.start_mark.index : end]}, {_quoted(file)}]"
    else:
        start = end = value.value[-1].end_mark.index
        new = f", {_quoted(file)}" if value.flow_style else f"{newline}{' ' * value.start_mark.column}- {_quoted(file)}"
    text = text[:start] + new + text[end:]
    if name is None:
        return text
    join = ", " if node.flow_style else newline + " " * key.start_mark.column
    return f"{text[: key.start_mark.index]}id: {name}{join}{text[key.start_mark.index :]}"


def _quoted(text: str) -> str:
    plain = text.isascii() and all(letter.isalnum() or letter in "._-/" for letter in text) and text[0] not in ".-"
    return text if plain or text[:2] == "./" else "'" + text.replace("'", "''") + "'"


def _changed(text: str, place: Sequence[str | int], values: Mapping[str, str | int | float]) -> str:
    node = _node(yaml.compose(text, Loader=yaml_reader.Loader), place)
    there = {key.value: (key, value) for key, value in node.value}
    edits, added = [], []
    for key, value in values.items():
        if key in there:
            old = there[key][1]
            start, end = old.start_mark.index, old.end_mark.index
            start += len(anchor[0]) if (anchor := _ANCHOR.match(text[start:end])) else 0
            edits.append((start, end, f" {value}" if start == end else f"{value}"))
        else:
            added.append(f"{key}: {value}")
    if added:
        edits.append(_insertion(text, there, added, flow=bool(node.flow_style)))
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _node(node: Any, place: Sequence[str | int]) -> Any:
    for part in place:
        if isinstance(part, int):
            node = node.value[part]
        else:
            node = next(value for key, value in node.value if key.value == part)
    return node


def _insertion(text: str, there: Mapping[str, Any], added: list[str], *, flow: bool) -> tuple[int, int, str]:
    """Returns the edit (start, end, new text) that inserts `added`, new lines `key: value`, into a mapping.

    They come after an existing key: the first of scale, weights, metric, k, seed, test and name whose value is on the
    key's line. `there`: key -> (key node, value node); `flow`: whether the mapping is `{key: value}`.
    """
    after = next(key for key in ("scale", "weights", "metric", "k", "seed", "test", "name") if _is_short(there, key))
    key, value = there[after]
    if flow:
        end = value.end_mark.index
        return end, end, "".join(f", {each}" for each in added)
    end = text.find("\n", value.end_mark.index)
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = "".join(" " * key.start_mark.column + each + newline for each in added)
    return (end + 1, end + 1, lines) if end >= 0 else (len(text), len(text), newline + lines)


def _is_short(there: Mapping[str, Any], key: str) -> bool:
    if key not in there or not isinstance(there[key][1], yaml.ScalarNode):
        return False
    before, value = there[key]
    return bool(before.start_mark.line == value.end_mark.line)

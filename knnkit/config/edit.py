"""Changes values in the text of a deploy.yaml.

`with_values` replaces or adds keys of one mapping, leaves every other character, and checks that nothing else changed.
Never reads or writes a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from knnkit.config import yaml_reader
from knnkit.errors import ConfigError


def with_values(text: str, place: Sequence[str | int], values: Mapping[str, str | int | float], source: str) -> str:
    """Returns `text` with these values in the mapping at `place`, such as ("models", 0).

    Raises:
        ConfigError: the text cannot be changed there without other changes; the hint is what to write by hand.
    """
    hint = ", ".join(f"{key}: {value}" for key, value in values.items())
    wanted = yaml_reader.read(text, source)
    _at(wanted.data, place).update(values)
    try:
        changed = _changed(text, place, values)
        if yaml_reader.read(changed, source).data == wanted.data:
            return changed
    except (ConfigError, StopIteration):
        pass
    said = wanted.error(place, "the values here cannot be changed alone, because the file uses them elsewhere")
    raise ConfigError(said, hint=f"write them by hand: {hint}")


def _at(data: Any, place: Sequence[str | int]) -> Any:
    for part in place:
        data = data[part]
    return data


def _changed(text: str, place: Sequence[str | int], values: Mapping[str, str | int | float]) -> str:
    node = _node(yaml.compose(text, Loader=yaml_reader.Loader), place)
    there = {key.value: (key, value) for key, value in node.value}
    edits, added = [], []
    for key, value in values.items():
        if key in there:
            old = there[key][1]
            start, end = old.start_mark.index, old.end_mark.index
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
    """Returns where new keys go: behind the last of these keys that has its value on its own line."""
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

"""Parses deploy.yaml into pydantic models, with precise errors.

`parse` takes text and does no I/O (`knnkit.config.load` reads the file). An error names file and line, quotes the line,
and suggests the closest known word. The models (`models`, `fleet_models`) are the single source of the JSON Schema
(`knnkit schema`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic

from knnkit.config import messages, yaml_reader
from knnkit.config.answer_models import GatesConfig
from knnkit.config.data_models import Data, FileData, GroupSplit, SklearnData, SkopsData, TestFile, TimeSplit
from knnkit.config.field_types import parse_amount, parse_duration, split_address
from knnkit.config.fleet_models import RolloutConfig, TargetConfig
from knnkit.config.models import Build, Config, ModelConfig
from knnkit.config.yaml_reader import FILE_NAME
from knnkit.errors import ConfigError

__all__ = [
    "Build", "Config", "Data", "FileData", "GatesConfig", "GroupSplit", "ModelConfig", "RolloutConfig", "SklearnData",
    "SkopsData", "TargetConfig", "TestFile", "TimeSplit", "json_schema", "parse", "parse_amount", "parse_duration",
    "split_address",
]  # fmt: skip

#: Most errors that one message explains: a large wrong file has hundreds of thousands.
_MOST_ERRORS = 100
#: Unknown keys of one section that one message names, at most.
_MOST_PASSES = 10
#: Errors that an unknown key may cause: the key that it stands for is missing.
_FOLLOW = ("missing", "no_sense", "too_short")


def parse(text: str, *, source: str = FILE_NAME, base: Path | None = None, home: Path | None = None) -> Config:
    """Parses the text of a deploy.yaml.

    Args:
        text: the text of the file.
        source: the file's name in messages.
        base: folder to which relative paths refer; None leaves the paths relative.
        home: home directory, for `~` in a path; None leaves `~` unchanged.

    Raises:
        ConfigError: the text is invalid; the message has file, line and a suggestion.
    """
    document = yaml_reader.read(text, source)
    try:
        return Config.of(document, {"base": base, "home": home})
    except pydantic.ValidationError as error:
        errors = _beside_unknown_keys(document, error.errors(include_url=False))
        wrong = dict.fromkeys(_explain(document, each) for each in itertools.islice(_innermost(errors), _MOST_ERRORS))
    *others, (last, hint) = wrong
    raise ConfigError("\n".join([*(f"{problem}\n  try: {fix}" for problem, fix in others), last]), hint=hint)


def _beside_unknown_keys(document: yaml_reader.Document, errors: list[Any]) -> list[Any]:
    """Returns `errors`, and those that pydantic did not find: it skips the rest of a section with an unknown key."""
    data, new = document.data, errors
    for _ in range(_MOST_PASSES):
        unknown = [(*document.place(each["loc"]), each["ctx"]["key"]) for each in new if each["type"] == "unknown_key"]
        if not unknown:
            break
        for place in dict.fromkeys(unknown):
            data = _without(data, place)
        try:
            Config.model_validate(data)
            new = []
        except pydantic.ValidationError as error:
            seen = {(each["type"], each["loc"]) for each in errors if each["type"] != "unknown_key"}
            found = [each for each in error.errors(include_url=False) if each["type"] not in _FOLLOW]
            new = [each for each in found if (each["type"], each["loc"]) not in seen]
        errors = sorted([*errors, *new], key=lambda each: _position(document, each))
    return errors


def _position(document: yaml_reader.Document, details: Any) -> tuple[int, int]:
    key = details.get("ctx", {}).get("key")
    mark = document.mark((*document.place(details["loc"]), *([key] if key else [])))
    return mark.line, mark.column


def _without(value: Any, place: yaml_reader.Place) -> Any:
    """Returns a copy of `value`, the value of a document, without the key at `place`."""
    first, *rest = place
    if isinstance(value, tuple):
        return tuple(_without(each, (*rest,)) if index == first else each for index, each in enumerate(value))
    return {
        key: _without(each, (*rest,)) if key == first else each for key, each in value.items() if rest or key != first
    }


def _innermost(errors: list[Any]) -> Iterator[Any]:
    """Yields the errors, except "the list is too short" about a list in which an entry has an error of its own."""
    for each in errors:
        place = each["loc"]
        if each["type"] != "too_short" or not any(
            place == other["loc"][: len(place)] != other["loc"] for other in errors
        ):
            yield each


def _explain(document: yaml_reader.Document, details: Any) -> tuple[str, str]:
    """Returns the message about one error of pydantic (`details`), with file and line, and a line to type instead."""
    kind, context = details["type"], details.get("ctx", {})
    place = document.place(details["loc"])
    if kind == "unknown_key":
        problem, fix = messages.unknown_key(Config, document, place, context)
        return document.error((*place, context["key"]), messages.prefix_of(place) + problem), fix
    if kind == "no_sense":
        inner = [int(part) if part.isdigit() else part for part in context["at"].split("/")]
        at = document.place((*place, *inner))
        return document.error(at, messages.prefix_of(at) + context["problem"]), context["hint"]
    if kind == "missing":
        key = str(details["loc"][-1])
        problem = f"{messages.prefix_of(place)}the key {key!r} is missing"
        return document.error(place, problem), messages.example(Config, key, place)
    if kind == "value_error":
        problem, fix = str(context["error"]), messages.example(Config, messages.key_of(place), messages.above(place))
    else:
        problem, fix = messages.wrong_value(Config, document, place)
    return document.error(place, messages.prefix_of(place) + problem), messages.in_list(Config, document, place, fix)


def json_schema() -> dict[str, Any]:
    """Returns the JSON Schema (2020-12) of deploy.yaml, as a dictionary, for editors."""
    schema = Config.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = FILE_NAME
    schema["$defs"]["FleetConfig"]["properties"]["targets"]["items"] = {
        "anyOf": [{"$ref": "#/$defs/TargetConfig"}, {"type": "string"}]
    }
    return schema

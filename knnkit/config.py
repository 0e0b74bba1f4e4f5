"""deploy.yaml: what to build, how to sign it, where to put it and how fast, as frozen models.

`parse` takes text and does no I/O (`knnkit.deployfile` reads the file). Whatever does not fit is reported with file,
line, the line itself and the closest known word. The models (knnkit.config_models, knnkit.config_fleet) are the
single source of the JSON Schema (`knnkit schema`).
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

import pydantic

from knnkit import config_yaml
from knnkit.config_fleet import FleetConfig, RolloutConfig, TargetConfig, TargetDefaults
from knnkit.config_models import (
    Build,
    Config,
    Data,
    FileData,
    GatesConfig,
    ModelConfig,
    ReleaseConfig,
    SigningConfig,
    SklearnData,
    SkopsData,
    TestFile,
)
from knnkit.config_types import parse_amount, parse_duration, split_address
from knnkit.errors import ConfigError

__all__ = [
    "FILE_NAME",
    "Build",
    "Config",
    "Data",
    "FileData",
    "FleetConfig",
    "GatesConfig",
    "ModelConfig",
    "ReleaseConfig",
    "RolloutConfig",
    "SigningConfig",
    "SklearnData",
    "SkopsData",
    "TargetConfig",
    "TargetDefaults",
    "TestFile",
    "json_schema",
    "parse",
    "parse_amount",
    "parse_duration",
    "split_address",
]

FILE_NAME = "deploy.yaml"


def parse(text: str, *, source: str = FILE_NAME, base: Path | None = None, home: Path | None = None) -> Config:
    """Parses the text of a deploy.yaml.

    Args:
        text: the whole file.
        source: names the file in messages.
        base: where relative paths start; None leaves them relative.
        home: what `~` in a path is; None leaves it.

    Raises:
        ConfigError: it does not fit; the message has file, line and a suggestion.
    """
    document = config_yaml.read(text, source)
    try:
        return Config.model_validate(document.data, context={"base": base, "home": home})
    except pydantic.ValidationError as error:
        said = [_explain(document, details) for details in error.errors(include_url=False)]
        raise ConfigError("\n".join(dict.fromkeys(said)), hint="knnkit schema") from None


def _explain(document: config_yaml.Document, details: Any) -> str:
    kind, place, context = details["type"], details["loc"], details.get("ctx", {})
    if kind in ("unknown_key", "misplaced_key"):
        return document.error((*place, context["key"]), context["said"])
    if kind == "no_such_tag":
        return document.error(context["at"], context["said"])
    if kind == "missing":
        return document.error(place[:-1], f"the key {place[-1]!r} is missing")
    place = document.place(place)
    name = next((f"{part}: " for part in reversed(place) if isinstance(part, str)), "")
    return document.error(place, name + _reword(details, document.scalars.get(place, "")))


def _reword(details: Any, written: str) -> str:
    kind, value, context = details["type"], details.get("input"), details.get("ctx", {})
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"])
        close = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.5)
        more = f"; did you mean {close[0]!r}?" if close else ""
        return f"{value!r} is not one of {', '.join(choices)}{more}"
    if kind == "string_type" and isinstance(value, int | float):
        return f'expected text, found a number; write it in quotes: "{written}"'
    if kind == "value_error":
        return str(context["error"])
    message: str = details["msg"]
    message = message[0].lower() + message[1:]
    return message if isinstance(value, dict | tuple | list) else f"{message}, found {value!r}"


def json_schema() -> dict[str, Any]:
    """Returns the JSON Schema (2020-12) of deploy.yaml, for editors."""
    schema = Config.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = FILE_NAME
    schema["$defs"]["FleetConfig"]["properties"]["targets"]["items"] = {
        "anyOf": [{"$ref": "#/$defs/TargetConfig"}, {"type": "string"}]
    }
    return schema

"""The field types of deploy.yaml: durations, amounts, names, addresses, paths that start at the file. No I/O."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, WithJsonSchema
from pydantic_core import PydanticCustomError

from device_agent import contract

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST = 36_500 * 86_400.0


def parse_duration(value: Any) -> Any:
    """Returns seconds for `90`, `"60s"`, `"500ms"`, `"5m"`, `"12h"` or `"90d"`; other values as they are."""
    if not isinstance(value, str):
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)\s*", value)
    if not match:
        raise ValueError(f"{value!r} is not a duration: write 60s, 500ms, 5m, 12h or 90d")
    seconds = float(match[1]) * _UNITS[match[2]]
    if seconds > _LONGEST:
        raise ValueError(f"{value!r} is longer than a hundred years, and than any clock can wait")
    return seconds


def parse_amount(value: Any) -> Any:
    """Checks a count or a percentage.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, str) and not re.fullmatch(r"(100|[0-9]{1,2})(\.[0-9]+)?%", value.strip()):
        raise ValueError(f"{value!r} is neither a count nor a percentage such as 10%")
    return value.strip() if isinstance(value, str) else value


def _as_path(value: Any) -> Any:
    return Path(value) if isinstance(value, str) and value else value


def _from_file(path: Path, info: pydantic.ValidationInfo) -> Path:
    context = info.context or {}
    if path.parts[:1] == ("~",) and context.get("home"):
        return Path(context["home"], *path.parts[1:])
    return Path(context.get("base") or "") / path


def check_name(value: str) -> str:
    """Checks the name of a model, a device or a class.

    Raises:
        ValueError: it is none.
    """
    if not contract.is_name(value):
        raise ValueError(f"{value!r}: letters, digits, '.', '_' and '-', at most 64, beginning with a letter or digit")
    return value


def check_printable(value: str) -> str:
    """Checks text that reaches a terminal and a device.

    Raises:
        ValueError: it is empty, or holds a control character.
    """
    if not value or not value.isprintable():
        raise ValueError(f"{value!r}: it is empty, or holds a character that cannot be printed")
    return value


def check_word(value: str) -> str:
    """Checks the name of a host or of a login.

    Raises:
        ValueError: it could not be one.
    """
    if value.startswith("-") or " " in value:
        raise ValueError(f"{value!r}: it begins with '-', or holds a space")
    return check_printable(value)


def check_jump(value: str) -> str:
    """Checks `user@host[:port]`, several with commas, or `none`.

    Raises:
        ValueError: it is none of them.
    """
    if value.lower() != "none":
        for one in value.split(","):
            split_address(one.strip().removeprefix("ssh://"))
    return value


def check_version(value: str) -> str:
    """Checks a release's version.

    Raises:
        ValueError: it is none.
    """
    if not contract.is_version(value):
        raise ValueError(f"{value!r}: letters, digits, '.', '+', '_' and '-', at most 64")
    return value


FilePath = Annotated[Path, BeforeValidator(_as_path), AfterValidator(_from_file), WithJsonSchema({"type": "string"})]
Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^[0-9.]+ ?(ms|s|m|h|d)$"}]}),
]
Amount = Annotated[int | str, BeforeValidator(parse_amount)]
Name = Annotated[str, AfterValidator(check_name)]
Word = Annotated[str, AfterValidator(check_word)]
Text = Annotated[str, AfterValidator(check_printable)]
Jump = Annotated[str, AfterValidator(check_jump)]


class Section(BaseModel):
    """A part of deploy.yaml: frozen, every key known, no value bent into another type."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    raise PydanticCustomError("unknown_key", "{said}", {"key": key, "said": _unknown(key, cls)})
        elif not isinstance(data, cls):
            raise PydanticCustomError("no_section", "{said}", {"said": f"expected keys such as {_keys(cls)}"})
        return data


def _keys(cls: type[Section]) -> str:
    return ", ".join(list(cls.model_fields)[:4])


#: What scikit-learn and others call it; too far from our word for spelling to find.
_ALSO_CALLED = {"neighbors": "k", "neighbours": "k", "n_neighbors": "k", "target": "label", "test_size": "test"}


def _unknown(key: str, cls: type[Section]) -> str:
    called = difflib.get_close_matches(key, _ALSO_CALLED, n=1, cutoff=0.8)
    if called and _ALSO_CALLED[called[0]] in cls.model_fields:
        return f"unknown key {key!r}; did you mean {_ALSO_CALLED[called[0]]!r}?"
    close = difflib.get_close_matches(key, cls.model_fields, n=1, cutoff=0.5)
    if close:
        return f"unknown key {key!r}; did you mean {close[0]!r}?"
    return f"unknown key {key!r}; known here: {', '.join(cls.model_fields)}"


def short_target(value: Any) -> Any:
    """Returns `user@host:port` as the keys of a target; other values as they are."""
    if not isinstance(value, str):
        return value
    user, host, port = split_address(value)
    return {"host": host, **({"user": user} if user else {}), **({"port": port} if port else {})}


def split_address(text: str) -> tuple[str | None, str, int | None]:
    """Splits `[user@]host[:port]`; an IPv6 address with a port stands in brackets.

    Raises:
        ValueError: there is no host, or the port is no port.
    """
    user, at, rest = text.rpartition("@")
    match = re.fullmatch(
        r"\[([^\]\s]+)\](?::([0-9]{1,5}))?|([^:\s\[\]]+)(?::([0-9]{1,5}))?|([0-9a-fA-F]*:[0-9a-fA-F:]*:[0-9a-fA-F:.%\w]*)",
        rest,
    )
    steers = not text.isprintable() or " " in text
    if not match or (at and not user) or rest.startswith("-") or user.startswith("-") or steers:
        raise ValueError(f"{text!r} is not an address: write user@host, host:port or [ipv6]:port")
    host = match[1] or match[3] or match[5]
    port = match[2] or match[4]
    if port and not 0 < int(port) < 65536:
        raise ValueError(f"{text!r}: {port} is not a port")
    return user or None, host, int(port) if port else None

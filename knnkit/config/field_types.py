"""Field types of deploy.yaml: durations, counts, names, addresses, paths."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, WithJsonSchema
from pydantic_core import PydanticCustomError

from device_agent.shared.protocol import constants


@dataclass(frozen=True)
class Words:
    """Annotation of a type: its name in messages such as "expected a duration"."""

    text: str


@dataclass(frozen=True)
class Example:
    """Example value of a key, as typed, for the hint (`try: ...`) of an error; without it, the default is shown."""

    text: str


#: Longest value that a message shows, in characters.
LONGEST_SHOWN = 60
#: Words that mean true or false elsewhere; in deploy.yaml they are text.
TRUTHS = dict.fromkeys(("yes", "on", "y", "1"), "true") | dict.fromkeys(("no", "off", "n", "0"), "false")
#: Characters that have a meaning for a shell.
_OBEYED_BY_SHELLS = frozenset("'\"`$\\;&<>|(){}")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST_SECONDS = 36_500 * 86_400.0


def shorten(text: str) -> str:
    """Returns a value for a message, cut to `LONGEST_SHOWN` characters."""
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + "..."


def _shown(text: str) -> str:
    return repr(shorten(text))


def each_once(words: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Returns `words` (None: no list), after checking that none is listed twice.

    Raises:
        ValueError: a word is repeated.
    """
    twice = next((word for at, word in enumerate(words or ()) if word in (words or ())[:at]), None)
    if twice is not None:
        raise ValueError(f"{_shown(twice)} is listed twice")
    return words


def parse_duration(value: Any) -> Any:
    """Converts `90`, `"60s"`, `"500ms"`, `"5m"`, `"12h"` or `"90d"` to seconds; returns other types unchanged.

    Raises:
        ValueError: a text is not a duration, or is longer than a hundred years.
    """
    if not isinstance(value, str):
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)\s*", value)
    if not match:
        raise ValueError(f"{_shown(value)} is not a duration: write 60s, 500ms, 5m, 12h or 90d")
    seconds = float(match[1]) * _UNITS[match[2]]
    if seconds > _LONGEST_SECONDS:
        raise ValueError(f"{_shown(value)} is longer than a hundred years")
    return seconds


def parse_lifetime(value: Any) -> Any:
    """Converts a lifetime such as `"365d"` to seconds; returns other types unchanged.

    Raises:
        ValueError: `value` has no unit, so it could be days or seconds; or it is not a duration.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"{value} has no unit: write 365d, 12h or 90s")
    return parse_duration(value)


def parse_amount(value: Any) -> Any:
    """Checks that `value` is a count or a percentage, and returns it without blanks around it.

    Raises:
        ValueError: it is neither a count nor a percentage.
    """
    if isinstance(value, str) and not re.fullmatch(r"(100|[0-9]{1,2})(\.[0-9]+)?%", value.strip()):
        raise ValueError(f"{_shown(value)} is neither a count nor a percentage such as 10%")
    if isinstance(value, int) and value < 0:
        raise ValueError(f"{value} is neither a count nor a percentage such as 10%")
    return value.strip() if isinstance(value, str) else value


def _as_path(value: Any) -> Any:
    return Path(value) if isinstance(value, str) and value else value


def _from_file(path: Path, info: pydantic.ValidationInfo) -> Path:
    context = info.context or {}
    if path.parts[:1] == ("~",) and context.get("home"):
        return Path(context["home"], *path.parts[1:])
    return Path(context.get("base") or "") / path


def check_name(value: str) -> str:
    """Returns the name of a model, a device or a class, after checking it.

    Raises:
        ValueError: `value` is not at most 64 letters from a to z, digits, `.`, `_` and `-`, first a letter or digit.
    """
    if not constants.is_name(value):
        rule = "at most 64 letters from a to z, digits, '.', '_' and '-', first a letter or digit"
        raise ValueError(f"{_shown(value)} is not a name: {rule}")
    return value


def check_printable(value: str) -> str:
    """Returns text that is printed on terminals and sent to devices, after checking it.

    Raises:
        ValueError: `value` is empty, or contains a control character.
    """
    if not value:
        raise ValueError(f"{_shown(value)}: it is empty")
    if not value.isprintable():
        odd = next(letter for letter in value if not letter.isprintable())
        raise ValueError(f"{_shown(value)}: it contains {odd!r}, which cannot be printed on one line")
    return value


def check_word(value: str) -> str:
    """Returns the name of a user, after checking it by rules that also hold for names of hosts.

    ssh_config passes names to shells (`ProxyCommand nc %h %p`, `Match exec`) and to paths (`IdentityFile ~/.ssh/%r`).
    So a name may not contain characters with a meaning for a shell, or `..` as a folder. OpenSSH 9.6 refuses them.

    Raises:
        ValueError: `value` contains one of these, a space or a control character, is empty, or begins with `-`.
    """
    check_printable(value)
    if value.startswith("-") or " " in value:
        raise ValueError(f"{_shown(value)}: it begins with '-', or contains a space")
    obeyed = next((letter for letter in value if letter in _OBEYED_BY_SHELLS), "")
    if obeyed:
        raise ValueError(f"{_shown(value)}: a name of a host or user cannot hold {obeyed!r}, which a shell would obey")
    if ".." in value.split("/"):
        raise ValueError(f"{_shown(value)}: a name of a host or user cannot hold '..' as a folder")
    return value


def check_host(value: str) -> str:
    """Returns the name of a host, after checking it.

    Raises:
        ValueError: `value` contains `@` or `://`, or `check_word` refuses it.
    """
    if "@" in value or "://" in value:
        raise ValueError(f"{_shown(value)}: only a host is allowed here, without a user or 'ssh://'")
    return check_word(value)


def check_jump(value: str) -> str:
    """Returns the hosts of a jump, after checking them: `user@host[:port]`, several separated by commas, or `none`.

    Raises:
        ValueError: `value` has another form.
    """
    if value.lower() != "none":
        for one in value.split(","):
            split_address(one.strip().removeprefix("ssh://"))
    return value


def check_wave(value: int | str) -> int | str:
    """Returns an entry of `waves`, after checking it: a tag, a percentage such as `10%`, or a count from 1.

    Raises:
        ValueError: `value` is none of these three.
    """
    if isinstance(value, int) and (isinstance(value, bool) or value < 1):
        raise ValueError(f"{value!r}: a wave has at least one device")
    if isinstance(value, str) and not constants.is_name(value):
        try:
            parse_amount(value)
        except ValueError:
            problem = "is not a tag, a count or a percentage such as 10%"
            raise ValueError(f"{_shown(value)} {problem}") from None
    return value


def check_version(value: str) -> str:
    """Returns a release's version, after checking it.

    Raises:
        ValueError: `value` is not at most 64 letters from a to z, digits, `.`, `+`, `_` and `-`.
    """
    if not constants.is_version(value):
        rule = "at most 64 letters from a to z, digits, '.', '+', '_' and '-'"
        raise ValueError(f"{_shown(value)} is not a version: {rule}")
    return value


#: Validator of a list of texts: a text alone becomes a list with this one entry.
ONE_OR_MORE = BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
FilePath = Annotated[Path, BeforeValidator(_as_path), AfterValidator(_from_file), WithJsonSchema({"type": "string"})]
Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^[0-9.]+ ?(ms|s|m|h|d)$"}]}),
    Words("a duration (500ms, 60s, 5m, 12h, 90d) or a number of seconds"),
]
Lifetime = Annotated[
    float,
    BeforeValidator(parse_lifetime),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9.]+ ?(ms|s|m|h|d)$"}),
    Words("a duration (12h, 90d)"),
]
Amount = Annotated[int | str, BeforeValidator(parse_amount), Words("a count or a percentage such as 10%")]
Name = Annotated[str, AfterValidator(check_name), Words("a name")]
Word = Annotated[str, AfterValidator(check_word), Words("a name")]
Host = Annotated[str, AfterValidator(check_host), Words("a name")]
Text = Annotated[str, AfterValidator(check_printable), Words("text")]
Wave = Annotated[int | str, AfterValidator(check_wave), Words("a tag, a share (25%) or a count")]
Jump = Annotated[str, AfterValidator(check_jump), Words("user@host[:port]")]


def no_sense(problem: str, hint: str, at: str = "") -> PydanticCustomError:
    """Returns the error for values that are valid alone, but contradict each other.

    `at`: the key that the message names, as a path inside the checked section, joined by `/`; "": the section.
    """
    return PydanticCustomError("no_sense", "{problem}", {"problem": problem, "hint": hint, "at": at})


class Section(BaseModel):
    """Base of the sections of deploy.yaml: frozen; refuses unknown keys, and converts no types."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    raise PydanticCustomError("unknown_key", "{problem}", {"key": key, **_unknown(key, cls)})
        elif not isinstance(data, cls):
            raise PydanticCustomError("no_section", "expected keys")
        return data


def keys_of(cls: type[Section]) -> str:
    """Returns the names of a section's first four keys, separated by commas, for a message."""
    return ", ".join(list(cls.model_fields)[:4])


#: How alike two keys are if one is certainly the other, misspelt.
_SURE = 0.8
#: Names that scikit-learn and others use, too different from ours for a spelling match.
_ALSO_CALLED = {"neighbors": "k", "neighbours": "k", "n_neighbors": "k", "target": "label", "test_size": "test",
                "license": "licence", "random_state": "seed", "normalize": "scale", "kernel": "weights",
                "distance": "metric", "columns": "features", "exclude": "drop", "ignore": "drop", "csv": "file",
                "password": "identity", "ssh_key": "identity", "hostname": "host", "address": "host",
                "username": "user"}  # fmt: skip


def _unknown(key: str, cls: type[Section]) -> dict[str, Any]:
    """Returns the details of the error about an unknown key of the section `cls`.

    These are {"problem": message, "meant": the most similar known key ("" if none is similar), "sure": whether `key` is
    certainly that key, misspelt}.
    """
    called = difflib.get_close_matches(key, _ALSO_CALLED, n=1, cutoff=0.8)
    meant = [_ALSO_CALLED[word] for word in called if _ALSO_CALLED[word] in cls.model_fields]
    sure = bool(meant or difflib.get_close_matches(key.lower(), cls.model_fields, n=1, cutoff=_SURE))
    meant = meant or [name for name in cls.model_fields if sorted(name) == sorted(key.lower())]  # transposed letters
    meant = meant or difflib.get_close_matches(key.lower(), cls.model_fields, n=1, cutoff=0.5)
    problem = f"did you mean {meant[0]!r}?" if meant else f"known here: {', '.join(cls.model_fields)}"
    problem = "keys are not merged here: write out those of the other mapping" if key == "<<" else problem
    return {"problem": f"unknown key {_shown(key)}; {problem}", "meant": meant[0] if meant else "", "sure": sure}


def short_target(value: Any) -> Any:
    """Converts the text `user@host:port` to the keys of a target; returns other values unchanged."""
    if not isinstance(value, str):
        return value
    user, host, port = split_address(value)
    return {"host": host, **({"user": user} if user else {}), **({"port": port} if port else {})}


def split_address(text: str) -> tuple[str | None, str, int | None]:
    """Splits `[user@]host[:port]` into user, host and port (None: absent); IPv6 with a port needs brackets.

    Raises:
        ValueError: there is no host, a name is not allowed, or the port is not a port number.
    """
    user, at, rest = text.rpartition("@")
    match = re.fullmatch(
        r"\[([^\]\s]+)\](?::([0-9]{1,5}))?|([^:\s\[\]]+)(?::([0-9]{1,5}))?|([0-9a-fA-F]*:[0-9a-fA-F:]*:[0-9a-fA-F:.%\w]*)",
        rest,
    )
    steers = not text.isprintable() or " " in text
    if not match or (at and not user) or rest.startswith("-") or user.startswith("-") or steers:
        raise ValueError(f"{_shown(text)} is not an address: write user@host, host:port or [ipv6]:port")
    host = check_host(match[1] or match[3] or match[5])
    check_word(user or "nobody")
    port = match[2] or match[4]
    if port and not 0 < int(port) < 65536:
        raise ValueError(f"{_shown(text)}: {port} is not a port")
    return user or None, host, int(port) if port else None

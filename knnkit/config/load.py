"""Reads the file deploy.yaml; `knnkit.config.parse` parses it."""

from __future__ import annotations

import difflib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from knnkit.config.yaml_reader import FILE_NAME, MAX_TEXT
from knnkit.errors import ConfigError

if TYPE_CHECKING:
    from knnkit.config.parse import Config

_MAX_BYTES = 4 * MAX_TEXT  # UTF-8 has at most four bytes a character


def load(path: str | Path) -> Config:
    """Reads a deploy.yaml; relative paths in it are relative to its folder.

    Raises:
        ConfigError: the file is missing, not text, or invalid; the message has file, line and a suggestion.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise ConfigError(f"{path}: more than {_MAX_BYTES:,} bytes", hint="is it the right file?")
        text = data.decode("utf-8").replace("\r\n", "\n")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file", hint=_suggest(path)) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not UTF-8 text: {error.reason} at byte {error.start}", hint="save it as UTF-8"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", hint=f"ls -ld {shlex.quote(str(path))}") from None
    from knnkit.config import parse  # pydantic, without which many a command does its work

    return parse.parse(text, source=str(path), base=path.absolute().parent, home=Path.home())


def _suggest(path: Path) -> str:
    beside = sorted(other.name for other in path.absolute().parent.glob("*.y*ml"))
    near = difflib.get_close_matches(path.name, beside, n=1)
    if near:
        return f"did you mean {path.with_name(near[0])}?"
    return "knnkit init" if path.name == FILE_NAME else shlex.join(["knnkit", "init", str(path)])

"""Reads deploy.yaml from the disk; what it means is for `knnkit.config` to say."""

from __future__ import annotations

from pathlib import Path

from knnkit import config
from knnkit.errors import ConfigError


def load(path: str | Path) -> config.Config:
    """Reads a deploy.yaml; relative paths in it start at the file.

    Raises:
        ConfigError: it is missing, not text, or does not fit; the message has file, line and a suggestion.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file", hint="knnkit init") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not UTF-8 text: {error.reason} at byte {error.start}", hint="save it as UTF-8"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", hint=f"ls -ld {path}") from None
    return config.parse(text, source=str(path), base=path.absolute().parent, home=Path.home())

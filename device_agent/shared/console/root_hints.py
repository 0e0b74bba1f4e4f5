"""Finds the root of a command; completes commands in hints.

The code that writes a hint does not know which `--root` the user typed. Without it, the command in the hint could act
on another root. Nor does it know which Python runs: the board's own `python` does not have the agent.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import AgentError


def root_folder(typed: str = "") -> Path:
    """Returns the folder `typed` as `--root`, else $KNNKIT_ROOT, else the root of this Python, else ~/.knnkit.

    Raises:
        AgentError: the path begins with `~` or `~NAME`, and the system knows no such home folder.
    """
    text = typed or os.environ.get("KNNKIT_ROOT") or _own_root() or constants.DEFAULT_ROOT
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise AgentError(f"--root {text}: {error}") from None


def _own_root() -> str:
    """Returns DIR if this Python is that of the environment DIR/venv, which knnkit made; else ""."""
    prefix = Path(sys.prefix).resolve()
    root = prefix.parent.parent
    ours = prefix.parent.name == constants.VENVS_DIR and (root / constants.VENV_LINK).resolve() == prefix
    return str(root) if ours else ""


def with_root(hint: str, typed: str | Path) -> str:
    """Adds `--root`, if `typed` is not "", to each `python -m device_agent` command of a hint.

    If this Python belongs to a root, the path of that root's Python replaces the word `python`.
    """
    if str(typed) and "--root" not in hint:
        option = f" --root {shlex.quote(str(typed))}"
        hint = re.sub(r"python -m device_agent [a-z]+\b(?! --help)", lambda command: command[0] + option, hint)
    python = f"{root}/{constants.VENV_LINK}/bin/python" if (root := _own_root()) else "python"
    return re.sub(r"(?<![\w/])python(?= -m device_agent)", lambda _: shlex.quote(python), hint)


def with_root_of(hint: str, folder: Path) -> str:
    """Adds `--root` with `folder` to the agent's commands in a hint, unless they find this root without it."""
    with contextlib.suppress(AgentError, OSError):
        if folder == root_folder():
            return with_root(hint, "")
    return with_root(hint, folder)


def typed_root(words: Sequence[str]) -> str:
    """Returns the `--root` of a command line; "" if there is none."""
    last = ["", *(word.removeprefix("--root=") for word in words if word.startswith("--root="))][-1]
    return next((after for word, after in itertools.pairwise(words) if word == "--root"), last)

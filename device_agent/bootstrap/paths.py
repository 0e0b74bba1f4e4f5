"""ROOT on a board: where it may lie, what lies in it, and why work stops."""

from __future__ import annotations

import os
from pathlib import Path


class Trouble(Exception):
    """What stops the work: a stable word for programs, a sentence for people, and what to do next."""

    def __init__(self, reason: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.hint = hint


VENVS = "venvs"
LINK = "venv"  # to the environment in use
TRUST = "trust"
LOCK = "lock"  # the agent's


def resolved(name: str) -> Path:
    """The real path of the root; refuses the places that can never be one."""
    home = Path.home().resolve()
    root = Path(name).expanduser().resolve()
    if root == home or root in home.parents:
        raise Trouble("bad-root", f"{root} cannot be a folder of knnkit's own", "choose another, such as ~/.knnkit")
    return root


def existing(path: Path) -> Path:
    """The nearest folder at or above `path` that exists."""
    while not path.is_dir():
        if os.path.lexists(path):
            raise Trouble("bad-root", f"{path} is not a folder", "move it away, or choose another root")
        path = path.parent
    return path

"""The root folder on a board, and errors of provisioning."""

from __future__ import annotations

import os
from pathlib import Path


class Trouble(Exception):
    """An error of a command: `reason` is a stable word for programs, `hint` what to do next."""

    def __init__(self, reason: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.hint = hint


VENVS = "venvs"
LINK = "venv"  # to the environment in use
TRUST = "trust"
LOCK = "lock"  # the agent's


def resolved(name: str) -> Path:
    """Returns the real path of the root; raises Trouble (`bad-root`) for the home folder and its parents."""
    home = Path.home().resolve()
    root = Path(name).expanduser().resolve()
    if root == home or root in home.parents:
        raise Trouble("bad-root", f"{root} cannot be knnkit's own folder", "choose another folder, such as ~/.knnkit")
    return root


def existing(path: Path) -> Path:
    """Returns the nearest existing folder at or above `path`; raises Trouble (`bad-root`) if a file is there."""
    while not path.is_dir():
        if os.path.lexists(path):
            raise Trouble("bad-root", f"{path} is not a folder", "move that file away, or choose another root")
        path = path.parent
    return path

"""Adds `--root` to the commands in hints.

The code that writes a hint does not know which `--root` the user typed. Without it, the command in the hint would act
on the default root. Imported only for an error or a warning.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from device_agent.shared.protocol import constants


def with_root(hint: str, root: str | Path) -> str:
    """Adds `--root` to each `python -m device_agent` command of a hint, unless `root` is the default root or ""."""
    if not str(root) or "--root" in hint or str(root) in (constants.DEFAULT_ROOT, _default()):
        return hint
    option = f" --root {shlex.quote(str(root))}"
    return re.sub(r"python -m device_agent [a-z]+\b(?! --help)", lambda command: command[0] + option, hint)


def typed_root(words: Sequence[str]) -> str:
    """Returns the `--root` of a command line; "" if there is none."""
    last = ["", *(word.removeprefix("--root=") for word in words if word.startswith("--root="))][-1]
    return next((after for word, after in itertools.pairwise(words) if word == "--root"), last)


def _default() -> str:
    try:
        return str(Path(constants.DEFAULT_ROOT).expanduser())
    except RuntimeError:  # there is no home folder
        return ""

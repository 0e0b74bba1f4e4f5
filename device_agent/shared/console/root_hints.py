"""The agent's root in hints.

Hints are written where nobody knows the `--root` that the user typed; without it, the command to type would act on the
default root. Imported only for an error or a warning.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from device_agent.shared.protocol import constants


def with_root(hint: str, root: str | Path) -> str:
    """Returns a hint with `--root` in each `python -m device_agent` command, unless `root` is the default, or ""."""
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

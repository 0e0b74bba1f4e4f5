"""Known SHA-256 digests of wheels, by file name.

A wheel with a known name must have PyPI's bytes, wherever it comes from: an index, a cache, or the user's folder.
`python -m scripts.lock_wheels` makes the list, from PyPI. Fetches nothing.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from knnkit.errors import DeviceFailed

LOCK = Path(__file__).with_name("wheels.sha256")


def parse(text: str) -> dict[str, str]:
    """Parses output of `sha256sum` to file name -> hexadecimal SHA-256; skips lines that begin with #."""
    lines = [line.split(None, 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: digest for digest, name in lines}


@cache
def known() -> Mapping[str, str]:
    """Returns file name -> SHA-256 in hex of every known wheel."""
    return parse(LOCK.read_text(encoding="utf-8"))


def expected(name: str) -> str | None:
    """Returns the hexadecimal SHA-256 that a wheel with this name must have; None if no digest is known for it."""
    return next((digest for other, digest in known().items() if normalised(other) == normalised(name)), None)


def normalised(name: str) -> str:
    """Returns the name of a project or file in PEP 503's normal form, so that equal names compare equal."""
    return re.sub(r"[-_]+", "-", name).lower()


def refuse_another(path: Path, sha256: str) -> None:
    """Checks the SHA-256 of the wheel in `path`; accepts any if none is known for the wheel's name.

    Raises:
        DeviceFailed: the SHA-256 differs; the message has both digests.
    """
    right = expected(path.name)
    if right not in (None, sha256):
        raise DeviceFailed(
            f"{path} differs from the wheel of this name on PyPI: its SHA-256 is {sha256}, not {right}",
            reason="wheel-differs",
            hint=f"find out where the file came from; then: rm {shlex.quote(str(path))}, and run the command again",
        )

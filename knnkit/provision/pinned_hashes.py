"""Known SHA-256 digests of wheels, by file name.

A wheel with a known name must have PyPI's bytes, wherever it comes from: an index, a cache, or the user's folder.
`python -m scripts.lock_wheels` makes the list, from PyPI. Fetches nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from knnkit.errors import DeviceFailed

LOCK = Path(__file__).with_name("wheels.sha256")


def parse(text: str) -> dict[str, str]:
    """Returns file name -> SHA-256 in hex from the output of `sha256sum`; skips lines that begin with #."""
    lines = [line.split(None, 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: digest for digest, name in lines}


@cache
def known() -> Mapping[str, str]:
    """Returns file name -> SHA-256 in hex of every known wheel."""
    return parse(LOCK.read_text(encoding="utf-8"))


def expected(name: str) -> str | None:
    """Returns the SHA-256 in hex that a wheel of this name, in any spelling, must have; None if it is not known."""
    return next((digest for other, digest in known().items() if normalised(other) == normalised(name)), None)


def normalised(name: str) -> str:
    """Returns a project or file name in the form that PEP 503 compares."""
    return re.sub(r"[-_]+", "-", name).lower()


def refuse_another(path: Path, sha256: str) -> None:
    """Checks the SHA-256 of a wheel with a known name.

    Raises:
        DeviceFailed: it differs; the message has both digests.
    """
    right = expected(path.name)
    if right not in (None, sha256):
        raise DeviceFailed(
            f"{path} differs from the wheel of this name on PyPI: its SHA-256 is {sha256}, not {right}",
            reason="wheel-differs",
            hint=f"find out where it came from; then: rm {path}, and run the command again",
        )

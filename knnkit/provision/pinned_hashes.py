"""Which bytes a wheel must have: the SHA-256 of every wheel that a board may get, by file name, as PyPI has them.

A name that is known has one content, wherever the file comes from: an index, a cache, a folder of the user's own. Of
any other name nothing is known. `python -m scripts.lock_wheels` makes the list. Fetches nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from knnkit.errors import DeviceFailed

LOCK = Path(__file__).with_name("wheels.sha256")


def parse(text: str) -> dict[str, str]:
    """Returns file name -> SHA-256 in hex of what `sha256sum` prints; lines that begin with # are skipped."""
    lines = [line.split(None, 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: digest for digest, name in lines}


@cache
def known() -> Mapping[str, str]:
    """Returns file name -> SHA-256 in hex of every wheel that is known."""
    return parse(LOCK.read_text(encoding="utf-8"))


def expected(name: str) -> str | None:
    """Returns the SHA-256 in hex that a wheel by this name must have, however it is spelt; None: it is not known."""
    return next((digest for other, digest in known().items() if normalised(other) == normalised(name)), None)


def normalised(name: str) -> str:
    """Returns a project or file name as PEP 503 compares it."""
    return re.sub(r"[-_]+", "-", name).lower()


def refuse_another(path: Path, sha256: str) -> None:
    """Refuses a wheel that has a known name and other bytes.

    Raises:
        DeviceFailed: the message has both digests.
    """
    right = expected(path.name)
    if right not in (None, sha256):
        raise DeviceFailed(
            f"{path} is not the wheel that PyPI has by this name: its SHA-256 is {sha256}, not {right}",
            reason="wheel-differs",
            hint=f"find out where it came from; then: rm {path}, and run the command again",
        )

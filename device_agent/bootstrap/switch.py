"""Switches to an environment, and adds trusted keys."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from device_agent.bootstrap.environments import MARKER, current
from device_agent.bootstrap.files import PART, make_folder, safe, same, sync, write
from device_agent.bootstrap.paths import LINK, TRUST, VENVS, Trouble


def switch(root: Path, digest: str) -> str | None:
    """Makes `digest` the environment in use; returns the digest of the one before."""
    before = current(root)
    if before != digest:
        if (root / LINK).is_dir() and not (root / LINK).is_symlink():
            raise Trouble("bad-root", f"{root / LINK} is a folder; knnkit needs this name for a link", "move it away")
        if before is not None:
            os.utime(root / VENVS / before / MARKER)  # `prune` keeps the one that was in use last
        part = root / (LINK + PART)
        part.symlink_to(Path(VENVS) / digest)
        part.rename(root / LINK)
        sync(root)
    return before


def add_keys(root: Path, keys: dict[str, str]) -> list[str]:
    """Writes the trusted keys that are missing and returns their names; never removes a key."""
    make_folder(root / TRUST)
    added = []
    for name, text in sorted(keys.items()):
        path, part = root / TRUST / safe(name), root / TRUST / (name + PART)
        if not same(path, hashlib.sha256(text.encode()).hexdigest()):
            write(part, text.encode())
            part.rename(path)
            added.append(name)
    sync(root / TRUST)
    return added

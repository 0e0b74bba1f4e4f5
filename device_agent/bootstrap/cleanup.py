"""Removes unused environments and leftovers of interrupted runs."""

from __future__ import annotations

import os
from pathlib import Path

from device_agent.bootstrap.environments import MARKER, current, environments, works
from device_agent.bootstrap.files import PART, discard, listed, remove_tree
from device_agent.bootstrap.paths import LINK, VENVS
from device_agent.bootstrap.upload_dirs import busy, drop_place, is_place

#: Environments to keep: the one in use and the one before it, which a process may still be using.
KEPT = 2


def tidy(root: Path) -> bool:
    """Whether there is nothing to remove: no leftovers, and at most `KEPT` environments."""
    finished = environments(root)
    strays = [
        path for path in listed(root / VENVS) if path.name not in finished and not (is_place(path) and busy(path))
    ]
    return not strays and len(finished) <= KEPT and not os.path.lexists(root / (LINK + PART))


def clear_leftovers(root: Path) -> None:
    """Removes environments that are unfinished or cannot start, and upload folders whose connection has ended."""
    for path in listed(root / VENVS):
        if is_place(path):
            drop_place(path)
        elif not works(root, path.name):
            remove_tree(path)
    remove_tree(root / (LINK + PART))


def prune(root: Path, digest: str) -> None:
    """Removes all environments but `digest` and the one in use; if these are the same, also keeps the one before."""
    kept = {digest, current(root)}
    others = [root / VENVS / name for name in environments(root) if name not in kept]
    others.sort(key=lambda path: (path / MARKER).stat().st_mtime_ns, reverse=True)
    for path in others[KEPT - len(kept) :]:
        discard(path, path.with_name(path.name + PART), MARKER)

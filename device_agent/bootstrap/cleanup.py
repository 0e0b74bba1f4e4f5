"""What interrupted runs leave on a board, and environments that nobody needs any more: seen, and cleared."""

from __future__ import annotations

import os
from pathlib import Path

from device_agent.bootstrap.environments import MARKER, current, environments, works
from device_agent.bootstrap.files import PART, discard, listed, remove_tree
from device_agent.bootstrap.paths import LINK, VENVS
from device_agent.bootstrap.upload_dirs import busy, drop_place, is_place

#: Environments that stay: the one in use, and the one before it, which may still be running something.
KEPT = 2


def tidy(root: Path) -> bool:
    """Whether no interrupted run left anything behind."""
    finished = environments(root)
    strays = [
        path for path in listed(root / VENVS) if path.name not in finished and not (is_place(path) and busy(path))
    ]
    return not strays and len(finished) <= KEPT and not os.path.lexists(root / (LINK + PART))


def clear_leftovers(root: Path) -> None:
    """Removes environments that were never finished or cannot start, and places that nobody sends into any more."""
    for path in listed(root / VENVS):
        if is_place(path):
            drop_place(path)
        elif not works(root, path.name):
            remove_tree(path)
    remove_tree(root / (LINK + PART))


def prune(root: Path, digest: str) -> None:
    """Removes environments other than `digest` and the one in use; where that is the same, and the one before it."""
    kept = {digest, current(root)}
    others = [root / VENVS / name for name in environments(root) if name not in kept]
    others.sort(key=lambda path: (path / MARKER).stat().st_mtime_ns, reverse=True)
    for path in others[KEPT - len(kept) :]:
        discard(path, path.with_name(path.name + PART), MARKER)

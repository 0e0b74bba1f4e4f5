"""One at a time on a board: who provisions it holds its environments, who takes it away waits for nobody."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from device_agent.bootstrap.files import make_folder, remove_tree
from device_agent.bootstrap.paths import VENVS, Trouble


@contextlib.contextmanager
def locked(root: Path, wait: float, place: Path | None) -> Iterator[None]:
    """One provisioning at a time; `place` goes in the end, and on a bare board that stays bare, every folder."""
    handle = None
    try:
        handle = lock(root, wait)
        yield
    finally:
        if place:
            remove_tree(place)
        if handle is not None:
            os.close(handle)
        with contextlib.suppress(OSError):  # a folder that holds something stays
            (root / VENVS).rmdir()
            root.rmdir()


def lock(root: Path, wait: float) -> int:
    """The descriptor of VENVS, locked; another host that provisions this board is waited for so many seconds."""
    until = time.monotonic() + wait
    while True:
        make_folder(root / VENVS)
        handle = os.open(root / VENVS, os.O_RDONLY)
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), os.stat(root / VENVS)):  # noqa: PTH116 - else it was removed just now
                return handle
        os.close(handle)
        if time.monotonic() >= until:
            raise Trouble("locked", f"{root} is being provisioned by somebody else", "wait, then try again")
        time.sleep(0.1)


def refuse_if_held(path: Path) -> None:
    """Refuses while somebody deploys or provisions."""
    if path.exists():
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would be waited for
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Trouble("locked", f"{path} is held: a deploy is under way", "wait, then try again") from None
        finally:
            os.close(handle)

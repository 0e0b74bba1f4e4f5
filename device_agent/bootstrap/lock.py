"""Lock of the environments: one provisioning at a time."""

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
def locked(root: Path, wait: float, upload: Path | None) -> Iterator[None]:
    """Holds the lock during a `with` block; then removes `upload` and, if empty, ROOT/venvs and ROOT.

    Waits for the lock for `wait` seconds; `upload` is an upload folder or None.
    """
    handle = None
    try:
        handle = lock(root, wait)
        yield
    finally:
        if upload:
            remove_tree(upload)
        if handle is not None:
            os.close(handle)
        with contextlib.suppress(OSError):  # a folder that holds something stays
            (root / VENVS).rmdir()
            root.rmdir()


def lock(root: Path, wait: float) -> int:
    """Locks ROOT/venvs and returns its descriptor; raises Trouble (`locked`) if others hold it for `wait` seconds."""
    until = time.monotonic() + wait
    while True:
        make_folder(root / VENVS)
        handle = os.open(root / VENVS, os.O_RDONLY)
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), os.stat(root / VENVS)):  # noqa: PTH116 - else it was just removed
                return handle
        os.close(handle)
        if time.monotonic() >= until:
            raise Trouble("locked", f"another host is provisioning {root}", "wait, then try again")
        time.sleep(0.1)


def refuse_if_held(path: Path) -> None:
    """Raises Trouble (`locked`) if another process has locked `path`; never waits."""
    if path.exists():
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a pipe would block
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Trouble("locked", f"another process has locked {path}: a deploy runs", "try again later") from None
        finally:
            os.close(handle)

"""Lock of the store: one writer at a time.

A kernel lock on ROOT/lock; the file records who holds the lock, since when and why. The kernel releases the lock when
its process dies, so that no lock survives a crash. The record may remain then, and is ignored. Never breaks a held
lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from device_agent.shared.protocol import json_codec
from device_agent.shared.protocol.documents import LockHolder
from device_agent.shared.protocol.errors import Locked
from device_agent.shared.protocol.versions import utc
from device_agent.shared.safe_files import open_ordinary
from device_agent.system import durable

#: How long a command waits for the lock, in seconds; most commands hold it for milliseconds.
WAIT_SECONDS = 2.0
_POLL_SECONDS = 0.02
_MAX_RECORD = 4096


@contextlib.contextmanager
def held(path: Path, holder: str, reason: str, *, wait: float = WAIT_SECONDS) -> Iterator[int]:
    """Holds the lock during a `with` block; yields the lock's descriptor, which a forked child must close.

    `holder` and `reason` say who holds the lock and why, for others who have to wait.

    Raises:
        Locked: another process held the lock for all of `wait` seconds.
    """
    descriptor = _open(path)
    try:
        _acquire(descriptor, path, wait)
        # The record is only information: the lock also works without it (on a full disk).
        with contextlib.suppress(OSError, json_codec.TooLarge):
            os.ftruncate(descriptor, 0)
            record = LockHolder(holder, reason, int(time.time()), os.getpid())
            os.pwrite(descriptor, json_codec.dump_file(record, limit=_MAX_RECORD), 0)
        yield descriptor
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def holder_of(path: Path) -> LockHolder | None:
    """Returns who holds the lock at present; None if nobody does, even if a dead process left its record."""
    with contextlib.suppress(OSError), open_ordinary(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _record(file.fileno())
    return None


def _open(path: Path) -> int:
    """Opens the lock file, returns its descriptor; first renames a directory, link or pipe that has its name."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            durable.set_aside(path)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, durable.FILE_MODE)


def _acquire(descriptor: int, path: Path, wait: float) -> None:
    give_up = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= give_up:
                raise _locked(descriptor, path) from None
            time.sleep(_POLL_SECONDS)


def _locked(descriptor: int, path: Path) -> Locked:
    record = _record(descriptor)
    return Locked(
        f"{path.parent} is held by {record.holder} (process {record.pid}) since {utc(record.since)}: {record.reason}",
        hint="wait until that process ends",
    )


def _record(descriptor: int) -> LockHolder:
    with contextlib.suppress(OSError, ValueError):
        return json_codec.loads(LockHolder, os.pread(descriptor, _MAX_RECORD, 0), limit=_MAX_RECORD)
    return LockHolder("another process", "unknown", 0, 0)

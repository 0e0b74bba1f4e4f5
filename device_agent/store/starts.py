"""Counter of starts that died before their first answer.

A start is a process that begins to classify with the release. ROOT/starts has one line: the digest of the release, and
how many starts in a row have not answered. A start adds one, and resets the number to 0 at its first answer. Until then
it holds a lock on the file, which the kernel drops when the process dies. So a counted start without a lock has died.
While one start runs, others are not counted. A process that may not write ROOT counts nothing, and classifies as usual.
Does not decide what to do about failed starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator

from device_agent.shared.protocol.errors import AgentError, ModelUnusable, Refused
from device_agent.store import state
from device_agent.store.store import Store
from device_agent.system import clock

_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MOST = 999
_SIZE = 64 + 1 + 3 + 1


class Start:
    """A process that begins to classify with the answering release; counts as failed until `answered` or `withdraw`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._descriptor = -1
        self.digest = ""  # of the release; empty where nothing is counted
        self.failed = 0  # how many starts of it before this one died in a row
        self.begin()

    def begin(self) -> None:
        """Counts this start, unless it is counted already."""
        if self._descriptor >= 0:
            return
        with contextlib.suppress(OSError, AgentError):
            found = state.answering(self._store.load(), clock.now())
            if found and self._store.root.stat().st_uid == os.geteuid():
                self._descriptor = os.open(self._store.starts_file, _FLAGS | os.O_RDWR | os.O_CREAT, 0o600)
                self._count(found.release.digest)

    def _count(self, digest: str) -> None:
        try:
            if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
                raise FileExistsError
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            counted, number = _read(self._descriptor)
            self.digest, self.failed = digest, number if counted == digest else 0
            self._write(min(self.failed + 1, _MOST))
        except OSError:
            self.close()
            raise

    @property
    def in_doubt(self) -> bool:
        """Whether the start before this one died, and this one still counts (no answer yet, not withdrawn)."""
        return self._descriptor >= 0 and self.failed > 0

    def answered(self) -> None:
        """Resets the count to 0, because the release has answered."""
        self._end(0)

    def withdraw(self) -> None:
        """Removes this start from the count: the process ends or waits for a reason that is not the release's fault."""
        self._end(self.failed)

    def close(self) -> None:
        """Closes the file, and does not change the count."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _end(self, number: int) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                self._write(number)
            self.close()

    def _write(self, number: int) -> None:
        os.pwrite(self._descriptor, f"{self.digest} {number:03}\n".encode(), 0)
        os.fsync(self._descriptor)


@contextlib.contextmanager
def counted(store: Store) -> Iterator[Start]:
    """Counts a start, and takes it off the count at the end of the `with` block.

    It stays counted if the block raises Refused, ModelUnusable or MemoryError, or if the process is killed.
    """
    start = Start(store)
    try:
        yield start
    except (Refused, ModelUnusable, MemoryError):
        start.close()
        raise
    finally:
        start.withdraw()


def failed(store: Store, digest: str) -> int:
    """Returns how many starts of the release `digest` died in a row, not counting a start that still runs."""
    try:
        descriptor = os.open(store.starts_file, _FLAGS | os.O_RDONLY)
    except OSError:
        return 0
    try:
        counted, number = _read(descriptor)
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return number if counted == digest else 0
        return number - 1 if counted == digest and number else 0
    except OSError:
        return 0
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> tuple[str, int]:
    digest, _, number = os.pread(descriptor, _SIZE, 0).decode("ascii", "replace").rstrip("\n").partition(" ")
    return digest, int(number) if len(number) == 3 and number.isascii() and number.isdecimal() else 0

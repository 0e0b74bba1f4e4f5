"""Records the lines being answered, for the next process.

A row that kills the model ends the process, too. So the numbers of these lines are in a file under /dev/shm: memory,
which does not wear a flash card. A process that ends without an error removes its file. The next process reads at which
lines others died, and tries those lines in a child process first. A second process on the same root records nothing.
Holds only line numbers, never a row.

    with InFlight(store.root) as lines:
        lines.answering(89_985, 90_112)
        ...
        lines.answered()
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

#: Memory that every user may write, and that a restart of the board empties.
MEMORY = Path("/dev/shm")  # noqa: S108 (the file must belong to this user, and is not followed if it is a link)
_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LINE = "{:>19} {:>19}\n"
_SIZE = 40
#: Most deaths that are remembered.
_MOST = 100


def memory_file(root: Path, kind: str = "") -> Path:
    """Returns the path of a file in /dev/shm for this user and this root; `kind` is a suffix, such as "-rows".

    It is the same however `root` is spelled: a service and a person may name another link to the same folder.
    """
    name = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
    return MEMORY / f"knnkit-{os.geteuid()}-{name}{kind}"


def open_memory(path: Path, access: int = os.O_RDWR | os.O_CREAT) -> int:
    """Returns the descriptor of a file in /dev/shm; `access` are flags of `os.open`.

    Raises:
        OSError: the file does not exist, or belongs to another user: every user may create files in /dev/shm.
    """
    descriptor = os.open(path, access | _FLAGS, 0o600)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        os.close(descriptor)
        raise PermissionError(f"{path} belongs to another user")
    return descriptor


class InFlight:
    """The lines that this process is answering.

    Attributes:
        died_at: (first, last) number of the lines that each earlier process was answering when it died.
    """

    def __init__(self, root: Path) -> None:
        self._path = memory_file(root)
        self._descriptor = -1
        self.died_at: tuple[tuple[int, int], ...] = ()
        with contextlib.suppress(OSError):
            self._open()

    def __enter__(self) -> InFlight:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._descriptor < 0:
            return
        self.answered()
        with contextlib.suppress(OSError):
            if kind is None or not self.died_at:
                self._path.unlink()
        os.close(self._descriptor)
        self._descriptor = -1

    def answering(self, first: int, last: int) -> None:
        """Records that the lines `first` to `last` are being answered."""
        self._write(_LINE.format(first, last))

    def answered(self) -> None:
        """Records that no line is being answered."""
        self._write(_LINE.format("", ""))

    def suspects(self, lines: Sequence[int]) -> bool:
        """Whether an earlier process died at one of `lines`, which are ascending."""
        return len(lines) > 0 and any(first <= lines[-1] and lines[0] <= last for first, last in self.died_at)

    def __str__(self) -> str:
        return ", ".join(f"{first}" if first == last else f"{first} to {last}" for first, last in self.died_at)

    def _open(self) -> None:
        descriptor = open_memory(self._path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.died_at = _ranges(os.pread(descriptor, _SIZE * _MOST, 0))
            kept = "".join(_LINE.format(*each) for each in self.died_at)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, kept.encode(), 0)
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def _write(self, line: str) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.pwrite(self._descriptor, line.encode(), _SIZE * len(self.died_at))


def _ranges(data: bytes) -> tuple[tuple[int, int], ...]:
    pairs = (line.split() for line in data.decode("ascii", "replace").splitlines())
    whole = (pair for pair in pairs if len(pair) == 2 and all(word.isascii() and word.isdecimal() for word in pair))
    return tuple(dict.fromkeys((int(first), int(last)) for first, last in whole))[: _MOST - 1]

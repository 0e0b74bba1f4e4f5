"""Files in places where others can put something else.

Reading: `open_ordinary` never waits for a pipe, and follows a link only where that is asked for. Writing: `whole_file`
makes a file appear at once and complete, through a name that nobody can have prepared.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: Of a file's name, how much the name of its unfinished copy repeats: a name may have 255 bytes.
_REPEATED = 40


class NotOrdinary(OSError):
    """There is a directory, a link or a device in the place of a file."""


def open_ordinary(path: Path, *, follow: bool = False) -> IO[bytes]:
    """Returns the open file; `follow` allows a symbolic link to one, as users make of their own files.

    Raises:
        NotOrdinary: it is not an ordinary file.
        OSError: it cannot be opened.
    """
    try:
        descriptor = os.open(path, _READ | (0 if follow else os.O_NOFOLLOW))
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotOrdinary(errno.ELOOP, f"{path.name} is a symbolic link") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotOrdinary(errno.EINVAL, f"{path.name} is not an ordinary file")
    return os.fdopen(descriptor, "rb", buffering=0)


def read_small(path: Path, limit: int, *, follow: bool = False) -> bytes:
    """Returns what the file holds: at most `limit` bytes, and one more where it holds more.

    Raises:
        NotOrdinary: it is not an ordinary file.
        OSError: it cannot be read.
    """
    parts: list[bytes] = []
    with open_ordinary(path, follow=follow) as file:
        while (left := limit + 1 - sum(map(len, parts))) and (part := file.read(left)):
            parts.append(part)
    return b"".join(parts)


class WholeFile:
    """A file that appears, or takes the place of another, once all of it is there.

    It is written under a name of its own beside `path`, with the rights that a new file gets there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name[:_REPEATED]}.{os.urandom(6).hex()}.part")
        self.descriptor = os.open(self._part, _NEW, 0o666)

    def publish(self) -> None:
        """Gives it its name."""
        self._close()
        self._part.replace(self._path)

    def abandon(self) -> None:
        """Leaves nothing behind; does nothing after `publish`."""
        self._close()
        self._part.unlink(missing_ok=True)

    def _close(self) -> None:
        """Once: the number may be another file's by then."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that appears, durably, once the block has ended well.

    /dev/stdout, a named pipe, and whatever else is there and not a file is written into.

    Raises:
        OSError: it cannot be written there.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    whole = WholeFile(path)
    try:
        with open(whole.descriptor, "wb", closefd=False) as file:
            yield file
        os.fsync(whole.descriptor)
        whole.publish()
    finally:
        whole.abandon()

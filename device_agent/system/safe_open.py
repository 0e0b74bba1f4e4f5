"""Opens what must be an ordinary file, whatever lies in its place: no link, no pipe that never ends, no directory."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import IO


class NotOrdinary(OSError):
    """There is a directory, a link or a device in the place of a file."""


def open_ordinary(path: Path) -> IO[bytes]:
    """Returns the open file.

    Raises:
        NotOrdinary: it is no ordinary file.
        OSError: it cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotOrdinary(f"{path.name} is a symbolic link") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotOrdinary(f"{path.name} is no ordinary file")
    return os.fdopen(descriptor, "rb", buffering=0)


def read_small(path: Path, limit: int) -> bytes:
    """Returns what the file holds, at most `limit` bytes and one more, by which a larger one is told.

    Raises:
        NotOrdinary: it is no ordinary file.
        OSError: it cannot be read.
    """
    parts: list[bytes] = []
    with open_ordinary(path) as file:
        while (left := limit + 1 - sum(map(len, parts))) and (part := file.read(left)):
            parts.append(part)
    return b"".join(parts)

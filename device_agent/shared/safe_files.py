"""Opens and writes files safely in shared folders.

`open_ordinary` never blocks on a pipe, and follows a symbolic link only on request. `whole_file` writes under a random
name and renames: other processes see the complete file or none.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
#: Fewest bytes of one read, and most of a read from a large file.
_SOME, _MANY = 1 << 14, 1 << 20
#: Characters of a file's name in the name of its unfinished copy: a name may have at most 255 bytes.
_REPEATED = 40


class NotOrdinary(OSError):
    """The path names a directory, a link or a device, not an ordinary file."""


def open_ordinary(path: Path, *, follow: bool = False) -> IO[bytes]:
    """Opens an ordinary file for reading; with `follow`, `path` may be a symbolic link.

    Raises:
        NotOrdinary: the path does not name an ordinary file.
        OSError: the file cannot be opened.
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
    """Returns the content of a file; for a file over `limit` bytes, the first `limit + 1` bytes.

    With `follow`, /dev/null counts as an empty file, because users write it for "none".

    Raises:
        NotOrdinary: the path does not name an ordinary file.
        OSError: the file cannot be read.
    """
    parts: list[bytes] = []
    try:
        with open_ordinary(path, follow=follow) as file:
            likely = os.fstat(file.fileno()).st_size + 1  # `read` allocates what it is asked for
            while (left := limit + 1 - sum(map(len, parts))) and (part := file.read(min(left, max(likely, _SOME)))):
                parts.append(part)
    except NotOrdinary:
        if follow and path.samefile(os.devnull):
            return b""
        raise
    return b"".join(parts)


def sha256_of(path: Path, size: int = sys.maxsize) -> str:
    """Returns the hexadecimal SHA-256 of the first `size` bytes of a file; `path` may be a symbolic link.

    Raises:
        NotOrdinary: the path does not name an ordinary file.
        OSError: the file cannot be read.
    """
    import hashlib  # loads OpenSSL, which takes 3 ms

    digest = hashlib.sha256()
    with open_ordinary(path, follow=True) as file:
        while part := file.read(min(size, _MANY)):
            digest.update(part)
            size -= len(part)
    return digest.hexdigest()


class WholeFile:
    """A file that gets its name, or replaces another file, only when it is complete.

    Until then it has a temporary name in the folder of `path`. It gets the permissions of a new file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name[:_REPEATED]}.{os.urandom(6).hex()}.part")
        try:
            self.descriptor = os.open(self._part, _NEW, 0o666)
        except OSError as error:  # the user knows only the name that the file gets
            raise type(error)(error.errno, error.strerror, str(path)) from None

    def publish(self) -> None:
        """Renames the complete file to `path`."""
        self._close()
        self._part.replace(self._path)

    def abandon(self) -> None:
        """Removes the unfinished file; does nothing after `publish`."""
        self._close()
        self._part.unlink(missing_ok=True)

    def _close(self) -> None:
        """Closes the descriptor at most once: another file may have got the same descriptor since."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


@contextlib.contextmanager
def folder_for(folder: Path, mode: int = 0o777) -> Iterator[None]:
    """Makes `folder` and its missing parents; after the `with` block, removes the new folders that are still empty.

    Raises:
        OSError: the folder cannot be made.
    """
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(mode, parents=True, exist_ok=True)
        yield
    finally:
        with contextlib.suppress(OSError):
            for each in new:
                each.rmdir()


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that appears under its name, synced to the disk, when the `with` block ends without an error.

    A path that exists and is not a file (/dev/stdout, a named pipe) is written to directly.

    Raises:
        OSError: the file cannot be written.
    """
    whole = None if path.exists() and not path.is_file() else WholeFile(path)
    try:
        with path.open("wb") if whole is None else open(whole.descriptor, "wb", closefd=False) as file:
            yield file
        if whole is not None:
            os.fsync(whole.descriptor)
            whole.publish()
    except OSError as error:
        if error.filename is None and error.errno in _OF_DISKS:  # a write or fsync names no file
            raise type(error)(error.errno, error.strerror, str(path)) from None
        raise
    finally:
        if whole is not None:
            whole.abandon()


def write_new(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Writes a file that must not exist yet, synced to the disk; if writing fails, removes it again.

    Raises:
        OSError: the file exists, or cannot be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink()
        raise

"""Durable writes, renames and removals in the store.

The effect of a function is on the disk when it returns, unless its docstring says otherwise. Writing is
"temporary file, fsync, rename, fsync of the directory", so that a power cut leaves the old content or the new one,
never a mixture. All work is done by functions of `os`, looked up at each call: tests replace one to kill the process or
to let the disk fail at that step.
"""

# ruff: noqa: PTH101, PTH102, PTH104, PTH105, PTH106, PTH108, PTH115, PTH200, PTH208, PTH211
from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

#: Added to the name of a file that was set aside.
ASIDE = ".bad"
FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
#: Errors of a file system (vfat, exFAT) that lacks a call.
_LACKING = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)
#: Bytes copied at a time: the size matters for later reads of the file (docs/decisions/004).
_CHUNK = 64 * 1024
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


def temporary(path: Path) -> Path:
    """Returns the path under which new content of `path` is written first: `.NAME.tmp` in the same folder."""
    return path.with_name(f".{path.name}.tmp")


def write_atomic(path: Path, data: bytes, *, prepared: Path | None = None) -> None:
    """Replaces the content of `path` by `data`; after a crash the file holds the old content or the new one.

    `prepared` is the path for the temporary file, on the same file system; by default `temporary(path)`.
    """
    prepared = prepared or temporary(path)
    try:
        descriptor = os.open(prepared, _WRITE | os.O_TRUNC, FILE_MODE)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(prepared, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(prepared)
        error.filename = error.filename or str(path)
        raise
    sync_directory(path.parent)


def append(path: Path, data: bytes, keep: int) -> None:
    """Cuts the file to its first `keep` bytes, which drops an incomplete line of a crash, and appends `data`.

    Raises:
        OSError: the data cannot be written; the file is cut to `keep` bytes again, if possible.
    """
    descriptor = os.open(path, _WRITE, FILE_MODE)
    try:
        os.ftruncate(descriptor, keep)
        os.lseek(descriptor, keep, os.SEEK_SET)
        write_all(descriptor, data)
        os.fsync(descriptor)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, keep)
        error.filename = error.filename or str(path)
        raise
    finally:
        os.close(descriptor)
    sync_directory(path.parent)


def write_all(descriptor: int, data: bytes) -> None:
    """Writes all of `data`, in several calls if needed."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def make_directory(path: Path) -> None:
    """Creates `path` and its missing parents, readable by the owner only."""
    if path.is_dir():
        return
    make_directory(path.parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, DIRECTORY_MODE)
    sync_directory(path.parent)


def point_link(link: Path, target: str) -> None:
    """Replaces `link` by a symbolic link to `target`, by one rename."""
    prepared = temporary(link)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(prepared)
    try:
        os.symlink(target, prepared)
    except OSError as error:
        if error.errno in _LACKING:
            raise OSError(errno.ENOTSUP, "the file system has no symbolic links", str(link)) from None
        raise
    os.replace(prepared, link)
    sync_directory(link.parent)


def move(source: Path, destination: Path) -> None:
    """Renames within the file system, and syncs both directories.

    An overlay file system cannot rename a directory of its lower layer (EXDEV). Then a complete, durable copy appears
    at `destination` by one rename, and `source` is removed; a crash may leave a part of `source`, or the temporary
    copy.
    """
    try:
        os.rename(source, destination)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        prepared = temporary(destination)
        remove_tree(prepared)
        _copy(source, prepared)
        os.rename(prepared, destination)
        sync_directory(destination.parent)
        remove_tree(source)
    sync_directory(destination.parent)
    if source.parent != destination.parent:
        sync_directory(source.parent)


def discard(path: Path, doomed: Path, proof: str) -> None:
    """Renames the directory `path` to `doomed`, then removes it: nothing half-removed ever has the name `path`.

    If the directory cannot be renamed (on an overlay file system), its file `proof` is removed first: without that
    file, the directory counts as removed.
    """
    remove_tree(doomed)
    try:
        os.rename(path, doomed)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        remove_file(path / proof)
        doomed = path
    sync_directory(doomed.parent)
    if path.parent != doomed.parent:
        sync_directory(path.parent)
    remove_tree(doomed)


def _copy(source: Path, destination: Path) -> None:
    """Copies `source`, a file, a link or a whole directory; every byte is on the disk when it returns."""
    mode = os.lstat(source).st_mode
    if stat.S_ISLNK(mode):
        os.symlink(os.readlink(source), destination)
        return
    if stat.S_ISDIR(mode):
        os.mkdir(destination, DIRECTORY_MODE)
        for name in os.listdir(source):
            _copy(source / name, destination / name)
        sync_directory(destination)
        return
    read = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        copy_rest(read, source, destination, stat.S_IMODE(mode))
    finally:
        os.close(read)


def copy_rest(read: int, source: Path, destination: Path, mode: int = FILE_MODE) -> None:
    """Copies the open file `read`, from its position to its end, to a new file with the permissions `mode`.

    The bytes are on the disk when it returns; the caller syncs the directory. An error names `source` (the open file)
    or `destination`, and may leave an incomplete file.

    Raises:
        FileExistsError: `destination` exists.
    """
    descriptor = os.open(destination, _WRITE | os.O_EXCL, mode)
    try:
        for chunk in _chunks(read, source):
            write_all(descriptor, chunk)
        os.fsync(descriptor)
    except OSError as error:
        error.filename = error.filename or str(destination)
        raise
    finally:
        os.close(descriptor)


def _chunks(descriptor: int, path: Path) -> Iterator[bytes]:
    try:
        while chunk := os.read(descriptor, _CHUNK):
            yield chunk
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def rename(source: Path, destination: Path) -> None:
    """Renames a file in its directory; durable only after the caller syncs that directory."""
    os.rename(source, destination)


def set_aside(path: Path) -> Path:
    """Renames `path` to the first free name of `NAME.bad`, `NAME.bad-2`, ...; returns the new path."""
    number, kept = 1, path.with_name(path.name + ASIDE)
    while os.path.lexists(kept):
        number += 1
        kept = path.with_name(f"{path.name}{ASIDE}-{number}")
    move(path, kept)
    return kept


def link(source: Path, destination: Path) -> None:
    """Creates a hard link to the file `source` at `destination`."""
    os.link(source, destination, follow_symlinks=False)


def remove_file(path: Path) -> None:
    """Removes a file or a link, if it exists."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
        sync_directory(path.parent)


def remove_tree(path: Path) -> None:
    """Removes a file, a link or a directory with its contents, if it exists; follows no links."""
    try:
        is_directory = stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return
    if not is_directory:
        os.unlink(path)
        return
    os.chmod(path, DIRECTORY_MODE)
    with os.scandir(path) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        remove_tree(path / name)
    os.rmdir(path)


def restrict(path: Path, mode: int) -> None:
    """Sets the permissions of a file or directory to `mode`."""
    os.chmod(path, mode)


def sync_file(path: Path) -> None:
    """Makes a file's content durable."""
    _sync(path, os.O_RDONLY | os.O_NOFOLLOW)


def sync_directory(path: Path) -> None:
    """Makes a directory's entries durable."""
    try:
        _sync(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno == errno.EINVAL:
            said = "the file system cannot make the entries of a directory durable"
            raise OSError(errno.ENOTSUP, said, str(path)) from None
        raise


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Opens a release directory and pins its verified bytes.

Looks up every name relative to one open directory, follows no symbolic link, checks sizes before reading, and hashes
each file through the descriptor that the caller then loads (`/proc/self/fd/N`). So a file renamed over it, or a swapped
directory, has no effect. A write into the same file changes its change time, which `OpenRelease.confirm_unchanged()`
checks after loading. Decides nothing: the rules are in `trust`. Host and device read releases only through this module.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.record import record
from device_agent.shared.trust import rules
from device_agent.shared.trust.listing import Entry, FileFact, Kind, check_entry, check_listing
from device_agent.shared.trust.reasons import Reason, refused

_CHUNK = 256 * 1024
#: Bytes to read ahead of the hash.
_AHEAD = 8 * _CHUNK
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


@record
class _OpenFile:
    descriptor: int
    stamp: tuple[int, ...]
    fact: FileFact


@record
class OpenRelease:
    """A release directory with open, hashed files; returned by `open_release`, valid inside its `with` block."""

    directory: Path
    opened: Mapping[str, _OpenFile]

    @property
    def files(self) -> dict[str, FileFact]:
        """Name -> size and SHA-256 of each file except the signature."""
        return {name: file.fact for name, file in self.opened.items() if name != constants.SIGNATURE_FILE}

    def path(self, name: str) -> str:
        """Returns a path that opens the hashed file `name` even if the directory changes.

        Without /proc (in some chroots) this is the file's own path; `confirm_unchanged` then compares inodes.
        """
        path = f"/proc/self/fd/{self.opened[name].descriptor}"
        return path if os.access(path, os.R_OK) else str(self.directory / name)

    def read(self, name: str) -> bytes:
        """Returns the bytes of the file `name`, and hashes them again.

        Raises:
            Refused: FILE_SWAPPED: the bytes have changed since the file was opened.
        """
        file = self.opened[name]
        data = b"".join(bytes(chunk) for chunk in _chunks(file.descriptor, file.fact.size + 1))
        if hashlib.sha256(data).hexdigest() != file.fact.sha256:
            raise _swapped(name)
        return data

    def is_intact(self, name: str) -> bool:
        """Whether the file `name` still has the bytes that were hashed; reads all of them again."""
        file = self.opened[name]
        try:
            return _hash(file.descriptor, file.fact.size) == file.fact
        except OSError:
            return False

    def confirm_unchanged(self) -> None:
        """Checks that no file has changed since it was hashed; call it after loading the model.

        Raises:
            Refused: FILE_SWAPPED: a file has changed.
        """
        for name, file in self.opened.items():
            found = os.fstat(file.descriptor)
            # The stamp also changes with a link or the mode, so the bytes decide.
            if _stamp(found) != file.stamp and _hash(file.descriptor, file.fact.size) != file.fact:
                raise _swapped(name)
            path = self.path(name)
            with _readable(name):
                if not path.startswith("/proc/") and not os.path.samestat(os.lstat(path), found):
                    raise _swapped(name)

    def verify(
        self,
        state: rules.TrustState,
        *,
        now: int | None = None,
        expected_digest: str | None = None,
        ordered_digest: str | None = None,
    ) -> rules.Verdict:
        """Decides by `rules.verify_release` whether a device in `state` may stage and activate this release.

        `now` is in seconds since 1970 (None: the clock); the other arguments are those of `rules.verify_release`.

        Raises:
            Refused: a rule refuses the release (`reason` names the rule), or a file has changed since it was opened.
        """
        return rules.verify_release(
            bundle=self.read(constants.SIGNATURE_FILE),
            manifest=self.read(constants.MANIFEST_FILE),
            files=self.files,
            state=state,
            now=int(time.time()) if now is None else now,
            expected_digest=expected_digest,
            ordered_digest=ordered_digest,
        )

    def verify_accepted(
        self, digest: str, state: rules.TrustState, *, now: int | None = None, signature: bytes | None = None
    ) -> rules.Verdict:
        """Verifies again a release that this device accepted before: the running one, or one to return to.

        `now` is in seconds since 1970 (None: the clock); `signature` replaces the directory's `model.sig`.

        Raises:
            Refused: this is another release, its files are not those that were signed, or its key is unknown.
        """
        return rules.verify_accepted(
            digest=digest,
            bundle=self.read(constants.SIGNATURE_FILE) if signature is None else signature,
            manifest=self.read(constants.MANIFEST_FILE),
            files=self.files,
            state=state,
            now=int(time.time()) if now is None else now,
        )


@contextlib.contextmanager
def open_release(directory: Path, *, signed: bool = True) -> Iterator[OpenRelease]:
    """Opens and hashes every file of the release in `directory`; closes them when the `with` block ends.

    A memory map of the model remains valid after the block. `signed=False` allows a missing signature, for signing.

    Raises:
        Refused: the directory lacks a file of a release or has another entry, or a file cannot be read.
    """
    with contextlib.ExitStack() as stack:
        folder = _open(stack, directory)
        listing = _list(folder)
        check_listing(listing, signed=signed)
        opened = {}
        for name in sorted(listing):
            with _readable(name):
                opened[name] = _open_file(stack, folder, name)
        yield OpenRelease(directory, opened)


def _open(stack: contextlib.ExitStack, directory: Path) -> int:
    if directory.is_symlink():
        raise refused(Reason.FILE_SYMLINK, f"{directory} is a symbolic link", "name the directory itself")
    with _readable(str(directory)):
        folder = os.open(directory, _OPEN | os.O_DIRECTORY)
    stack.callback(os.close, folder)
    return folder


@contextlib.contextmanager
def _readable(what: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise refused(Reason.FILE_MISSING, f"{what}: {error.strerror}") from None
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):  # not the release's fault
            raise
        raise refused(Reason.FILE_UNREADABLE, f"{what}: {error.strerror}") from None


def _list(folder: int) -> dict[str, Entry]:
    """Returns name -> kind and size of each entry in the directory open as `folder`; links are not followed.

    Of a directory with too many names, lists only as many as a release can have, and one more: the caller refuses them.
    """
    entries = {}
    with _readable("the directory"), os.scandir(folder) as found:
        names = [entry.name for entry in itertools.islice(found, len(constants.POSSIBLE_FILES) + 1)]
    for name in names:
        with _readable(name):
            state = os.stat(name, dir_fd=folder, follow_symlinks=False)
        entries[name] = Entry(_kind(state.st_mode), state.st_size)
    return entries


def _kind(mode: int) -> Kind:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISLNK(mode):
        return "symlink"
    return "directory" if stat.S_ISDIR(mode) else "special"


def _open_file(stack: contextlib.ExitStack, folder: int, name: str) -> _OpenFile:
    descriptor = os.open(name, _OPEN, dir_fd=folder)
    stack.callback(os.close, descriptor)
    before = os.fstat(descriptor)
    check_entry(name, Entry(_kind(before.st_mode), before.st_size))
    fact = _hash(descriptor, before.st_size)
    if fact.size != before.st_size:
        raise _swapped(name)
    return _OpenFile(descriptor, _stamp(before), fact)


def _hash(descriptor: int, size: int) -> FileFact:
    digest, seen = hashlib.sha256(), 0
    for chunk in _chunks(descriptor, size + 1):
        digest.update(chunk)
        seen += len(chunk)
    return FileFact(seen, digest.hexdigest())


def _chunks(descriptor: int, limit: int) -> Iterator[memoryview]:
    """Yields the first `limit` bytes of a file in chunks; leaves the descriptor's offset at 0.

    One buffer serves every chunk and stays in the processor's cache. Asks the kernel in advance for the next pages,
    which are then cached one by one. The kernel's own read-ahead would cache pieces of up to 2 MB: a mapped model would
    later hold a whole piece in memory for each row that it reads (docs/decisions/004).
    """
    buffer, position = memoryview(bytearray(_CHUNK)), 0
    _read_ahead(descriptor, 0, min(_AHEAD, limit))
    while position < limit:
        _read_ahead(descriptor, position + _AHEAD, min(_CHUNK, limit - position - _AHEAD))
        count = os.preadv(descriptor, [buffer[: min(_CHUNK, limit - position)]], position)
        if not count:
            return
        position += count
        yield buffer[:count]


def _read_ahead(descriptor: int, start: int, length: int) -> None:
    if length > 0 and hasattr(os, "posix_fadvise"):  # a host may run macOS
        with contextlib.suppress(OSError):  # only advice
            os.posix_fadvise(descriptor, start, length, os.POSIX_FADV_WILLNEED)


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    # No program can set the change time back; reading changes neither time.
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _swapped(name: str) -> Exception:
    return refused(Reason.FILE_SWAPPED, f"{name} changed while it was being verified", "stage the release again")

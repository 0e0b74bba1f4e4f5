"""Where answers go: standard output, or a file that appears only once it is whole.

Knows how to wait for a reader that is slow and how to say that one is gone. Never renders.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from device_agent.serving.writers import npy_header
from device_agent.shared.protocol.constants import PART_SUFFIX
from device_agent.shared.protocol.errors import AgentError


class Closed(Exception):
    """Nobody reads our output any more."""


def write_all(descriptor: int, data: bytes, name: str | None) -> None:
    """Writes all of `data`, waiting where the pipe is full, also one that somebody set to non-blocking.

    Raises:
        Closed: the reader is gone.
        OSError: it cannot be written; `name` (None: standard output) is in it.
    """
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            select.select([], [descriptor], [])
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.ECONNRESET):
                raise Closed from None
            raise OSError(error.errno, error.strerror, name or "standard output") from None


def require_apart(rows: int, output: str | None) -> None:
    """Checks that answers do not go into the file that the descriptor `rows` reads from.

    Raises:
        AgentError: they would take the place of the rows, or be read as more of them.
    """
    if output is None or output == "-":
        return
    try:
        there = Path(output).stat()
    except OSError:
        return
    if stat.S_ISREG(there.st_mode) and os.path.samestat(there, os.fstat(rows)):
        hint = "name another file for the answers"
        raise AgentError(f"--output {output} is the file with the rows", reason="no-output", hint=hint)


def open_output(path: Path, flags: int, name: Path | None = None) -> int:
    """Returns a descriptor of an output file, opened with `flags`; `name` is what an error calls it.

    Raises:
        AgentError: it cannot be written there.
    """
    with _writable(name or path):
        return os.open(path, flags | os.O_CLOEXEC, 0o666)


def _is_special(path: Path) -> bool:
    """Whether it is /dev/null, a FIFO, or anything else that is never to be replaced."""
    with _writable(path):
        return path.exists() and not path.is_file()


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "is there such a directory, and may you write there?"
        raise AgentError(f"{path}: {error.strerror}", reason="no-output", hint=hint) from None


class Sink:
    """Takes the answers of one run; `finish` publishes them, `abandon` leaves nothing behind.

    Args:
        path: the file, or None and `-` for standard output.
        dtype: of the entries, for NPY: its header is written last, when the number of rows is known.

    Raises:
        AgentError: the file cannot be written there.
    """

    def __init__(self, path: str | None, dtype: np.dtype[Any] | None = None) -> None:
        self._name = None if path == "-" else path
        self._path = Path(self._name) if self._name else None
        self._dtype = dtype
        self._spool: IO[bytes] | None = None
        self._part: Path | None = None
        self._out = 1
        if self._path and _is_special(self._path):
            self._out, self._path = open_output(self._path, os.O_WRONLY), None
        if self._path:
            self._part = self._path.with_name(self._path.name + PART_SUFFIX)
            self._descriptor = open_output(self._part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, self._path)
        elif dtype is not None:
            self._spool = tempfile.TemporaryFile()  # noqa: SIM115 (closed by finish and abandon)
            self._descriptor = self._spool.fileno()
        else:
            self._descriptor = self._out

    def write(self, data: bytes) -> None:
        """Takes bytes that were rendered."""
        write_all(self._descriptor, data, self._name)

    def finish(self, count: int) -> None:
        """Completes the output of `count` rows."""
        if self._dtype is not None:
            os.pwrite(self._descriptor, npy_header(self._dtype, count), 0)
        if self._part and self._path:
            self._close_part()
            self._part.replace(self._path)
        elif self._spool:
            self._spool.seek(0)
            while chunk := self._spool.read(1 << 20):
                write_all(self._out, chunk, self._name)
            self._spool.close()
        self._close_out()

    def abandon(self) -> None:
        """Leaves no file behind."""
        if self._part:
            self._close_part()
            self._part.unlink(missing_ok=True)
        elif self._spool:
            self._spool.close()
        self._close_out()

    def _close_part(self) -> None:
        """Once: `abandon` follows a `finish` that failed, and the number may be another file's by then."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _close_out(self) -> None:
        if self._out != 1:
            os.close(self._out)

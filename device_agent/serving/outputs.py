"""Writes answers to standard output or to a file.

A file appears only when it is complete. Waits for a slow reader; raises `Closed` if the reader has closed the pipe.
Never renders.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from device_agent.serving.npy_writer import npy_header
from device_agent.shared.os_errors import explain
from device_agent.shared.protocol.errors import AgentError
from device_agent.shared.safe_files import WholeFile
from device_agent.store.trust_dir import typed


class Closed(Exception):
    """The program that reads our output has closed the pipe."""


def write_all(descriptor: int, data: bytes, name: str | None) -> None:
    """Writes all of `data` to `descriptor`; waits while the pipe is full, even if it is non-blocking.

    Raises:
        Closed: the reader has closed the pipe.
        OSError: writing failed; the error names `name` (None: standard output).
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
    """Checks that `output` is not the file that the descriptor `rows` reads from.

    Raises:
        AgentError: both are the same file: the answers would overwrite the rows, or be read as rows.
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


def open_output(path: Path, flags: int) -> int:
    """Returns a descriptor of an output file, opened with `flags`.

    Raises:
        AgentError: the file cannot be opened.
    """
    with _writable(path):
        return os.open(path, flags | os.O_CLOEXEC, 0o666)


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = explain(error)[2]
        if error.errno == errno.ENOENT:
            hint = f"mkdir -p {typed(path.parent)}"
        elif error.errno in (errno.EISDIR, errno.ENOTDIR):
            hint = "--output takes the name of a file"
        raise AgentError(f"{path}: {error.strerror}", reason="no-output", hint=hint) from None


class Sink:
    """Output of one command; `finish` publishes it, `abandon` removes it.

    Args:
        path: the file; None or `-` for standard output.
        dtype: type of the entries of an NPY file, whose header is written last, when the number of rows is known; None
            for text.

    Raises:
        AgentError: the file cannot be written.
    """

    def __init__(self, path: str | None, dtype: np.dtype[Any] | None = None) -> None:
        self._name = None if path == "-" else path
        self._dtype = dtype
        self._spool: IO[bytes] | None = None
        self._whole: WholeFile | None = None
        self._out = 1
        if self._name:
            file = Path(self._name)
            with _writable(file):
                if file.exists() and not file.is_file():  # /dev/null, a FIFO: no file may replace it
                    self._out = open_output(file, os.O_WRONLY)
                else:
                    self._whole = WholeFile(file)
        if self._whole:
            self._descriptor = self._whole.descriptor
        elif dtype is not None:
            import tempfile

            self._spool = tempfile.TemporaryFile()  # noqa: SIM115 (closed by finish and abandon)
            self._descriptor = self._spool.fileno()
        else:
            self._descriptor = self._out

    def write(self, data: bytes) -> None:
        """Writes rendered bytes."""
        write_all(self._descriptor, data, self._name)

    def finish(self, count: int) -> None:
        """Publishes the output of `count` rows."""
        if self._dtype is not None:
            os.pwrite(self._descriptor, npy_header(self._dtype, count), 0)
        if self._whole:
            self._whole.publish()
        elif self._spool:
            self._spool.seek(0)
            while chunk := self._spool.read(1 << 20):
                write_all(self._out, chunk, self._name)
            self._spool.close()
        self._close_out()

    def abandon(self) -> None:
        """Removes the unfinished output."""
        if self._whole:
            self._whole.abandon()
        elif self._spool:
            self._spool.close()
        self._close_out()

    def _close_out(self) -> None:
        if self._out != 1:
            os.close(self._out)

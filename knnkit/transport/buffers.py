"""Buffers between a device and the files of this machine.

`Capped` keeps a hostile device from filling the memory. `Ends` are the files that a command on a device reads and
writes: errors there are not the device's fault.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any, BinaryIO, cast

from device_agent.shared.os_errors import explain
from knnkit.errors import DataError, DeviceFailed, KnnkitError, UsageError
from knnkit.transport.base import Completed, Progress, Transport


class Capped:
    """Buffer that keeps the first `limit` bytes written to it, and drops the others; or raises `Full`, if `strict`."""

    class Full(Exception):
        """The device sent more bytes than the limit."""

    def __init__(self, limit: int, *, strict: bool = False) -> None:
        self.data = bytearray()
        self.full = False
        self._limit = limit
        self._strict = strict

    def write(self, chunk: bytes) -> None:
        """Adds `chunk` to the buffer.

        Raises:
            Full: the buffer is strict, and `chunk` goes over its limit.
        """
        room = self._limit - len(self.data)
        self.data += chunk[:room]
        if len(chunk) > room:
            self.full = True
            if self._strict:
                raise Capped.Full

    def answer(self, done: Completed, device: str) -> Completed:
        """Returns the completed command `done` with the buffer's content as its standard output.

        Raises:
            DeviceFailed: the command printed more than the limit.
        """
        if self.full:
            said = f"{device}: {done.argv[0]} sent more than {self._limit:,} bytes"
            raise DeviceFailed(said, reason="too-much-output")
        return replace(done, stdout=bytes(self.data))


class Ends:
    """The two files of a piped command: reads `source`, and writes `sink` as bytes arrive."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self._source, self._sink = source, sink
        self._failed: KnnkitError | None = None

    def read(self, size: int) -> bytes:
        """Returns up to `size` available bytes; b"" at the source's end, or after an error, which `check` raises."""
        read1 = getattr(self._source, "read1", self._source.read)
        try:
            chunk: bytes = read1(size)
        except OSError as error:
            _, said, hint = explain(error)
            self._failed = DataError(f"{_name(self._source)}: {said}", reason="no-input", hint=hint)
            return b""
        return chunk

    def write(self, chunk: bytes) -> None:
        """Writes `chunk` to the sink, and flushes it.

        Raises:
            BrokenPipeError: the process that reads the sink has ended.
            UsageError: the sink cannot be written.
        """
        try:
            self._sink.write(chunk)
            self._sink.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            _, said, hint = explain(error)
            name = _name(self._sink)
            raise UsageError(f"{name}: {said.removeprefix(f'{name}: ')}", reason="no-output", hint=hint) from None

    def check(self) -> None:
        """Raises the error that made `read` stop, if there was one.

        Raises:
            DataError: the source could not be read to its end.
        """
        if self._failed:
            raise self._failed


class _Tracked(io.RawIOBase):
    """A file for reading; after each read, calls `report` with its position."""

    def __init__(self, source: BinaryIO, report: Callable[[int], object]) -> None:
        self._source, self._report = source, report

    def read(self, size: int = -1) -> bytes:
        """Reads up to `size` bytes, and calls `report` with the position after them."""
        chunk = self._source.read(size)
        self._report(self._source.tell())
        return chunk


class Appending:
    """The method `append` of the transports that run commands on a device."""

    def append(
        self: Transport,
        source: BinaryIO,
        remote: str,
        *,
        offset: int,
        size: int,
        timeout: float,
        progress: Progress | None = None,
    ) -> None:
        """Appends the bytes of `source` from `offset` on to the file `remote`, which has `offset` bytes."""
        script = 'exec cat >> "$1"' if offset else 'umask 077; exec cat > "$1"'
        source.seek(offset)
        tracked = cast(BinaryIO, _Tracked(source, lambda done: progress and progress(done, size)))
        done = self.pipe(["sh", "-c", script, "sh", remote], tracked, io.BytesIO(), idle=timeout)
        if done.exit_code:
            said, hint = f"{self.name}: cannot write {remote}: {done.complaint}", "knnkit doctor --target HOST"
            raise DeviceFailed(said, reason="cannot-write", hint=hint)


def _name(file: BinaryIO) -> str:
    name: Any = getattr(file, "name", "the file")
    return {0: "standard input", 1: "standard output"}.get(name, str(name))

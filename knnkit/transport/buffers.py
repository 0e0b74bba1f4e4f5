"""Buffers between a device and the files of this machine.

`Capped` cannot be filled beyond its limit by a hostile device. `Ends` are the files that a command on a device reads
and writes: an error there is not the device's.
"""

from __future__ import annotations

from typing import Any, BinaryIO

from knnkit.errors import DataError, KnnkitError, UsageError


class Capped:
    """Keeps the first `limit` bytes.

    With `strict`, one byte more raises `Full`; without, the rest is dropped.
    """

    class Full(Exception):
        """More was said than is accepted."""

    def __init__(self, limit: int, *, strict: bool = False) -> None:
        self.data = bytearray()
        self.full = False
        self._limit = limit
        self._strict = strict

    def write(self, chunk: bytes) -> None:
        """Adds `chunk`.

        Raises:
            Full: it does not fit, and the buffer is strict.
        """
        room = self._limit - len(self.data)
        self.data += chunk[:room]
        if len(chunk) > room:
            self.full = True
            if self._strict:
                raise Capped.Full


class Ends:
    """Reads `source` and writes `sink` as bytes come."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self._source, self._sink = source, sink
        self._failed: KnnkitError | None = None

    def read(self, size: int) -> bytes:
        """Returns what is there, at most `size` bytes; nothing at the end, or where it cannot be read (see `check`)."""
        read1 = getattr(self._source, "read1", self._source.read)
        try:
            chunk: bytes = read1(size)
        except OSError as error:
            self._failed = DataError(f"{_name(self._source)}: {error.strerror or error}", reason="no-input")
            return b""
        return chunk

    def write(self, chunk: bytes) -> None:
        """Writes and flushes.

        Raises:
            BrokenPipeError: nobody reads it any more.
            UsageError: it cannot be written.
        """
        try:
            self._sink.write(chunk)
            self._sink.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UsageError(f"{_name(self._sink)}: {error.strerror or error}", reason="no-output") from None

    def check(self) -> None:
        """Raises what ended the reading.

        Raises:
            DataError: the source could not be read to its end.
        """
        if self._failed:
            raise self._failed


def _name(file: BinaryIO) -> str:
    name: Any = getattr(file, "name", "the file")
    return {0: "standard input", 1: "standard output"}.get(name, str(name))

"""Reads rows from a file or standard input, in blocks.

Text comes in blocks of whole lines, NPY in chunks; memory use is constant. Detects the format by the file's name, else
by the first bytes.
"""

from __future__ import annotations

import errno
import io
import math
import os
import select
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.console import streams
from device_agent.shared.os_errors import explain
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import BadInput, named
from device_agent.shared.protocol.record import record, replace

#: Bytes of text read at a time in batch.
BLOCK_BYTES = 1 << 18
#: Longest line in bytes; a longer one is bad input and is not stored.
MAX_LINE = 1 << 20
#: Rows of an NPY file read at a time.
NPY_ROWS = 4096

#: Format of a stream of files, each after its length (`device_agent.serving.frames`).
FRAMES = "frames"
#: Format of a file, or of a folder of files, each of which is one raw input (`device_agent.serving.files`).
FILES = "files"
SUFFIXES = {".csv": "csv", ".txt": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".npy": "npy"}
NPY_MAGIC = b"\x93NUMPY"
_MAX_NPY_HEADER = 64 * 1024
#: Every exception of NumPy for a broken file.
BROKEN = (
    *(ValueError, TypeError, KeyError, OverflowError, EOFError, MemoryError, RecursionError),
    *(SyntaxError, tokenize.TokenError),
)
#: Most numbers of one raw input in an NPY file.
_MAX_INPUT = 32 * 1024 * 1024
IsOne = Callable[[tuple[int, ...]], bool]


class Lines:
    """Joins successive reads, which end anywhere, into blocks of whole lines.

    `cut_overlong` drops a line that is longer than `longest` bytes; the rest of that line is then skipped.
    """

    def __init__(self, longest: int = MAX_LINE) -> None:
        self._rest, self._longest = bytearray(), longest
        self._skipping = False

    def feed(self, data: bytes) -> bytes:
        """Adds the bytes of a read; returns all lines that are now complete."""
        end = data.rfind(b"\n") + 1
        if not end:
            self._rest += b"" if self._skipping else data
            return b""
        block, self._rest = bytes(self._rest) + data[:end], bytearray(data[end:])
        if self._skipping:
            # The rest of the line that was too long; its beginning was dropped before.
            self._skipping = False
            block = block[block.index(b"\n") + 1 :]
        return block

    def cut_overlong(self) -> bool:
        """Drops the incomplete last line if it is too long already; returns whether a line was dropped."""
        if len(self._rest) <= self._longest:
            return False
        self._rest, self._skipping = bytearray(), True
        return True

    @property
    def left(self) -> bytes:
        """The bytes of the last line, which is not complete."""
        return bytes(self._rest)

    def finish(self) -> bytes:
        """Returns the last line, with a newline added, if the input ended without one; else b""."""
        rest, self._rest = bytes(self._rest), bytearray()
        return rest + b"\n" if rest.strip() else b""


@record
class Source:
    """An open input: its descriptor, its name for messages, its format, and the bytes read to detect the format."""

    descriptor: int
    name: str
    format: str
    start: bytes
    longest: int = MAX_LINE  # bytes of a line

    def where(self, number: int) -> str:
        """Returns the name of line `number` (from 1) for messages."""
        return f"{self.name}, line {number}"

    def read(self, size: int) -> bytes:
        """Returns the available bytes, at most `size`; b"" at the end.

        Raises:
            BadInput: reading failed.
            BlockingIOError: no bytes are available yet.
        """
        try:
            return os.read(self.descriptor, size)
        except BlockingIOError:
            raise
        except OSError as error:
            _, said, hint = explain(error)
            if error.errno == errno.EISDIR:
                hint = "--input takes one file of rows or samples: give its files one by one"
            raise BadInput(f"{self.name}: {said}", reason="no-input", hint=hint) from None

    def take(self, size: int) -> bytes:
        """Waits until bytes are available, then returns at most `size` of them; b"" at the end of the input."""
        while True:
            try:
                return self.read(size)
            except BlockingIOError:  # another process made it non-blocking
                select.select([self.descriptor], [], [])

    def blocks(self) -> Iterator[bytes]:
        """Yields blocks of whole lines; the last one gets a newline if it has none.

        Raises:
            BadInput: a line has more bytes than the attribute `longest` allows.
        """
        lines, count = Lines(longest=self.longest), 1
        data = self.start or self.take(BLOCK_BYTES)
        while data:
            block = lines.feed(data)
            if block:
                count += block.count(b"\n")
                yield block
            if lines.cut_overlong():
                said = f"{self.name}, line {count}: the line has more than {self.longest:,} bytes"
                raise BadInput(said, hint=_why_overlong(data, self.format))
            data = self.take(BLOCK_BYTES)
        block = lines.finish()
        if block:
            yield block

    def arrays(self, n_features: int | None, is_one: IsOne = lambda _: False) -> Iterator[NDArray[Any]]:
        """Yields blocks of the rows of an NPY file; if `n_features` is None, rows may have any shape.

        An array of a shape for which `is_one` is true is one such row.

        Raises:
            BadInput: the file is not NPY with `n_features` columns of numbers, or it is incomplete.
        """
        return _NpyReader(self).arrays(n_features, is_one)


def open_source(path: str | None, format: str, *, look: bool = True) -> Source:
    """Opens a file, or standard input for None and `-`; detects the format if `format` is `auto`.

    Without `look`, uses only the file's name and does not wait for a row: the format may stay `auto`.

    Raises:
        BadInput: the file cannot be read.
    """
    name = constants.STANDARD_INPUT if path in (None, "-") else str(path)
    flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_NONBLOCK if format == FILES else 0)  # never waits at a pipe
    try:
        descriptor = 0 if path in (None, "-") else os.open(str(path), flags)
    except OSError as error:
        hint = explain(error)[2] or streams.hint_missing(str(path))
        raise BadInput(f"{name}: {error.strerror}", reason="no-input", hint=hint) from None
    if format == "auto" and path not in (None, "-"):
        format = SUFFIXES.get(Path(str(path)).suffix.lower(), "auto")
    found = Source(descriptor, name, format, b"")
    if format != "auto" or not look:
        return found
    start = more = found.take(BLOCK_BYTES)
    while more and not start.strip() and len(start) < BLOCK_BYTES:
        more = found.take(BLOCK_BYTES)
        start += more
    return replace(found, format=sniff(start), start=start)


def _why_overlong(data: bytes, format: str) -> str:
    if format == "jsonl":
        return "is it one large array? each row needs a line of its own: jq -c '.[]' FILE > rows.jsonl"
    if b"\r" in data:
        return "if its lines end with CR alone: tr '\\r' '\\n' < FILE > rows.csv"
    return "is it a file of text, with a line for each row?"


def sniff(start: bytes) -> str:
    """Guesses the format (npy, jsonl or csv) from the first bytes of an input, or from one line."""
    if start.startswith(NPY_MAGIC[: max(1, len(start))]) and start:
        return "npy"
    return "jsonl" if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"[", b"{") else "csv"


def read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Returns shape, column order (Fortran's) and type of the array in an NPY file; raises one of `BROKEN`."""
    npy: Any = np.lib.format
    old = npy.read_magic(file) == (1, 0)
    shape, fortran, dtype = npy.read_array_header_1_0(file) if old else npy.read_array_header_2_0(file)
    if min(shape, default=0) < 0:
        raise ValueError(f"an array cannot have the shape {shape}")
    return shape, fortran, dtype


class _NpyReader:
    """Reads an NPY file from a descriptor that may be a pipe."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._start = source.start

    def arrays(self, n_features: int | None, is_one: IsOne) -> Iterator[NDArray[Any]]:
        shape, dtype = self._read_header(n_features, is_one)
        count, width = shape[0], math.prod(shape[1:])
        done, most = 0, NPY_ROWS if n_features else max(1, min(NPY_ROWS, _MAX_INPUT // width))
        while done < count:
            rows = min(most, count - done)
            data = self._read(rows * width * dtype.itemsize)
            whole = len(data) // (width * dtype.itemsize)
            if whole:
                yield np.frombuffer(data, dtype, whole * width).reshape(whole, *shape[1:])
            if whole < rows:
                raise self._bad(f"the file ends in row {done + whole}, but its header states {count} rows")
            done += rows

    def _read_header(self, n_features: int | None, is_one: IsOne) -> tuple[tuple[int, ...], np.dtype[Any]]:
        version = self._read(8)
        if len(version) < 8 or not version.startswith(NPY_MAGIC) or version[6] not in (1, 2, 3):
            raise self._bad("not an NPY file")
        counted = self._read(2 if version[6] == 1 else 4)
        size = int.from_bytes(counted, "little")
        if size > _MAX_NPY_HEADER:
            raise self._bad(f"the NPY header has {size:,} bytes; at most {_MAX_NPY_HEADER:,} are read")
        try:
            shape, fortran, dtype = read_npy_header(io.BytesIO(version + counted + self._read(size)))
        except BROKEN as error:
            raise self._bad(f"the NPY header is damaged: {error}") from None
        if dtype.names:
            hint = "save numpy.lib.recfunctions.structured_to_unstructured(rows)"
            raise self._bad("the array contains records, not numbers", hint)
        if dtype.kind not in "fiub":
            raise self._bad(f"the array contains {dtype}, not numbers", "save numbers: rows.astype(float)")
        with named(self._source.name):
            shape = (1, *shape) if n_features is None and is_one(shape) else shape
        width = math.prod(shape[1:]) if len(shape) > 1 else 0
        if n_features is None and not 1 <= width <= _MAX_INPUT:
            raise self._bad(f"expected one input or more along the first axis of the array, found the shape {shape}")
        if n_features is not None and shape != (n_features,) and width != n_features:
            hint = f"save an array of the shape (rows, {n_features})"
            raise self._bad(f"expected rows of {n_features} numbers, found the shape {shape}", hint)
        if fortran and sum(length > 1 for length in shape) > 1:
            raise self._bad("the array is stored by columns: save numpy.ascontiguousarray(rows)")
        if n_features is not None:
            shape = (1 if len(shape) == 1 else shape[0], n_features)
        return shape, dtype

    def _read(self, size: int) -> bytes:
        parts = [self._start[:size]]
        self._start = self._start[size:]
        missing = size - len(parts[0])
        while missing:
            part = self._source.take(min(missing, 1 << 20))
            if not part:
                break
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def _bad(self, what: str, hint: str = "") -> BadInput:
        return BadInput(f"{self._source.name}: {what}", hint=hint)

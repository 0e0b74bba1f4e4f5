"""The last rows that a stream answered.

`enrol --last` teaches them. Each stream has a file under /dev/shm (memory) if its release allows rows to be taught, and
locks it while it runs. Only the owner may read it, and files of other users are ignored. For a model with a table, the
rows have filled values in place of missing cells, as in ring.jsonl. A model with transforms has no such file, because
its raw cells are not available here.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.serving.in_flight import MEMORY, memory_file, open_memory
from device_agent.shared.enrolment.enrolled import fingerprint
from device_agent.shared.protocol.constants import counted
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.queries import row_type

#: Most rows that are kept.
MOST = 16
NO_ROWS = np.empty((0, 1), np.float32)
_HEAD = struct.Struct("<16sII")  # fingerprint of the columns, number of rows, CRC-32 of what follows
_KIND = "-rows"
_FILE = "give the rows with --input FILE"


class LastRows:
    """Stores the last rows of a stream in memory; `close` removes them."""

    def __init__(self, root: Path, info: KnnInfo) -> None:
        self._path, self._columns = memory_file(root, f"{_KIND}-{os.getpid()}"), fingerprint(info).encode()
        self._rows = np.empty((0, info.n_features), row_type(info.origin))
        self._descriptor = -1
        _running(root)  # a stream that was killed cannot remove its rows
        if info.enrol is not None and not (info.table and info.table.transforms):
            with contextlib.suppress(OSError):
                self._descriptor = open_memory(self._path)
                fcntl.flock(self._descriptor, fcntl.LOCK_EX)
                os.ftruncate(self._descriptor, 0)

    def keep(self, rows: NDArray[Any], refused: Collection[int] = ()) -> None:
        """Stores (n, n_features) raw rows; drops the oldest if there are more than `MOST`.

        `refused` are the positions, among all lines, of lines without an answer; a row of NaN is stored for each.
        """
        if self._descriptor < 0:
            return
        if refused:
            lines = np.full((len(rows) + len(refused), self._rows.shape[1]), np.nan, self._rows.dtype)
            if len(rows):
                lines[~np.isin(np.arange(len(lines)), list(refused))] = rows
            rows = lines
        self._rows = rows[-MOST:] if len(rows) >= MOST else np.concatenate([self._rows, rows])[-MOST:]
        data = self._rows.tobytes()
        with contextlib.suppress(OSError):
            os.pwrite(self._descriptor, _HEAD.pack(self._columns, len(self._rows), zlib.crc32(data)) + data, 0)

    def close(self) -> None:
        """Removes the file of the last rows."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                self._path.unlink()
            os.close(self._descriptor)
            self._descriptor = -1


def read(root: Path, info: KnnInfo, count: int) -> NDArray[Any]:
    """Returns the last (`count`, n_features) rows that a running stream answered.

    Raises:
        BadInput: there are fewer rows, one of them was refused, the model has transforms or other columns than the
            stream's, or several streams run.
    """
    if info.table and info.table.transforms:
        said = "--last: a stream does not store the rows of this model, because its pipeline changes them"
        raise BadInput(said, reason="no-rows", hint=_FILE)
    running = _running(root)
    if len(running) > 1:
        said = f"--last: {len(running)} streams run under this root, so it is not clear whose rows are meant"
        raise BadInput(said, reason="no-rows", hint=_FILE)
    dtype = np.dtype(row_type(info.origin))
    size = MOST * info.n_features * dtype.itemsize
    for _ in range(10 * len(running)):  # the stream may be writing
        try:
            data = _read(running[0], _HEAD.size + size)
            columns, kept, code = _HEAD.unpack_from(data)
        except (OSError, struct.error):
            break
        body = data[_HEAD.size : _HEAD.size + kept * info.n_features * dtype.itemsize]
        if zlib.crc32(body) != code:
            continue
        if columns != fingerprint(info).encode() or kept < count:
            break
        rows = np.frombuffer(body, dtype).reshape(kept, info.n_features)[-count:]
        if np.isnan(rows).any():
            lines = "its last line" if count == 1 else f"one of its last {count} lines"
            raise BadInput(f"--last: the stream refused {lines}", reason="no-rows", hint=_FILE)
        return rows
    there = counted(count, "row")
    said = f"--last: no running stream has answered {there} of this release (a stream remembers at most {MOST})"
    raise BadInput(said, reason="no-rows", hint=_FILE)


def _running(root: Path) -> list[Path]:
    """Returns the files of the streams that run under `root`; removes those of streams that were killed."""
    return [path for path in MEMORY.glob(f"{memory_file(root, _KIND).name}-*") if _is_locked(path)]


def _is_locked(path: Path) -> bool:
    """Whether a running stream of this user holds the file; removes the file if its stream was killed."""
    with contextlib.suppress(OSError):
        descriptor = open_memory(path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            path.unlink()
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False


def _read(path: Path, most: int) -> bytes:
    descriptor = open_memory(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, most, 0)
    finally:
        os.close(descriptor)

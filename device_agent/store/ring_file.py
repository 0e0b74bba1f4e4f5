"""File of the rows that a board keeps for labelling.

ROOT/ring.jsonl, mode 0600: JSON lines, appended under a kernel lock. A row is of a kind (`unknown`, `uncertain` or
`random`), and of each kind, only so many rows stay. The file is rewritten before it has twice as many rows. A kill
leaves at most one incomplete line, which readers skip. The first line has the file's generation (a random id) and how
many rows of each kind stay. `wipe` begins another generation: running processes then drop the rows that they have not
written yet. Never keeps a row in a ROOT of another user. Never stops an answer: the caller ignores its errors.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from device_agent.shared.protocol import json_codec
from device_agent.shared.protocol.model_info import Keep
from device_agent.shared.safe_files import read_small
from device_agent.system import durable

#: Most bytes of the rows together; the oldest are left out.
MAX_BYTES = 8 << 20
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TYPES = {"id": str, "kind": str, "time": int, "answer": int | str, "distance": float, "row": list, "digest": str}

Entry = dict[str, Any]


def read(path: Path) -> list[Entry]:
    """Returns the rows in the file by kind (`unknown`, then `uncertain`, then `random`), the oldest first.

    Returns [] if there is no file.

    Raises:
        OSError: the path is not an ordinary file, or cannot be read.
    """
    return _Content(_bytes(path)).rows()


def begin(path: Path, keep: Keep) -> tuple[str, int]:
    """Returns the generation (an id that `wipe` changes), and how many rows the random sample was drawn from.

    Creates a missing file. If `keep` (how many rows of each kind stay) has changed, rewrites the file.

    Raises:
        OSError: this user may not keep rows here.
    """
    if path.parent.stat().st_uid != os.geteuid():
        raise PermissionError(f"{path.parent} belongs to another user")
    with _locked(path, os.O_CREAT):
        found = _Content(_bytes(path))
        generation = found.generation or os.urandom(8).hex()
        if (generation, keep) != (found.generation, found.keep):
            _replace(path, generation, keep, found)
        return generation, found.seen


def add(path: Path, generation: str, keep: Keep, entries: Iterable[Entry], seen: int) -> bool:
    """Appends `entries` and returns True; does nothing and returns False if the file is not of this `generation`.

    `keep` states how many rows of each kind stay; `seen` is how many rows the random sample was drawn from.

    Raises:
        OSError: the file cannot be written.
    """
    lines = [*map(_line, entries), _line({"seen": seen})]
    with contextlib.suppress(FileNotFoundError), _locked(path) as descriptor:
        found = _Content(_bytes(path))
        if found.generation != generation:
            return False
        data = b"".join(lines)
        if found.lines + len(lines) > 2 * sum(keep.sizes.values()) + 8 or found.size + len(data) > 2 * MAX_BYTES:
            _replace(path, generation, keep, _Content(found.data + found.missing_newline + data))
        else:
            durable.write_all(descriptor, found.missing_newline + data)
        return True
    return False


def wipe(path: Path) -> int:
    """Removes all rows, including those that running processes have not written yet; returns how many were in the file.

    Raises:
        OSError: the file cannot be read or written.
    """
    with contextlib.suppress(FileNotFoundError), _locked(path) as descriptor:
        found = _Content(_bytes(path))
        os.ftruncate(descriptor, 0)
        durable.write_all(descriptor, _head(os.urandom(8).hex(), found.keep))
        os.fsync(descriptor)
        return len(found.rows())
    return 0


def _bytes(path: Path) -> bytes:
    try:
        return read_small(path, 4 * MAX_BYTES)
    except FileNotFoundError:
        return b""


@contextlib.contextmanager
def _locked(path: Path, more: int = 0) -> Iterator[int]:
    """Opens (with the flags `more`) and locks the file; tries again if another process replaces it meanwhile."""
    while True:
        descriptor = os.open(path, _FLAGS | more, durable.FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                same = os.path.samestat(os.fstat(descriptor), path.lstat())
            except FileNotFoundError:
                same = False
            if same:
                yield descriptor
                return
        finally:
            os.close(descriptor)


class _Content:
    """The parsed content of the ring file; ignores lines that are not rows."""

    def __init__(self, data: bytes) -> None:
        self.data, self.size, self.lines = data, len(data), data.count(b"\n")
        self.missing_newline = b"\n" if data and not data.endswith(b"\n") else b""
        head = _parse(data.partition(b"\n")[0])
        self.generation, self.keep = str(head.get("generation", "")), Keep()
        with contextlib.suppress(json_codec.MalformedDocument):
            self.keep = json_codec.from_plain(Keep, head.get("keep"))

    @property
    def seen(self) -> int:
        """How many rows the random sample was drawn from."""
        found = [count for line in self.data.splitlines() if isinstance(count := _parse(line).get("seen"), int)]
        return found[-1] if found else 0

    def rows(self) -> list[Entry]:
        """Returns the rows of the file by kind (such as `unknown`), the oldest of each kind first."""
        kinds = list(self.keep.sizes)
        return sorted(self.lasting(self.keep), key=lambda entry: kinds.index(entry["kind"]))

    def lasting(self, keep: Keep) -> list[Entry]:
        """Returns the rows that stay, in file order: the newest of each kind, as many as `keep` allows.

        Each row of the random sample has a seat, a number below `keep.random`; of each seat, the newest row stays.
        """
        kinds: dict[str, dict[Any, tuple[int, Entry]]] = {kind: {} for kind in keep.sizes}
        for place, entry in enumerate(map(_parse, self.data.splitlines())):
            if _is_row(entry) and entry["kind"] in kinds:
                there, key = kinds[entry["kind"]], entry.get("seat", entry["id"])
                there.pop(key, None)
                there[key] = place, entry
        kinds["random"] = {seat: each for seat, each in kinds["random"].items() if seat in range(keep.random)}
        last = [each for kind, size in keep.sizes.items() for each in [*kinds[kind].values()][::-1][:size]]
        return [entry for _, entry in sorted(last, key=lambda each: each[0])]


def _is_row(entry: Entry) -> bool:
    """Whether `entry` has the keys that `serving.ring` writes, each with a value of its type."""
    return isinstance(entry.get("seat", 0), int) and all(isinstance(entry.get(key), of) for key, of in _TYPES.items())


def _finite(text: str) -> float:
    if not math.isfinite(found := float(text)):
        raise ValueError(text)
    return found


def _parse(line: bytes) -> Entry:
    try:
        found = json.loads(line, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _replace(path: Path, generation: str, keep: Keep, found: _Content) -> None:
    """Rewrites the file with the rows of `found` that `keep` lets stay; needs the lock on the present file."""
    lines = [_line(entry) for entry in found.lasting(keep)]
    size, first = sum(map(len, lines)), 0
    while size > MAX_BYTES:
        size, first = size - len(lines[first]), first + 1
    head = _head(generation, keep) + _line({"seen": found.seen})
    durable.write_atomic(path, head + b"".join(lines[first:]))


def _head(generation: str, keep: Keep) -> bytes:
    return _line({"generation": generation, "keep": json_codec.to_plain(keep)})


def _line(entry: Entry) -> bytes:
    return json.dumps(entry, separators=(",", ":"), allow_nan=False).encode() + b"\n"

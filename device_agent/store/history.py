"""history.jsonl: one line per event of the releases.

Each transition of the device's state appears exactly once: state.json holds the last transition, and `record` appends
it if it is missing, even after a crash. If the file exceeds `MAX_BYTES`, its older half is removed. The store renames a
file that cannot be used, and begins a new one. No decision depends on the history.
"""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

from device_agent.shared.protocol import json_codec
from device_agent.shared.protocol.documents import HistoryEntry
from device_agent.shared.protocol.versions import utc
from device_agent.shared.safe_files import read_small
from device_agent.system import durable

MAX_BYTES = 1024 * 1024
#: The agent never writes a file of more bytes.
_TOO_LARGE = 2 * MAX_BYTES
_MAX_LINE = 16 * 1024
_SERIAL = b'"serial":'


class Broken(Exception):
    """The history file cannot be read or appended to; the agent works without it."""


def record(path: Path, event: HistoryEntry | None) -> None:
    """Appends `event` (None: nothing) unless the file has it.

    Raises:
        Broken: the path is not a usable file, even if there is nothing to append.
    """
    data = _content(path)
    if event is not None and not _has(data, event):
        _append(path, event, data)


def add(path: Path, entry: HistoryEntry) -> None:
    """Appends the `entry` of an event that is not a transition of the state, such as `staged`.

    Raises:
        Broken: the path is not a usable file.
    """
    _append(path, entry, _content(path))


def read(path: Path, count: int | None = None) -> list[HistoryEntry]:
    """Returns the last `count` entries (default: all), oldest first; skips lines that a crash left incomplete.

    Raises:
        Broken: the path is not a usable file.
    """
    entries = []
    for line in _content(path).splitlines():
        with contextlib.suppress(json_codec.MalformedDocument):
            entries.append(json_codec.loads(HistoryEntry, line, limit=_MAX_LINE))
    return entries if count is None else entries[max(0, len(entries) - count) :]


def render(entry: HistoryEntry) -> str:
    """Returns an entry as one line of text."""
    release = f"{entry.release.name} {entry.release.version} ({entry.release.digest[:12]})" if entry.release else "-"
    return (
        f"{utc(entry.at)} {entry.what:<11} {release}" + (f": {entry.why}" if entry.why else "") + f" [{entry.holder}]"
    )


def _append(path: Path, entry: HistoryEntry, data: bytes) -> None:
    line = json_codec.dumps(entry).encode() + b"\n"
    try:
        if len(data) > MAX_BYTES:
            kept = data[data.find(b"\n", len(data) // 2) + 1 :]
            durable.write_atomic(path, kept)
            data = kept
        durable.append(path, line, len(data))
    except OSError as error:
        if error.errno in _IN_THE_WAY:
            raise Broken(error.strerror) from None
        raise


#: Errors for a directory, a link, or a file that this user may not change.
_IN_THE_WAY = (errno.EISDIR, errno.ELOOP, errno.EACCES, errno.EPERM)


def _content(path: Path) -> bytes:
    """Returns all complete lines of the file; b"" if there is no file; raises Broken if it cannot be used."""
    try:
        data = read_small(path, _TOO_LARGE)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise Broken(error.strerror or str(error)) from None
    if len(data) > _TOO_LARGE:
        raise Broken(f"the file has more than {_TOO_LARGE:,} bytes, and the agent never writes so many")
    return data[: data.rfind(b"\n") + 1]


def _has(data: bytes, event: HistoryEntry) -> bool:
    """Whether the last transition in `data` has the serial, kind and time of `event`; False if there is none.

    The serial, which counts transitions, is not enough: a device that has lost its state.json counts from 1 again.
    """
    end = len(data)
    while (place := data.rfind(_SERIAL, 0, end)) >= 0:
        end = data.rfind(b"\n", 0, place) + 1
        if data.startswith(b"null", place + len(_SERIAL)):  # not a transition
            continue
        with contextlib.suppress(json_codec.MalformedDocument):  # without the record's types: `status` must be fast
            entry = json_codec.parse(data[end : data.find(b"\n", place)], limit=_MAX_LINE)
            if isinstance(entry, dict) and isinstance(entry.get("serial"), int):
                return all(entry.get(key) == getattr(event, key) for key in ("serial", "what", "at"))
    return False

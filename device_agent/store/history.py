"""history.jsonl: one line for each thing that happened to the releases of a device.

The transitions of the state machine stand in it exactly once each: state.json carries the last one, and `record`
brings the file up to it, also after a crash between the two. The file is kept under `MAX_BYTES` by dropping its older
half. One that cannot be read or added to is for the store to set aside. Never read to decide anything.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterable, Iterator
from pathlib import Path

from device_agent.shared.protocol import json_codec
from device_agent.shared.protocol.documents import HistoryEntry
from device_agent.shared.protocol.versions import utc
from device_agent.shared.safe_files import read_small
from device_agent.store.state import Event
from device_agent.system import durable

MAX_BYTES = 1024 * 1024
#: A file of more bytes is none that was written here.
_TOO_LARGE = 2 * MAX_BYTES
_MAX_LINE = 16 * 1024
_SERIAL = b'"serial":'


class Broken(Exception):
    """The file cannot be read or added to, whatever is tried; it is not essential."""


def record(path: Path, event: Event | None) -> None:
    """Appends `event` unless the file has it.

    Raises:
        Broken: there is something else in the place of the file.
    """
    if event is None:
        return
    data = _content(path)
    if not _has(data, event):
        _append(path, entry_of(event), data)


def entry_of(event: Event) -> HistoryEntry:
    """Returns the line of a transition."""
    return HistoryEntry(event.at, event.what, event.release, event.answering, event.why, event.holder, event.serial)


def add(path: Path, entry: HistoryEntry) -> None:
    """Appends a line that no state carries.

    Raises:
        Broken: there is something else in the place of the file.
    """
    _append(path, entry, _content(path))


def read(path: Path, count: int | None = None) -> list[HistoryEntry]:
    """Returns the last `count` lines (all without it), oldest first; a line that a crash tore is left out.

    Raises:
        Broken: there is something else in the place of the file.
    """
    entries = list(_entries(_content(path).splitlines()))
    return entries if count is None else entries[max(0, len(entries) - count) :]


def render(entry: HistoryEntry) -> str:
    """Returns an entry in one line."""
    release = f"{entry.release.name} {entry.release.version} ({entry.release.digest[:12]})" if entry.release else "-"
    return (
        f"{utc(entry.at)} {entry.what:<11} {release}" + (f": {entry.why}" if entry.why else "") + f" [{entry.holder}]"
    )


def _entries(lines: Iterable[bytes]) -> Iterator[HistoryEntry]:
    for line in lines:
        with contextlib.suppress(json_codec.MalformedDocument):
            yield json_codec.loads(HistoryEntry, line, limit=_MAX_LINE)


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


#: What the system says of a directory, a link, a file of somebody else, or one that may not be changed.
_IN_THE_WAY = (errno.EISDIR, errno.ELOOP, errno.EACCES, errno.EPERM)


def _content(path: Path) -> bytes:
    """Returns all complete lines."""
    try:
        data = read_small(path, _TOO_LARGE)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise Broken(error.strerror or str(error)) from None
    if len(data) > _TOO_LARGE:
        raise Broken(f"it has more than {_TOO_LARGE:,} bytes, which were never written")
    return data[: data.rfind(b"\n") + 1]


def _has(data: bytes, event: Event) -> bool:
    """Whether the event is the last step there; its serial alone does not say, for a new state starts at 1."""
    end = len(data)
    while (place := data.rfind(_SERIAL, 0, end)) >= 0:
        end = data.rfind(b"\n", 0, place) + 1
        if data.startswith(b"null", place + len(_SERIAL)):  # it changed no state
            continue
        for entry in _entries([data[end : data.find(b"\n", place)]]):
            if entry.serial is not None:
                return (entry.serial, entry.what, entry.at) == (event.serial, event.what, event.at)
    return False

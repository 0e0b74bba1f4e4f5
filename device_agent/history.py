"""history.jsonl: one line for each thing that happened to the releases of a device.

The transitions of the state machine stand in it exactly once each: state.json carries the last one, and `record`
brings the file up to it, also after a crash between the two. The file is kept under `MAX_BYTES` by dropping its older
half. Never read to decide anything.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from device_agent import codec, disk
from device_agent.contract import HistoryEntry
from device_agent.state import Event
from device_agent.utc import utc

MAX_BYTES = 1024 * 1024
_MAX_LINE = 16 * 1024


def record(path: Path, event: Event | None) -> None:
    """Appends `event` unless the file has it."""
    if event is None:
        return
    complete, tail = _tail(path)
    known = max((serial for serial in map(_serial, tail) if serial is not None), default=0)
    if known < event.serial:
        entry = HistoryEntry(
            event.at, event.what, event.release, event.answering, event.why, event.holder, event.serial
        )
        _append(path, entry, complete)


def add(path: Path, entry: HistoryEntry) -> None:
    """Appends a line that no state carries."""
    complete, _ = _tail(path)
    _append(path, entry, complete)


def read(path: Path, count: int | None = None) -> list[HistoryEntry]:
    """Returns the last `count` lines (all without it), oldest first; a line that a crash tore is left out."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    entries = []
    for line in data.splitlines():
        try:
            entries.append(codec.loads(HistoryEntry, line, limit=_MAX_LINE))
        except codec.MalformedDocument:
            continue
    return entries if count is None else entries[max(0, len(entries) - count) :]


def render(entry: HistoryEntry) -> str:
    """Returns an entry in one line."""
    release = f"{entry.release.name} {entry.release.version} ({entry.release.digest[:12]})" if entry.release else "-"
    return (
        f"{utc(entry.at)} {entry.what:<11} {release}" + (f": {entry.why}" if entry.why else "") + f" [{entry.holder}]"
    )


def _append(path: Path, entry: HistoryEntry, complete: int) -> None:
    if complete > MAX_BYTES:
        data = path.read_bytes()[:complete]
        kept = data[data.index(b"\n", len(data) // 2) + 1 :]
        disk.write_atomic(path, kept)
        complete = len(kept)
    disk.append(path, codec.dumps(entry).encode() + b"\n", complete)


def _tail(path: Path) -> tuple[int, list[bytes]]:
    """Returns the length of all complete lines, and the last few of them."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = max(0, size - 2 * _MAX_LINE)
            file.seek(start)
            data = file.read(size - start)
    except FileNotFoundError:
        return 0, []
    end = data.rfind(b"\n") + 1
    return start + end, data[:end].split(b"\n")


def _serial(line: bytes) -> int | None:
    try:
        entry: Any = json.loads(line)
    except ValueError:
        return None
    serial = entry.get("serial") if isinstance(entry, dict) else None
    return serial if isinstance(serial, int) else None

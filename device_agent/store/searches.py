"""Fastest searches of the last releases on this board.

One JSON document in ROOT/searches.json, written by an activation. If it is missing, damaged or newer, models search as
they do without it. Never stops an answer or an activation.
"""

from __future__ import annotations

import contextlib

from device_agent.shared.protocol.constants import SEARCHES_FILE, WAYS
from device_agent.shared.protocol.documents import Searched
from device_agent.shared.protocol.errors import DeviceUnfit
from device_agent.shared.protocol.json_codec import MalformedDocument
from device_agent.shared.protocol.record import record
from device_agent.store.json_file import JsonFile
from device_agent.store.store import Store

_KEPT = 8


@record
class Searches:
    """The file: what was measured for each release, the newest first."""

    releases: tuple[Searched, ...]
    schema: int = 1


def read(store: Store, digest: str) -> Searched | None:
    """Returns what was measured for a release; None if nothing was."""
    found = next((each for each in _read(store) if each.release == digest), None)
    return found if found is not None and {found.alone, found.batch} <= {*WAYS} else None


def write(store: Store, found: Searched) -> None:
    """Keeps what was measured; not where the file cannot be written."""
    others = tuple(each for each in _read(store) if each.release != found.release)
    with contextlib.suppress(OSError, DeviceUnfit):
        _file(store).write(Searches((found, *others)[:_KEPT]))


def _read(store: Store) -> tuple[Searched, ...]:
    try:
        return _file(store).read().releases
    except (OSError, MalformedDocument, DeviceUnfit):
        return ()


def _file(store: Store) -> JsonFile[Searches]:
    return JsonFile(store.root / SEARCHES_FILE, Searches, 1 << 16)

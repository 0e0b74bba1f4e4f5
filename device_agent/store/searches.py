"""Fastest neighbour searches of the last releases on this board.

One JSON document, ROOT/searches.json, which activations write. If it is missing or damaged, or a newer version wrote
it, models choose their search without it. Never stops an answer or an activation.
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
    """The content of searches.json: the fastest searches of each release, and their times; the newest release first."""

    releases: tuple[Searched, ...]
    schema: int = 1


def read(store: Store, digest: str) -> Searched | None:
    """Returns the fastest searches of the release `digest`; None if they were not measured."""
    found = next((each for each in _read(store) if each.release == digest), None)
    return found if found is not None and {found.alone, found.batch} <= {*WAYS} else None


def write(store: Store, found: Searched) -> None:
    """Stores `found`, the fastest searches of one release; ignores errors of the file system."""
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

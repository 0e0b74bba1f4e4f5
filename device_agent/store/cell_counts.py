"""Counts of what a release met in its rows.

For `status`, counts missing cells that were filled, unknown categories, gaps between samples, lines with columns that
the model does not have, and refused lines. They are in one JSON document, ROOT/cell-counts.json, to which processes add
one after the other. A file that cannot be read or belongs to another release counts from 0. If the file cannot be
written, the counts are lost; the answers are the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections import Counter
from collections.abc import Mapping

from device_agent.shared.protocol import json_codec
from device_agent.shared.protocol.constants import COUNTS_FILE
from device_agent.shared.protocol.documents import CellCounts
from device_agent.shared.protocol.record import replace
from device_agent.shared.safe_files import read_small
from device_agent.store.store import Store

_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LIMIT = 1 << 20


def read(store: Store, digest: str) -> CellCounts | None:
    """Returns the counts of the release `digest`; None if nothing was counted for it."""
    try:
        return _parse(read_small(store.root / COUNTS_FILE, _LIMIT), digest)
    except OSError:
        return None


def add(store: Store, digest: str, counts: Mapping[str, Mapping[str, int]], refused: int = 0) -> None:
    """Adds `refused` lines and `counts`, like {"filled": {"width": 3}} (`CellCounts`), to the counts of a release."""
    with contextlib.suppress(OSError):
        if store.root.stat().st_uid != os.geteuid():
            return
        descriptor = os.open(store.root / COUNTS_FILE, _FLAGS | os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            old = _parse(os.pread(descriptor, _LIMIT, 0), digest) or CellCounts(digest, {}, {})
            sums = {name: Counter(getattr(old, name)) + Counter(more) for name, more in counts.items()}
            new = replace(old, **sums, refused=old.refused + refused)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json_codec.dump_file(new), 0)
        finally:
            os.close(descriptor)


def _parse(data: bytes, digest: str) -> CellCounts | None:
    try:
        found = json_codec.loads(CellCounts, data)
    except json_codec.MalformedDocument:
        return None
    return found if found.release == digest else None

"""Small documents of a device: status, releases, history, keys.

A document is a frozen record; `json_codec` writes and reads it. `status` and `confirm` load these and no others: the
larger ones (`reports`, `model_info`) take as long to load as Python takes to start. No I/O.
"""

from __future__ import annotations

from device_agent.shared.protocol.constants import SCHEMA
from device_agent.shared.protocol.record import record


@record
class DeviceInfo:
    """The board: `machine` as `uname -m` says it."""

    hostname: str
    machine: str
    cpu: str
    cores: int
    memory_bytes: int
    agent: str


@record
class ReleaseRef:
    """A release on a device."""

    digest: str
    name: str
    version: str
    sequence: int


@record
class LockHolder:
    """Who changes the store: `since` in seconds since 1970, `pid` 0 for an activation that waits for confirmation."""

    holder: str
    reason: str
    since: int
    pid: int


@record
class Status:
    """`device_agent status`: what is on the board now."""

    agent: str
    root: str
    committed: ReleaseRef | None
    previous: ReleaseRef | None
    pending: ReleaseRef | None
    seconds_left: float | None  # until a pending activation reverts
    answering: str | None  # digest of the release that answers now
    floor: int  # no release under this sequence is accepted
    staged: tuple[str, ...]  # digests of all releases on the device
    trusted: tuple[str, ...]  # fingerprints of the trusted keys
    device_class: str
    runtime: str | None  # "tflite_runtime 2.14.0", None when there is none
    device: DeviceInfo
    disk_free_bytes: int
    clock: int  # the device's clock, seconds since 1970
    lock: LockHolder | None  # where an activation is pending, who began it; else a running command, or a reservation
    device_id: str = ""  # what a rollback order is bound to; empty until one is first needed
    revoked: tuple[str, ...] = ()  # fingerprints of the keys that accept nothing new
    warnings: tuple[str, ...] = ()
    protocol: int = 1  # PROTOCOL of the agent; agents that do not say speak the first
    oldest_protocol: int = 1  # its OLDEST_PROTOCOL
    signed_by: str = ""  # fingerprint of the key that is said to have signed what answers; empty where nothing does
    schema: int = SCHEMA


@record
class Staged:
    """`device_agent stage` and `verify`: a release that every trust rule accepted."""

    release: ReleaseRef
    signed_by: str  # fingerprint of the key
    already: bool  # it was there
    warnings: tuple[str, ...] = ()
    schema: int = SCHEMA


@record
class Pruned:
    """`device_agent prune`: digests of the releases that were removed."""

    removed: tuple[str, ...]
    schema: int = SCHEMA


@record
class Committed:
    """`device_agent confirm` and `rollback`: what is committed now."""

    release: ReleaseRef
    previous: ReleaseRef | None
    already: bool
    warnings: tuple[str, ...] = ()  # about the release that is gone back to
    schema: int = SCHEMA


@record
class HistoryEntry:
    """Something that happened to the releases of a device: `what` is one word, `at` seconds since 1970.

    A transition of the store (`activated`, `confirmed`, `reverted`, `rolled-back`) has a serial number; what changed no
    state (`staged`, `signed`, `rejected`, `floor`) has none. `answering` is what answered afterwards.
    """

    at: int
    what: str
    release: ReleaseRef | None
    answering: ReleaseRef | None
    why: str
    holder: str
    serial: int | None = None


@record
class History:
    """`device_agent history`: oldest first."""

    entries: tuple[HistoryEntry, ...]
    schema: int = SCHEMA


@record
class TrustedKeys:
    """`device_agent trust`: fingerprints of the keys that may sign, of those revoked, and the device's id."""

    trusted: tuple[str, ...]
    revoked: tuple[str, ...]
    device_id: str
    schema: int = SCHEMA

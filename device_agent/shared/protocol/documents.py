"""Small documents of a device: status, releases, history, keys.

A document is a frozen record; `json_codec` writes and reads it. `status` and `confirm` load only this module: the
larger documents (`reports`, `model_info`) take as long to load as Python takes to start. No I/O.
"""

from __future__ import annotations

from device_agent.shared.protocol.constants import SCHEMA
from device_agent.shared.protocol.record import record


@record
class DeviceInfo:
    """The board: `machine` is the output of `uname -m`, `agent` the agent's version."""

    hostname: str
    machine: str
    cpu: str
    cores: int
    memory_bytes: int
    agent: str


@record
class ReleaseRef:
    """Names a release on a device; `digest` is the SHA-256 over its files, `sequence` grows with each release."""

    digest: str
    name: str
    version: str
    sequence: int


@record
class LockHolder:
    """Who holds the store's lock, and why."""

    holder: str
    reason: str
    since: int  # seconds since 1970
    pid: int  # of the process that holds the lock; 0: an unconfirmed activation holds it


@record
class CellCounts:
    """Counts of cells that a release met, by column."""

    release: str  # digest
    filled: dict[str, int]  # missing cells that were filled
    unknown: dict[str, int]  # cells with a category that the model does not have
    gaps: dict[str, int] | None = None  # interrupted windows, by cause: `lines` bad or missing, jumps of the `time`
    left_out: dict[str, int] | None = None  # lines that have a column unknown to the model
    refused: int = 0  # bad lines of streams
    schema: int = SCHEMA
    omitted = ("gaps", "left_out", "refused")


@record
class Taught:
    """`device_agent enrol`, `forget` and `undo`: what was done to which rows, and the rows that are taught now."""

    did: str  # `enrol`, `forget`, `undo enrol` or `undo forget`
    ids: tuple[str, ...]  # ids of the rows that the command changed
    rows: int  # number of taught rows
    labels: dict[str, int]  # label -> number of taught rows
    digest: str  # SHA-256 of the output of `enrolled --json`, "" without rows
    label: str = ""  # the label that `enrol` stored, which may be `1` where `1.0` was typed
    schema: int = SCHEMA
    omitted = ("label",)


@record
class Searched:
    """Which searches of a release are the fastest on this board, as its activation measured them."""

    release: str  # digest
    runtime: str  # such as "tflite_runtime 2.14.0"; with another one, the figures mean nothing
    alone: str  # way to search for one row, such as `full` (the graph, all training rows) or `numpy`
    batch: str  # way to search for a batch of `rows`
    alone_ms: dict[str, float]  # way -> milliseconds
    batch_ms: dict[str, float]  # way -> milliseconds of one batch of `rows`
    rows: int
    schema: int = SCHEMA


@record
class TaughtRows:
    """Rows taught on a device."""

    digest: str  # SHA-256 of the output of `enrolled --json`, "" without rows
    rows: int  # number of taught rows
    labels: dict[str, int]  # label -> number of taught rows


@record
class Status:
    """`device_agent status`: the releases and keys on the board, and the board itself."""

    agent: str  # its version
    root: str  # folder of releases, keys and state
    committed: ReleaseRef | None  # confirmed; None: none yet
    previous: ReleaseRef | None  # the one that a rollback returns to
    pending: ReleaseRef | None  # activated, and not yet confirmed
    seconds_left: float | None  # until a pending activation reverts
    answering: str | None  # digest of the release that answers now
    floor: int  # releases with a lower sequence are refused
    staged: tuple[str, ...]  # digests of all releases on the device
    trusted: tuple[str, ...]  # fingerprints of the trusted keys
    device_class: str
    runtime: str | None  # such as "tflite_runtime 2.14.0"; None if none is installed
    device: DeviceInfo
    disk_free_bytes: int
    clock: int  # the device's clock, seconds since 1970
    lock: LockHolder | None  # who began the pending activation, else who runs a command; None: nobody
    device_id: str = ""  # names the device in rollback orders; empty until first needed
    revoked: tuple[str, ...] = ()  # fingerprints of the keys whose new signatures are refused
    warnings: tuple[str, ...] = ()  # such as why the answering release would be refused today
    protocol: int = 1  # PROTOCOL of the agent; 1 for agents that do not report it
    oldest_protocol: int = 1  # its OLDEST_PROTOCOL
    signed_by: str = ""  # fingerprint of the key named in the answering release, not verified; empty if none answers
    taught: TaughtRows | None = None  # None: no rows are taught
    cells: CellCounts | None = None  # of the answering release; None if it has counted nothing
    searched: Searched | None = None  # of the answering release; None if nothing was measured
    pictures: bool = False  # whether Pillow is installed, which decodes PNG and JPEG
    schema: int = SCHEMA


@record
class Staged:
    """`device_agent stage` and `verify`: a release that all trust rules accepted."""

    release: ReleaseRef
    signed_by: str  # fingerprint of the key
    already: bool  # it was staged before
    warnings: tuple[str, ...] = ()
    schema: int = SCHEMA


@record
class Pruned:
    """`device_agent prune`: digests of the releases that were removed."""

    removed: tuple[str, ...]
    schema: int = SCHEMA


@record
class Committed:
    """`device_agent confirm` and `rollback`: the committed release, and the previous one."""

    release: ReleaseRef
    previous: ReleaseRef | None
    already: bool  # it was committed before: nothing has changed
    warnings: tuple[str, ...] = ()  # about the release that was restored
    schema: int = SCHEMA


@record
class HistoryEntry:
    """One event in the history of a device."""

    at: int  # seconds since 1970
    what: str  # one word
    release: ReleaseRef | None
    answering: ReleaseRef | None  # the release that answered after the event
    why: str  # the reason of the event
    holder: str  # who caused it
    #: of a transition of the store (`activated`, `confirmed`, `reverted`, `rolled-back`); None for other events
    serial: int | None = None


@record
class History:
    """`device_agent history`: the events, oldest first."""

    entries: tuple[HistoryEntry, ...]
    schema: int = SCHEMA


@record
class TrustedKeys:
    """`device_agent trust`: fingerprints of the trusted and of the revoked keys, and the device's id."""

    trusted: tuple[str, ...]
    revoked: tuple[str, ...]
    device_id: str
    schema: int = SCHEMA

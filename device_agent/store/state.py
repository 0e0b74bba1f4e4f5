"""The state of a device, and what it says: which release answers, and who keeps others out. Pure: no I/O, no clock.

`StoreState` is the content of state.json, the single commit point of the store: what it says is the truth, and the
`current` link, the history and the release directories follow from it. A pending release whose time is over does not
answer, even where nobody has reverted it yet: readers and writers ask the same `answering`. What may become of a state
stands in `device_agent.store.transitions`.
"""

from __future__ import annotations

from typing import Literal

from device_agent.shared.protocol.constants import SCHEMA
from device_agent.shared.protocol.documents import LockHolder, ReleaseRef
from device_agent.shared.protocol.record import record
from device_agent.system.clock import Moment

What = Literal["activated", "confirmed", "reverted", "rolled-back"]


@record
class Pending:
    """An activation that waits for its confirmation: `started` and `deadline` are uptimes of the boot `boot`."""

    release: ReleaseRef
    created: int  # the time floor once it is committed (`trust.Verdict.time_floor`)
    holder: str
    connection: str  # the SSH connection that activated it, as sshd names it; empty without one
    since: int
    boot: str
    started: float
    deadline: float


@record
class Lease:
    """Who reserved the device for a deployment of several commands, until the uptime `until` of the boot `boot`."""

    holder: str
    reason: str
    since: int
    pid: int
    boot: str
    started: float
    until: float


@record
class Event:
    """The transition that led to a state; it is appended to the history once, by its serial."""

    serial: int
    what: What
    release: ReleaseRef | None
    answering: ReleaseRef | None
    why: str
    holder: str
    at: int


@record
class StoreState:
    """state.json."""

    committed: ReleaseRef | None = None
    previous: ReleaseRef | None = None
    pending: Pending | None = None
    left: ReleaseRef | None = None  # what the last rollback went back from
    floor: int = 0  # highest sequence ever committed
    floor_digest: str | None = None  # the one release that may carry it
    time_floor: int = 0  # the device's clock is at least this: latest `created` among committed releases
    lease: Lease | None = None
    event: Event | None = None
    schema: int = SCHEMA

    @property
    def serial(self) -> int:
        """Number of transitions so far."""
        return self.event.serial if self.event else 0


@record
class Answering:
    """The release that answers, until the uptime `until` (None: until the state changes)."""

    release: ReleaseRef
    until: float | None


def answering(state: StoreState, moment: Moment) -> Answering | None:
    """Returns what answers at `moment`; None where the device has no release."""
    if state.pending and not is_over(state.pending, moment):
        return Answering(state.pending.release, state.pending.deadline)
    return Answering(state.committed, None) if state.committed else None


def kept(state: StoreState) -> frozenset[str]:
    """Returns the digests of the releases that must stay: committed, previous, pending, and what a rollback left."""
    refs = (state.committed, state.previous, state.left, state.pending.release if state.pending else None)
    return frozenset(ref.digest for ref in refs if ref)


def is_over(pending: Pending, moment: Moment) -> bool:
    """Whether the time to confirm is over: the deadline passed, or the board was started anew."""
    return moment.boot != pending.boot or not pending.started <= moment.uptime < pending.deadline


def lease_holder(state: StoreState, moment: Moment) -> Lease | None:
    """Returns the lease in force, if any; a pending activation is one too."""
    if state.pending and not is_over(state.pending, moment):
        pending = state.pending
        reason = f"activation of {pending.release.name} {pending.release.version}, not yet confirmed"
        return Lease(pending.holder, reason, pending.since, 0, pending.boot, pending.started, pending.deadline)
    lease = state.lease
    if lease and lease.boot == moment.boot and lease.started <= moment.uptime < lease.until:
        return lease
    return None


def is_waiting(state: StoreState, moment: Moment) -> bool:
    """Whether an activation waits for its confirmation, and still may have it."""
    return state.pending is not None and not is_over(state.pending, moment)


def holder(state: StoreState, moment: Moment) -> LockHolder | None:
    """Returns who keeps others out between two commands: who began a pending activation, or reserved the device."""
    lease = lease_holder(state, moment)
    return LockHolder(lease.holder, lease.reason, lease.since, lease.pid) if lease else None

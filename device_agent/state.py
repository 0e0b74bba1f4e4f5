"""The activation state machine: which release answers, and every transition, as pure functions. No I/O, no clock.

    nothing ── activate ──► pending ── confirm ──► committed
                               │                      │ rollback
                               └─ deadline, reboot,   ▼
                                  rollback ─► the release before it

`StoreState` is the content of state.json, the single commit point of the store: what it says is the truth, and the
`current` link, the history and the release directories follow from it. A pending release whose time is over does not
answer, even where nobody has reverted it yet: readers and writers ask the same `answering`.
"""

from __future__ import annotations

import math
from typing import Literal

from device_agent.clock import Moment
from device_agent.contract import SCHEMA, LockHolder, ReleaseRef
from device_agent.errors import ActivationFailed, AgentError, Locked
from device_agent.record import record, replace
from device_agent.utc import utc

#: Longest time that an activation may wait for its confirmation, in seconds.
MAX_DEADLINE = 86_400.0

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


def refuse_foreign(state: StoreState, holder: str, moment: Moment) -> None:
    """Lets `holder` go on unless somebody else holds the device.

    Raises:
        Locked: with holder, reason, since when and for how long.
    """
    lease = lease_holder(state, moment)
    if lease and lease.holder != holder:
        give_up = "rollback" if state.pending else f"unlock --holder '{lease.holder}'"
        raise Locked(
            f"{lease.holder} holds this device since {utc(lease.since)} ({lease.reason}), "
            f"for at most {math.ceil(lease.until - moment.uptime)} s more",
            hint=f"wait; or, if that host is gone for good: python -m device_agent {give_up}",
        )


def reserve(state: StoreState, holder: str, reason: str, seconds: float, pid: int, moment: Moment) -> StoreState:
    """Returns the state in which `holder` alone may stage and activate for `seconds`.

    Raises:
        Locked: somebody else holds the device.
        AgentError: `seconds` is out of range.
    """
    refuse_foreign(state, holder, moment)
    until = moment.uptime + checked_deadline(seconds, "--seconds")
    return replace(state, lease=Lease(holder, reason, moment.wall, pid, moment.boot, moment.uptime, until))


def release_lease(state: StoreState, holder: str) -> StoreState:
    """Returns the state without a lease of `holder`; somebody else's stays."""
    return replace(state, lease=None) if state.lease and state.lease.holder == holder else state


def begin(
    state: StoreState,
    release: ReleaseRef,
    *,
    created: int,
    holder: str,
    connection: str,
    seconds: float,
    moment: Moment,
) -> StoreState:
    """Returns the state in which `release` answers and waits for its confirmation.

    Raises:
        Locked: another activation is pending, or somebody else holds the device.
        AgentError: `seconds` is out of range.
    """
    refuse_foreign(state, holder, moment)
    if state.pending:
        raise Locked(
            f"{state.pending.release.name} {state.pending.release.version} still waits for its confirmation",
            hint="confirm it, or give it up: python -m device_agent rollback",
        )
    until = moment.uptime + checked_deadline(seconds)
    pending = Pending(release, created, holder, connection, moment.wall, moment.boot, moment.uptime, until)
    return _after(replace(state, pending=pending), "activated", release, "", holder, moment)


def confirm(state: StoreState, digest: str, *, connection: str, moment: Moment) -> StoreState:
    """Returns the state in which the pending release `digest` is committed and the floor raised.

    Raises:
        ActivationFailed: it is not pending; `reason` is `rolled-back` where it was given up.
    """
    pending = state.pending
    if not pending or pending.release.digest != digest or is_over(pending, moment):
        raise not_pending(state, digest)
    if connection and connection == pending.connection:
        raise ActivationFailed(
            "the confirmation came over the connection that activated: it must come over a new one",
            reason="same-connection",
            hint="close the connection, connect again, then confirm",
        )
    release = pending.release
    raised = release.sequence >= state.floor
    state = replace(
        state,
        committed=release,
        previous=state.committed or state.previous,
        pending=None,
        left=None,
        lease=None,
        floor=max(state.floor, release.sequence),
        floor_digest=release.digest if raised else state.floor_digest,
        time_floor=max(state.time_floor, pending.created),
    )
    return _after(state, "confirmed", release, "", pending.holder, moment)


def not_pending(state: StoreState, digest: str) -> ActivationFailed:
    """Returns why a confirmation of `digest` comes to nothing."""
    given_up = state.event if state.event and state.event.what == "reverted" else None
    late = state.pending if state.pending and state.pending.release.digest == digest else None
    if late or (given_up and given_up.release and given_up.release.digest == digest):
        why = f" ({given_up.why})" if given_up and not late else ""
        return ActivationFailed(
            f"rolled back: the confirmation came too late, and the release before it answers{why}",
            reason="rolled-back",
            hint="deploy again; a slow link needs a longer --deadline",
        )
    return ActivationFailed(
        f"no activation of {digest[:12]} waits for a confirmation",
        reason="not-pending",
        hint=f"python -m device_agent activate {digest[:12]}…",
    )


def revert(state: StoreState, why: str, moment: Moment) -> StoreState:
    """Returns the state before the pending activation."""
    if not state.pending:
        return state
    pending = state.pending
    return _after(replace(state, pending=None, lease=None), "reverted", pending.release, why, pending.holder, moment)


def is_to_leave(state: StoreState, leave: str | None) -> bool:
    """Whether a rollback has something to do: `leave` (any digest without it) answers, and is not a return itself."""
    if leave is not None:
        return leave in [ref.digest for ref in (state.committed, state.pending and state.pending.release) if ref]
    return state.pending is not None or state.event is None or state.event.what not in ("reverted", "rolled-back")


def roll_back(state: StoreState, holder: str, moment: Moment) -> StoreState:
    """Returns the state in which the previous release is committed again; the floor stays where it is.

    Raises:
        ActivationFailed: there is no previous release.
    """
    if not state.previous:
        raise ActivationFailed(
            "there is no previous release to go back to",
            reason="no-previous",
            hint="deploy the release that should answer: knnkit deploy",
        )
    return go_back(state, state.previous, holder, "asked for", moment)


def go_back(state: StoreState, target: ReleaseRef, holder: str, why: str, moment: Moment) -> StoreState:
    """Returns the state in which `target` is committed again and what was committed is left; the floor stays."""
    after = replace(state, committed=target, previous=None, left=state.committed, lease=None)
    return _after(after, "rolled-back", state.committed, why, holder, moment)


def nothing_left() -> ActivationFailed:
    """Returns what to say when the only release of a device was given up."""
    return ActivationFailed(
        "the activation was given up; the device had no release before it, and has none now",
        reason="no-release",
        hint="deploy a release: knnkit deploy",
    )


def checked_deadline(seconds: float, option: str = "--deadline") -> float:
    """Returns `seconds` if an activation, or a reservation, may wait that long; `option` is what asks for it.

    Raises:
        AgentError: it may not.
    """
    if not 0.0 < seconds <= MAX_DEADLINE:
        raise AgentError(f"{option} {seconds:g}: more than 0, at most {MAX_DEADLINE:.0f} seconds", hint=f"{option} 60")
    return seconds


def _after(
    state: StoreState, what: What, release: ReleaseRef | None, why: str, holder: str, moment: Moment
) -> StoreState:
    current = answering(state, moment)
    ref = current.release if current else None
    return replace(state, event=Event(state.serial + 1, what, release, ref, why, holder, moment.wall))

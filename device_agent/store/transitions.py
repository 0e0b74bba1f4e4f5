"""Transitions of a device's state, as pure functions.

    nothing ── activate ──► pending ── confirm ──► committed
                               │                      │ rollback
                               └─ deadline, reboot,   ▼ or starts that never answer
                                  rollback ─► the release before it

A transition takes a state and returns a new one, or raises an error. The store writes it (`device_agent.store.store`).
The floor of a state is the highest sequence committed so far: releases with a lower one are refused.
"""

from __future__ import annotations

import math

from device_agent.shared.protocol.documents import HistoryEntry, ReleaseRef
from device_agent.shared.protocol.errors import ActivationFailed, AgentError, Locked
from device_agent.shared.protocol.record import replace
from device_agent.shared.protocol.versions import utc
from device_agent.store.state import ITSELF, Pending, StoreState, answering, is_over, waiting
from device_agent.system.clock import Moment

#: Longest time that an activation may wait for confirmation, in seconds.
MAX_DEADLINE = 86_400.0


def refuse_foreign(state: StoreState, holder: str, moment: Moment) -> None:
    """Checks that no activation of another holder waits for its confirmation at `moment`.

    Raises:
        Locked: another holder's activation waits; the message names holder and release, since when and for how long.
    """
    pending = waiting(state, moment)
    if pending and pending.holder != holder:
        raise Locked(
            f"{pending.holder} holds this device since {utc(pending.since)} ({pending.reason}), "
            f"for at most {math.ceil(pending.deadline - moment.uptime)} s more",
            hint="wait; or, if that host will not come back: python -m device_agent rollback",
        )


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
    """Returns the state in which `release` answers and waits `seconds` for confirmation.

    `created` is the time floor after the confirmation, in seconds since 1970; `holder` activates, over `connection`
    ($SSH_CONNECTION, "" without SSH).

    Raises:
        Locked: another activation is pending.
        AgentError: `seconds` is out of range.
    """
    refuse_foreign(state, holder, moment)
    if state.pending:
        raise waits(state.pending)
    until = moment.uptime + checked_deadline(seconds)
    pending = Pending(release, created, holder, connection, moment.wall, moment.boot, moment.uptime, until)
    return _after(replace(state, pending=pending), "activated", release, "", holder, moment)


def confirm(state: StoreState, digest: str, *, connection: str, moment: Moment) -> StoreState:
    """Returns the state in which the pending release `digest` is committed and the floor raised.

    A confirmation over the `connection` that activated does not count.

    Raises:
        ActivationFailed: `digest` is not pending (`not-pending`), was reverted (`rolled-back`), or was activated over
            the same connection (`same-connection`).
    """
    pending = state.pending
    if not pending or pending.release.digest != digest or is_over(pending, moment):
        raise not_pending(state, digest)
    if connection and connection == pending.connection:
        raise ActivationFailed(
            "the confirmation came over the same connection as the activation; it must come over a new one",
            reason="same-connection",
            hint="close the connection, connect again, then confirm",
        )
    release = pending.release
    raised = release.sequence >= state.floor
    state = replace(
        state,
        committed=release,
        previous=state.committed,
        pending=None,
        left=None,
        floor=max(state.floor, release.sequence),
        floor_digest=release.digest if raised else state.floor_digest,
        time_floor=max(state.time_floor, pending.created),
    )
    return _after(state, "confirmed", release, "", pending.holder, moment)


def not_pending(state: StoreState, digest: str) -> ActivationFailed:
    """Returns the error for a confirmation of `digest`: it comes too late, or nothing waits for it in `state`."""
    given_up = state.event if state.event and state.event.what == "reverted" else None
    late = state.pending if state.pending and state.pending.release.digest == digest else None
    if late or (given_up and given_up.release and given_up.release.digest == digest):
        why = f" ({given_up.why})" if given_up and not late else ""
        return ActivationFailed(
            f"rolled back: the confirmation came too late, so the previous release answers{why}",
            reason="rolled-back",
            hint="deploy again; a slow link needs more time: knnkit deploy --confirm-within 5m --target HOST",
        )
    return ActivationFailed(
        f"no activation of {digest[:12]} waits for a confirmation",
        reason="not-pending",
        hint=f"python -m device_agent activate {digest[:12]}",
    )


def revert(state: StoreState, why: str, moment: Moment) -> StoreState:
    """Returns the state as before the pending activation, if there is one; `why` and `moment` go into the history."""
    if not state.pending:
        return state
    pending = state.pending
    return _after(replace(state, pending=None), "reverted", pending.release, why, pending.holder, moment)


def is_to_leave(state: StoreState, leave: str | None) -> bool:
    """Whether a rollback changes anything.

    With `leave`, a digest: True if that release answers. With None: True unless the last transition went back already,
    by a rollback or because no confirmation came.
    """
    if leave is not None:
        answers = state.pending.release if state.pending else state.committed
        return answers is not None and answers.digest == leave
    return state.pending is not None or state.event is None or state.event.what not in ("reverted", "rolled-back")


def roll_back(state: StoreState, holder: str, moment: Moment) -> StoreState:
    """Returns the state in which the previous release is committed again; the floor stays.

    Raises:
        ActivationFailed: there is no previous release.
    """
    if not state.previous:
        raise ActivationFailed(
            "there is no previous release to go back to",
            reason="no-previous",
            hint="deploy another release: knnkit deploy --target HOST",
        )
    return go_back(state, state.previous, holder, "asked for", moment)


def go_back(state: StoreState, target: ReleaseRef, holder: str, why: str, moment: Moment) -> StoreState:
    """Returns the state in which `target` is committed, and the one before is `left`; the floor stays."""
    after = replace(state, committed=target, previous=None, left=state.committed)
    return _after(after, "rolled-back", state.committed, why, holder, moment)


def leave_failing(state: StoreState, digest: str, starts: int, moment: Moment) -> StoreState:
    """Returns the state in which the previous release is committed again, because `starts` starts of `digest` failed.

    A start is a process that begins to classify; it fails if it dies before its first answer. Returns `state`
    unchanged unless `digest` is committed, no activation is pending, and there is a previous release.
    """
    is_committed = state.committed is not None and state.committed.digest == digest
    if state.pending or not state.previous or not is_committed:
        return state
    return go_back(state, state.previous, ITSELF, f"{starts} starts in a row ended without an answer", moment)


def lower_floors(state: StoreState, floor: int, time_floor: int) -> StoreState:
    """Returns the state with its floors lowered to `floor` (a sequence) and `time_floor`; lower ones stay."""
    digest = state.floor_digest if floor >= state.floor else None
    return replace(
        state, floor=min(state.floor, floor), floor_digest=digest, time_floor=min(state.time_floor, time_floor)
    )


def nothing_left() -> ActivationFailed:
    """Returns the error for a device whose only release was reverted."""
    return ActivationFailed(
        "the activation was reverted; the device had no other release, and has none now",
        reason="no-release",
        hint="deploy a release: knnkit deploy --target HOST",
    )


def checked_deadline(seconds: float) -> float:
    """Returns `seconds` if it is a valid time to wait for a confirmation.

    Raises:
        AgentError: `seconds` is out of range.
    """
    if not 0.0 < seconds <= MAX_DEADLINE:
        raise AgentError(
            f"--deadline {seconds:g} is out of range: above 0, at most {MAX_DEADLINE:.0f} seconds", hint="--deadline 60"
        )
    return seconds


def _after(
    state: StoreState, what: str, release: ReleaseRef | None, why: str, holder: str, moment: Moment
) -> StoreState:
    current = answering(state, moment)
    ref = current.release if current else None
    return replace(state, event=HistoryEntry(moment.wall, what, release, ref, why, holder, state.serial + 1))


def waits(pending: Pending) -> Locked:
    """Returns the error for a command that is not possible while an activation is pending."""
    digest = pending.release.digest[:12]
    hint = "confirm it, wait until it reverts by itself, or cancel it: python -m device_agent rollback"
    return Locked(f"the activation of {digest} waits for confirmation", hint=hint)

"""activate and rollback: moves the device from one release to another, and never leaves it without one.

    verify ─► golden check in a child process ─► state.json says "pending" ─► current ─► … ─► confirm

The release before it answers until the check has passed, and again when no confirmation comes. Needs the store's lock
(`Store.changing`). Never stages or confirms (`device_agent.confirmation`), never prints.
"""

from __future__ import annotations

import contextlib
import os

from device_agent import check, clock, contract, standard, transitions, trust_files, watchdog
from device_agent.confirmation import connection
from device_agent.contract import Activated, Certificate, Committed, LockHolder, ReleaseRef
from device_agent.errors import AgentError, Locked
from device_agent.keys import trust_state
from device_agent.loading import open_kept
from device_agent.release_files import OpenRelease, open_release
from device_agent.state import Pending, StoreState
from device_agent.store import Store
from device_agent.trust import Verdict, orders


def activate(
    store: Store,
    digest: str,
    *,
    nonce: str,
    holder: str,
    seconds: float = contract.DEFAULT_CONFIRM_SECONDS,
    device_class: str | None = None,
    runtime: str = "auto",
) -> Activated:
    """Tries the staged release `digest`; once its golden check has passed it answers, for `seconds` at first.

    Asked again for what is committed or pending, it checks anew, certifies, and changes nothing.

    Raises:
        Refused: a trust rule said no.
        GateFailed, ModelUnusable: the check failed; the release before it still answers.
        Locked: another activation is pending, or somebody else holds the device.
        BrokenPipeError: whoever asked for it is gone; nothing was switched.
    """
    transitions.checked_deadline(seconds)
    current = store.load()
    transitions.refuse_foreign(current, holder, clock.now())
    if current.pending and current.pending.release.digest == digest:
        return _activate_again(store, current.pending, nonce, runtime)
    if current.pending:
        raise _waits(current.pending)
    with open_release(store.release_path(digest)) as opened:
        verdict = opened.verify(trust_state(store, device_class), expected_digest=digest)
        certificate = _try(store, opened, verdict, nonce, runtime, holder)
    if verdict.already_committed:
        return Activated(verdict.ref, certificate, True, None)
    moment = clock.now()
    new = transitions.begin(
        current,
        verdict.ref,
        created=verdict.time_floor,
        holder=holder,
        connection=connection(),
        seconds=seconds,
        moment=moment,
    )
    standard.require_reader()  # one that is gone will not confirm: better not to switch than to return
    with watchdog.left_behind(store, digest, moment.uptime + seconds):
        store.commit(new)
    return Activated(verdict.ref, certificate, False, seconds)


def roll_back(store: Store, holder: str, runtime: str = "auto", leave: str | None = None) -> Committed:
    """Gives up a pending activation; without one, goes back to the previous release, verified and checked first.

    Where the last thing that happened was a return already (by hand, or because no confirmation came), there is nothing
    to do: a host that asks twice, or too late, must not push the device one release further. `leave` names the release
    to go back from, and then nothing else decides.

    Raises:
        ActivationFailed: there is nothing to go back to.
        Refused, GateFailed, ModelUnusable: the previous release is not fit; the current one still answers.
    """
    current = store.load()
    moment = clock.now()
    if not transitions.is_to_leave(current, leave):
        return _still(current, already=True)
    if current.pending:
        new = transitions.revert(current, f"given up by {holder}", moment)
        store.commit(new)
        return _still(new, already=False)
    transitions.refuse_foreign(current, holder, moment)
    new = transitions.roll_back(current, holder, moment)
    assert new.committed is not None
    with contextlib.ExitStack() as stack:
        opened, verdict = open_kept(store, new.committed, stack)
        check.require_gates(check.certify(opened, verdict, "", runtime=runtime, close=_lock_of(store)))
    store.commit(new)
    return Committed(new.committed, new.previous, False)


def obey_rollback(store: Store, order: bytes, holder: str, runtime: str = "auto") -> Committed:
    """Goes back to the release that a signed order names, although it lies under the floor; the order serves once.

    Where that release is committed there is nothing to do, and the order is not used up.

    Raises:
        Refused: the order, or the release, is not what this device may obey.
        GateFailed, ModelUnusable: the release is not fit; the current one still answers, the order is not used up.
        Locked: an activation is pending, or somebody else holds the device.
    """
    current = store.load()
    moment = clock.now()
    transitions.refuse_foreign(current, holder, moment)
    if current.pending:
        raise _waits(current.pending)
    keys = trust_state(store)
    verified = orders.verify_rollback(order, keys, moment.wall)
    if current.committed and verified.digest == current.committed.digest:
        return _still(current, already=True)  # to go back to it would cost the release before it
    with open_release(store.release_path(store.find(verified.digest))) as opened:
        verdict = opened.verify(keys, expected_digest=verified.digest, ordered_digest=verified.digest)
        check.require_gates(check.certify(opened, verdict, "", runtime=runtime, close=_lock_of(store)))
    trust_files.use_order(store.trust, verified)
    new = transitions.go_back(current, verdict.ref, holder, "a signed order", moment)
    store.commit(new)
    return Committed(verdict.ref, new.previous, False)


def reserve(store: Store, holder: str, reason: str, seconds: float) -> LockHolder:
    """Keeps everybody but `holder` from staging and activating for `seconds`.

    Raises:
        Locked: somebody else holds the device.
    """
    moment = clock.now()
    store.commit(transitions.reserve(store.load(), holder, reason, seconds, os.getppid(), moment))
    return LockHolder(holder, reason, moment.wall, os.getppid())


def release(store: Store, holder: str) -> None:
    """Ends a reservation of `holder`; without one, nothing happens."""
    current = store.load()
    new = transitions.release_lease(current, holder)
    if new != current:
        store.commit(new)


def _activate_again(store: Store, pending: Pending, nonce: str, runtime: str) -> Activated:
    certificate = recheck(store, pending.release, nonce, runtime)
    return Activated(pending.release, certificate, False, max(0.0, pending.deadline - clock.uptime()))


def recheck(
    store: Store, ref: ReleaseRef, nonce: str, runtime: str = "auto", golden: bytes | None = None
) -> Certificate:
    """Checks a release that this device accepted before, against its own golden set unless another is given.

    Raises:
        GateFailed, ModelUnusable, Refused: it does not hold (any more).
    """
    with contextlib.ExitStack() as stack:
        opened, verdict = open_kept(store, ref, stack)
        close = _lock_of(store)
        return check.require_gates(check.certify(opened, verdict, nonce, runtime=runtime, close=close, golden=golden))


def _try(store: Store, opened: OpenRelease, verdict: Verdict, nonce: str, runtime: str, holder: str) -> Certificate:
    try:
        certificate = check.certify(opened, verdict, nonce, runtime=runtime, close=_lock_of(store))
        return check.require_gates(certificate)
    except AgentError as error:
        store.note("rejected", verdict.ref, f"{error.reason}: {error}", holder)
        raise


def _still(found: StoreState, *, already: bool) -> Committed:
    if found.committed is None:
        raise transitions.nothing_left()
    return Committed(found.committed, found.previous, already)


def _lock_of(store: Store) -> tuple[int, ...]:
    return () if store.lock_descriptor is None else (store.lock_descriptor,)


def _waits(pending: Pending) -> Locked:
    digest = pending.release.digest[:12]
    hint = "confirm it, roll it back, or wait until it reverts by itself"
    return Locked(f"the activation of {digest} waits for its confirmation", hint=hint)

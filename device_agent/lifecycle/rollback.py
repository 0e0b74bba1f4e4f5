"""rollback: the previous release, or what a signed order names.

An order names a release to go back to, or lowers the floors. Needs the store's lock. The release is verified and its
golden rows are checked before anything is switched.
"""

from __future__ import annotations

import contextlib

from device_agent.lifecycle import check
from device_agent.serving.load import open_kept
from device_agent.shared.protocol.documents import Committed
from device_agent.shared.protocol.errors import Refused
from device_agent.shared.protocol.record import replace
from device_agent.shared.release.directory import open_release
from device_agent.shared.trust import orders, rules
from device_agent.shared.trust.reasons import Reason
from device_agent.store import transitions, trust_store
from device_agent.store.state import StoreState
from device_agent.store.store import Store
from device_agent.store.trust_state import Known
from device_agent.system import clock


def roll_back(
    store: Store, holder: str, runtime: str = "auto", leave: str | None = None, *, allow_revoked: bool = False
) -> Committed:
    """Gives up a pending activation; without one, goes back to the previous release, verified and checked first.

    Where the last thing that happened was a return already (by hand, or because no confirmation came), there is nothing
    to do: a host that asks twice, or too late, must not push the device one release further. `leave` names the release
    to go back from, and then nothing else decides. Somebody asks for this, so that a release whose key was revoked is
    refused unless `allow_revoked`; what returns by itself (no confirmation, a reboot) is not asked about.

    Raises:
        ActivationFailed: there is nothing to go back to.
        DeviceUnfit: what ROOT/trust says of revoked keys is damaged.
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
    if not allow_revoked:
        trust_store.read(store.trust)  # who asks must know which keys are revoked; a start need not
    with contextlib.ExitStack() as stack:
        opened, verdict = open_kept(store, new.committed, stack)
        if verdict.revoked and not allow_revoked:
            raise _unless_allowed(rules.revoked_key(verdict.signed_by))
        check.require_gates(check.certify(opened, verdict, "", runtime=runtime, close=check.lock_of(store)))
    store.commit(new)
    return Committed(new.committed, new.previous, False, verdict.warnings)


def obey(store: Store, order: bytes, holder: str, runtime: str = "auto", *, allow_revoked: bool = False) -> Committed:
    """Does what a signed order says, once: lowers the floors, or goes back to a release under them.

    Raises:
        Refused: the order, or the release, is not what this device may obey.
        GateFailed, ModelUnusable: the release is not fit; the current one still answers, the order is not used up.
        Locked: an activation is pending, or somebody else holds the device.
    """
    if orders.is_floor_order(order):
        return lower_floors(store, order, holder)
    return obey_rollback(store, order, holder, runtime, allow_revoked=allow_revoked)


def lower_floors(store: Store, order: bytes, holder: str) -> Committed:
    """Lowers the sequence floor and the time floor as a signed order says; what is committed goes on answering.

    Raises:
        Refused: the order is not what this device may obey.
        Locked: an activation is pending, or somebody else holds the device.
    """
    current = store.load()
    moment = clock.now()
    transitions.refuse_foreign(current, holder, moment)
    if current.pending:
        raise transitions.waits(current.pending)
    verified = orders.verify_floor(order, Known(store, current).trust, moment.wall)
    new = transitions.lower_floors(current, verified.floor, verified.issued)
    if new != current:
        trust_store.use_order(store.trust, verified)
        store.commit(new)
        why = f"lowered from {current.floor} to {new.floor} by a signed order"
        store.note(new, "floor", new.committed, why, holder)
    return _still(new, already=new == current)


def obey_rollback(
    store: Store, order: bytes, holder: str, runtime: str = "auto", *, allow_revoked: bool = False
) -> Committed:
    """Goes back to the release that a signed order names, although it lies under the floor; the order serves once.

    Where that release is committed there is nothing to do, and the order is not used up. One whose key was revoked is
    refused unless `allow_revoked`.

    Raises:
        Refused: the order, or the release, is not what this device may obey.
        GateFailed, ModelUnusable: the release is not fit; the current one still answers, the order is not used up.
        Locked: an activation is pending, or somebody else holds the device.
    """
    current = store.load()
    moment = clock.now()
    transitions.refuse_foreign(current, holder, moment)
    if current.pending:
        raise transitions.waits(current.pending)
    keys = Known(store, current).trust
    verified = orders.verify_rollback(order, keys, moment.wall)
    if current.committed and verified.digest == current.committed.digest:
        return _still(current, already=True)  # to go back to it would cost the release before it
    if allow_revoked:
        keys = replace(keys, revoked=frozenset())
    with open_release(store.release_path(store.find(verified.digest))) as opened:
        try:
            verdict = opened.verify(keys, expected_digest=verified.digest, ordered_digest=verified.digest)
        except Refused as error:
            raise _unless_allowed(error) from None
        check.require_gates(check.certify(opened, verdict, "", runtime=runtime, close=check.lock_of(store)))
    trust_store.use_order(store.trust, verified)
    new = transitions.go_back(current, verdict.ref, holder, "a signed order", moment)
    store.commit(new)
    return Committed(verdict.ref, new.previous, False, verdict.warnings)


def _unless_allowed(error: Refused) -> Refused:
    if error.reason == Reason.REVOKED_KEY.value:
        error.hint += "; or, to go back to it all the same: --allow-revoked"
    return error


def _still(found: StoreState, *, already: bool) -> Committed:
    if found.committed is None:
        raise transitions.nothing_left()
    return Committed(found.committed, found.previous, already)

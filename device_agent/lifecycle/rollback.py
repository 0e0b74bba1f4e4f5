"""`rollback`: returns to a release, or obeys a signed order.

An order is a signed command from a host: it names a release to go back to, or lowers the floors (the lowest sequence
that the device accepts, and the earliest time that it believes). The release is verified and passes the golden check
before anything is switched. Needs the store's lock.
"""

from __future__ import annotations

import contextlib

from device_agent.lifecycle import check
from device_agent.serving.load import open_accepted
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
    """Reverts a pending activation; without one, verifies and checks the previous release, and goes back to it.

    With `leave`, a digest, does nothing unless that release answers. Without it, does nothing if the device has just
    gone back already (by this command, or because no confirmation came): a host that asks twice, or too late, must not
    move the device one release further. A release whose key was revoked is refused unless `allow_revoked`; automatic
    returns (no confirmation, a reboot) are always allowed. `holder` names who rolls back; `runtime` runs the check.

    Raises:
        ActivationFailed: there is no release to go back to.
        DeviceUnfit: trust/device.json is damaged.
        Refused, GateFailed, ModelUnusable: the previous release does not pass; the current one still answers.
    """
    current = store.load()
    moment = clock.now()
    if not transitions.is_to_leave(current, leave):
        return _still(current, already=True)
    if current.pending:
        new = transitions.revert(current, f"given up by {holder}", moment)
        store.commit(new)
        return _still(new, already=False)
    new = transitions.roll_back(current, holder, moment)
    assert new.committed is not None
    if not allow_revoked:
        trust_store.read(store.trust)  # fails if the revocations cannot be read; `open_accepted` would only warn
    with contextlib.ExitStack() as stack:
        opened, verdict = open_accepted(store, new.committed, stack)
        if verdict.revoked and not allow_revoked:
            raise _unless_allowed(rules.revoked_key(verdict.signed_by))
        check.require_gates(check.certify(opened, verdict, "", runtime=runtime, close=store.locks))
    store.commit(new)
    return Committed(new.committed, new.previous, False, verdict.warnings)


def obey(store: Store, order: bytes, holder: str, runtime: str = "auto", *, allow_revoked: bool = False) -> Committed:
    """Obeys a signed order, once: lowers the floors, or goes back to a release, even below the floors.

    The floors are the lowest sequence that the device accepts, and the earliest time that it believes. Does nothing if
    the release of the order is committed already; the order then stays unused. A release whose key was revoked is
    refused unless `allow_revoked`. `order` is the content of the order's file, `holder` names who gives it, and
    `runtime` runs the golden check.

    Raises:
        Refused: a trust rule refused the order or the release.
        GateFailed, ModelUnusable: the release does not pass; the current one still answers, the order stays unused.
        Locked: an activation is pending.
    """
    lowers_floors = orders.is_floor_order(order)
    current, moment = store.load(), clock.now()
    transitions.refuse_foreign(current, holder, moment)
    if current.pending:
        raise transitions.waits(current.pending)
    keys = Known(store, current).trust
    if lowers_floors:
        return _lower_floors(store, current, orders.verify_floor(order, keys, moment.wall), holder)
    verified = orders.verify_rollback(order, keys, moment.wall)
    if current.committed and verified.digest == current.committed.digest:
        return _still(current, already=True)  # `go_back` would forget the previous release
    if allow_revoked:
        keys = replace(keys, revoked=frozenset())
    with open_release(store.release_path(store.find(verified.digest))) as opened:
        try:
            verdict = opened.verify(keys, expected_digest=verified.digest, ordered_digest=verified.digest)
        except Refused as error:
            raise _unless_allowed(error) from None
        check.require_gates(check.certify(opened, verdict, "", runtime=runtime, close=store.locks))
    trust_store.use_order(store.trust, verified)
    new = transitions.go_back(current, verdict.ref, holder, "a signed order", moment)
    store.commit(new)
    return Committed(verdict.ref, new.previous, False, verdict.warnings)


def _lower_floors(store: Store, current: StoreState, order: orders.FloorOrder, holder: str) -> Committed:
    """Lowers the floors of sequence and time as `order` states; the committed release keeps answering."""
    new = transitions.lower_floors(current, order.floor, order.issued)
    if new != current:
        trust_store.use_order(store.trust, order)
        store.commit(new)
        why = f"floor lowered from {current.floor} to {new.floor} by a signed order"
        store.note(new, "floor", new.committed, why, holder)
    return _still(new, already=new == current)


def _unless_allowed(error: Refused) -> Refused:
    if error.reason == Reason.REVOKED_KEY.value:
        error.hint += "; or, to go back to that release anyway: --allow-revoked"
    return error


def _still(found: StoreState, *, already: bool) -> Committed:
    if found.committed is None:
        raise transitions.nothing_left()
    return Committed(found.committed, found.previous, already)

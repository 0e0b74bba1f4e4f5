"""rollback: back to the previous release, or to one that a signed order names.

Needs the store's lock. The release is verified and its golden rows are checked before anything is switched.
"""

from __future__ import annotations

import contextlib

from device_agent.lifecycle import check
from device_agent.serving.load import open_kept
from device_agent.shared.protocol.documents import Committed
from device_agent.shared.release.directory import open_release
from device_agent.shared.trust import orders
from device_agent.store import transitions, trust_store
from device_agent.store.state import StoreState
from device_agent.store.store import Store
from device_agent.store.trust_state import trust_state
from device_agent.system import clock


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
        check.require_gates(check.certify(opened, verdict, "", runtime=runtime, close=check.lock_of(store)))
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
        raise transitions.waits(current.pending)
    keys = trust_state(store)
    verified = orders.verify_rollback(order, keys, moment.wall)
    if current.committed and verified.digest == current.committed.digest:
        return _still(current, already=True)  # to go back to it would cost the release before it
    with open_release(store.release_path(store.find(verified.digest))) as opened:
        verdict = opened.verify(keys, expected_digest=verified.digest, ordered_digest=verified.digest)
        check.require_gates(check.certify(opened, verdict, "", runtime=runtime, close=check.lock_of(store)))
    trust_store.use_order(store.trust, verified)
    new = transitions.go_back(current, verdict.ref, holder, "a signed order", moment)
    store.commit(new)
    return Committed(verdict.ref, new.previous, False)


def _still(found: StoreState, *, already: bool) -> Committed:
    if found.committed is None:
        raise transitions.nothing_left()
    return Committed(found.committed, found.previous, already)

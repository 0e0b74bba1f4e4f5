"""`rollback --own`: reverts the pending activation of one holder.

A host that lost the answer to `activate` cannot know whether the device switched, or whether another host has changed
it since. This command reverts only this host's activation, and reports its outcome. Needs the store's lock. Loads no
model: the release that answers afterwards was committed before.
"""

from __future__ import annotations

import contextlib

from device_agent.shared.protocol.documents import HistoryEntry
from device_agent.shared.protocol.reports import TakenBack
from device_agent.shared.protocol.versions import utc
from device_agent.store import history, state, transitions
from device_agent.store.store import Store
from device_agent.system import clock

#: Events of an activation; each has the holder who began it.
_STEPS = frozenset({"activated", "confirmed", "reverted"})


def take_back(store: Store, holder: str) -> TakenBack:
    """Reverts the pending activation if `holder` began it; a second call returns the same outcome."""
    current = store.load()
    taken = current.pending is not None and current.pending.holder == holder
    if taken:
        current = transitions.revert(current, f"given up by {holder}", clock.now())
        store.commit(current)
    return TakenBack(
        taken=taken,
        became=_became(store, current, holder),
        committed=current.committed,
        previous=current.previous,
        pending=current.pending.release if current.pending else None,
        lock=state.holder(current, clock.now()),
    )


def _became(store: Store, current: state.StoreState, holder: str) -> HistoryEntry | None:
    """Returns the last event, in `current` or the history, of `holder`'s last activation; None if there is none."""
    entries = [current.event] if current.event else []  # known from the state even if the history was set aside
    with contextlib.suppress(history.Broken):
        entries += reversed(history.read(store.history_file))
    return next((entry for entry in entries if entry.holder == holder and entry.what in _STEPS), None)


def render(found: TakenBack, holder: str) -> str:
    """Returns `found`, the result of a rollback for `holder`, as text for people."""
    lines = []
    if found.became is None:
        lines.append(f"{holder} has not activated a release here; nothing was done")
    else:
        outcome = "reverted now" if found.taken else f"{found.became.what} at {utc(found.became.at)}; nothing was done"
        why = f" ({found.became.why})" if found.became.why and not found.taken else ""
        lines.append(f"the last activation by {holder}: {outcome}{why}")
    if found.pending and found.lock:
        lines.append(f"{found.lock.holder} holds this device: {found.lock.reason}")
    return "\n".join(lines)

"""rollback --own: takes back what one holder began and nothing else, and says what became of it.

A host whose answer was lost knows neither whether the device switched nor who has been there since; only the device
can tell, between two steps of its own. Needs the store's lock. Loads no model: what answers then was committed before.
"""

from __future__ import annotations

import contextlib

from device_agent.shared.protocol.documents import HistoryEntry
from device_agent.shared.protocol.reports import TakenBack
from device_agent.shared.protocol.versions import utc
from device_agent.store import history, state, transitions
from device_agent.store.store import Store
from device_agent.system import clock

#: What becomes of an activation; all of it stands under the name of who began it.
_STEPS = frozenset({"activated", "confirmed", "reverted"})


def take_back(store: Store, holder: str) -> TakenBack:
    """Gives up the pending activation if `holder` began it; whatever else there is stays.

    Asked again, it does nothing and says the same.
    """
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
    """Returns the last step of the last activation that `holder` began."""
    entries = []
    if current.event is not None:  # the state is the truth, also where the history was set aside
        entries.append(history.entry_of(current.event))
    with contextlib.suppress(history.Broken):
        entries += reversed(history.read(store.history_file))
    return next((entry for entry in entries if entry.holder == holder and entry.what in _STEPS), None)


def render(found: TakenBack, holder: str) -> str:
    """Returns the answer as a person reads it."""
    lines = []
    if found.became is None:
        lines.append(f"{holder} has activated nothing here; nothing was done")
    else:
        said = "taken back" if found.taken else f"{found.became.what} at {utc(found.became.at)}; nothing was done"
        why = f" ({found.became.why})" if found.became.why and not found.taken else ""
        lines.append(f"what {holder} activated: {said}{why}")
    if found.pending and found.lock:
        lines.append(f"{found.lock.holder} holds this device: {found.lock.reason}")
    return "\n".join(lines)

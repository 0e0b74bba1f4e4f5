"""Reserves a device for one holder for a limited time."""

from __future__ import annotations

import os

from device_agent.shared.protocol.documents import LockHolder
from device_agent.store import transitions
from device_agent.store.store import Store
from device_agent.system import clock


def reserve(store: Store, holder: str, reason: str, seconds: float) -> LockHolder:
    """Reserves the device for `seconds`: only `holder` may stage and activate. Others are shown the `reason`.

    Raises:
        Locked: another holder has reserved the device.
    """
    moment = clock.now()
    store.commit(transitions.reserve(store.load(), holder, reason, seconds, os.getppid(), moment))
    return LockHolder(holder, reason, moment.wall, os.getppid())


def release(store: Store, holder: str) -> None:
    """Ends a reservation of `holder`, if there is one."""
    current = store.load()
    new = transitions.release_lease(current, holder)
    if new != current:
        store.commit(new)

"""confirm: the last step of an activation, over another connection than the first. Needs the store's lock.

Apart from `device_agent.lifecycle.activate`, for what that loads to verify and to check takes longer than to confirm.
"""

from __future__ import annotations

import os

from device_agent.shared.protocol.documents import Committed
from device_agent.store import transitions
from device_agent.store.store import Store
from device_agent.system import clock


def confirm(store: Store, digest: str) -> Committed:
    """Commits the pending release `digest` and raises the floor; one that is committed already stays so.

    Raises:
        ActivationFailed: it is not pending (any more): `rolled-back`, `not-pending`, `same-connection`.
    """
    current = store.load()
    waits = current.pending is not None and current.pending.release.digest == digest
    if current.committed and current.committed.digest == digest and not waits:
        return Committed(current.committed, current.previous, True)
    new = transitions.confirm(current, digest, connection=connection(), moment=clock.now())
    store.commit(new)
    assert new.committed is not None
    return Committed(new.committed, new.previous, False)


def connection() -> str:
    """Returns which SSH connection runs this command, empty without one: client and server address and port."""
    return os.environ.get("SSH_CONNECTION", "")

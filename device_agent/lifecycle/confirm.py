"""`confirm`: commits an activation, over a new connection.

Needs the store's lock. A separate module, because loading `activate` takes longer than confirming.
"""

from __future__ import annotations

import os

from device_agent.shared.protocol.documents import Committed
from device_agent.store import transitions
from device_agent.store.store import Store
from device_agent.system import clock


def confirm(store: Store, digest: str) -> Committed:
    """Commits the pending release `digest` and raises the floor; does nothing if it is committed already.

    Releases with a sequence below the floor are refused.

    Raises:
        ActivationFailed: the confirmation comes too late (reason `rolled-back`), `digest` was not activated
            (`not-pending`), or this is the connection that activated it (`same-connection`).
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
    """Returns $SSH_CONNECTION: address and port of client and server; "" without SSH."""
    return os.environ.get("SSH_CONNECTION", "")

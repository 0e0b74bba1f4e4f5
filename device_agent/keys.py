"""What this device trusts, read from ROOT for `device_agent.trust`. Decides nothing."""

from __future__ import annotations

from device_agent import __version__, trust
from device_agent.store import Store


def trust_state(store: Store, device_class: str | None = None) -> trust.TrustState:
    """Returns the keys, the floors and the limits that a release is held against."""
    current = store.load()
    keys = {}
    if store.trust.is_dir():
        for path in sorted(store.trust.glob("*.pem")):
            keys[path.stem] = path.read_bytes()
    return trust.TrustState(
        keys=keys,
        floor=current.floor,
        floor_digest=current.floor_digest,
        committed_digest=current.committed.digest if current.committed else None,
        name=current.committed.name if current.committed else None,
        device_class=device_class or "any",
        agent_version=__version__,
        time_floor=current.time_floor,
    )

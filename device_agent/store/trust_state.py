"""Collects the device's state for the trust rules.

From ROOT/trust, the floors in state.json and the versions of this agent. Writes nothing."""

from __future__ import annotations

from device_agent import __version__
from device_agent.shared.protocol.errors import DeviceUnfit
from device_agent.shared.trust import rules
from device_agent.store import trust_store
from device_agent.store.state import StoreState
from device_agent.store.store import Store
from device_agent.system import board


def trust_state(store: Store, device_class: str | None = None) -> rules.TrustState:
    """Returns the state by which a new release is judged.

    Raises:
        DeviceUnfit: state.json or trust/device.json is damaged.
    """
    current = store.load()
    return trust_store.read(store.trust).fill(
        rules.TrustState(
            floor=current.floor,
            floor_digest=current.floor_digest,
            committed_digest=current.committed.digest if current.committed else None,
            name=current.committed.name if current.committed else None,
            device_class=device_class or store.device_class(),
            agent_version=__version__,
            runtime_version=board.runtime_version(),
            time_floor=current.time_floor,
        )
    )


def kept_state(store: Store) -> rules.TrustState:
    """Returns the state by which an accepted release is judged at every start."""
    try:
        current = store.load()
    except DeviceUnfit:
        current = StoreState()
    return trust_store.read(store.trust, lenient=True).fill(
        rules.TrustState(floor=current.floor, time_floor=current.time_floor, agent_version=__version__)
    )

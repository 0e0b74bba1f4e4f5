"""Collects the device's state for the trust rules.

The state has the keys in ROOT/trust, the floors in state.json and the versions of this agent. Writes nothing.
"""

from __future__ import annotations

from functools import cached_property

from device_agent import __version__
from device_agent.shared.protocol.errors import DeviceUnfit
from device_agent.shared.trust import rules
from device_agent.store import trust_store
from device_agent.store.state import StoreState
from device_agent.store.store import Store
from device_agent.system import board


class Known:
    """The contents of state.json and ROOT/trust, each read once per command.

    Valid only under the store's lock, while nobody else can change them. `device_class` replaces the class that
    `provision` gave this device; a release may be for one class only.
    """

    def __init__(self, store: Store, state: StoreState, device_class: str | None = None) -> None:
        self.store, self.state, self._class = store, state, device_class

    @cached_property
    def trust(self) -> rules.TrustState:
        """What the trust rules must know to judge a new release: keys, floors, versions; read at first use.

        Raises:
            DeviceUnfit: trust/device.json is damaged.
        """
        current = self.state
        return trust_store.read(self.store.trust).fill(
            rules.TrustState(
                floor=current.floor,
                floor_digest=current.floor_digest,
                committed_digest=current.committed.digest if current.committed else None,
                name=current.committed.name if current.committed else None,
                device_class=self._class or self.store.device_class(),
                agent_version=__version__,
                runtime_version=board.runtime_version(),
                time_floor=current.time_floor,
            )
        )


def accepted_state(store: Store) -> rules.TrustState:
    """Returns what the trust rules must know to check an accepted release at a start: keys, floors, version.

    Raises nothing for damaged files. If state.json is damaged, the floors (lowest sequence and time accepted) are 0.
    """
    try:
        current = store.load()
    except DeviceUnfit:
        current = StoreState()
    return trust_store.read(store.trust, lenient=True).fill(
        rules.TrustState(floor=current.floor, time_floor=current.time_floor, agent_version=__version__)
    )

"""What a device knows when it judges a release.

Puts together ROOT/trust, the floors of state.json and this agent, for the rules in `device_agent.shared.trust`. Decides
nothing, writes nothing.
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
    """What a command knows of its device: state.json and ROOT/trust, each read once and handed on.

    Valid as long as nobody else changes them: under the store's lock.

    Args:
        store: the device's.
        state: as `Store.changing` gives it.
        device_class: in place of the device's own.
    """

    def __init__(self, store: Store, state: StoreState, device_class: str | None = None) -> None:
        self.store, self.state, self._class = store, state, device_class

    @cached_property
    def trust(self) -> rules.TrustState:
        """What a new release must keep; read when it is first asked for.

        Raises:
            DeviceUnfit: what ROOT/trust says of revoked keys is damaged.
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


def kept_state(store: Store) -> rules.TrustState:
    """Returns what a release that was accepted before must keep at every start."""
    try:
        current = store.load()
    except DeviceUnfit:
        current = StoreState()
    return trust_store.read(store.trust, lenient=True).fill(
        rules.TrustState(floor=current.floor, time_floor=current.time_floor, agent_version=__version__)
    )

"""The state of a device; no I/O, no clock.

`StoreState` is the content of state.json, the single source of truth: the `current` link, the history and the release
directories follow from it. A release is pending while it is on trial: it answers, but nobody has confirmed it. A
confirmation commits it; without one, the device reverts to the previous release. `answering` decides for every reader
and writer which release answers: a pending release past its deadline does not, even before it is reverted.
`device_agent.store.transitions` changes states.
"""

from __future__ import annotations

from device_agent.shared.protocol.constants import SCHEMA
from device_agent.shared.protocol.documents import HistoryEntry, LockHolder, ReleaseRef
from device_agent.shared.protocol.record import record
from device_agent.system.clock import Moment

#: Holder of the transition by which the agent leaves a release whose starts never answer.
ITSELF = "the agent itself"


@record
class Pending:
    """An unconfirmed activation."""

    release: ReleaseRef
    created: int  # the time floor after it is committed (`Verdict.time_floor`)
    holder: str
    connection: str  # $SSH_CONNECTION of the command that activated it; empty without SSH
    since: int  # seconds since 1970
    boot: str  # id of the boot
    started: float  # seconds since that boot, as `deadline`
    deadline: float

    @property
    def reason(self) -> str:
        """Why others cannot change the device, as text: `activation of NAME VERSION, not yet confirmed`."""
        return f"activation of {self.release.name} {self.release.version}, not yet confirmed"


@record
class StoreState:
    """Content of state.json: the releases, their roles, and the last transition."""

    committed: ReleaseRef | None = None
    previous: ReleaseRef | None = None
    pending: Pending | None = None
    left: ReleaseRef | None = None  # the release that the last rollback replaced
    floor: int = 0  # highest sequence ever committed
    floor_digest: str | None = None  # the only release with that sequence
    time_floor: int = 0  # latest `created` of all committed releases: the present time is at least this
    event: HistoryEntry | None = None  # the last transition; appended to the history exactly once
    schema: int = SCHEMA

    @property
    def serial(self) -> int:
        """Number of transitions so far."""
        return self.event.serial or 0 if self.event else 0


@record
class Answering:
    """The release that answers at present; `until` is its deadline, in seconds of uptime (None: no deadline)."""

    release: ReleaseRef
    until: float | None


def answering(state: StoreState, moment: Moment) -> Answering | None:
    """Returns the release that answers at `moment`; None if the device has none."""
    if pending := waiting(state, moment):
        return Answering(pending.release, pending.deadline)
    return Answering(state.committed, None) if state.committed else None


def kept(state: StoreState) -> frozenset[str]:
    """Returns the digests of releases that must stay: committed, previous, pending, and the one rolled back from."""
    refs = (state.committed, state.previous, state.left, state.pending.release if state.pending else None)
    return frozenset(ref.digest for ref in refs if ref)


def is_over(pending: Pending, moment: Moment) -> bool:
    """Whether the time to confirm is over at `moment`: the deadline has passed, or the board has restarted."""
    return moment.boot != pending.boot or not pending.started <= moment.uptime < pending.deadline


def waiting(state: StoreState, moment: Moment) -> Pending | None:
    """Returns the activation that can still be confirmed at `moment`; None if there is none."""
    return state.pending if state.pending and not is_over(state.pending, moment) else None


def holder(state: StoreState, moment: Moment) -> LockHolder | None:
    """Returns who began the activation that waits for its confirmation at `moment`; None if none waits."""
    pending = waiting(state, moment)
    return LockHolder(pending.holder, pending.reason, pending.since, 0) if pending else None


def why_left(state: StoreState) -> str:
    """Returns, as text, why the agent itself left a committed release; "" unless that was the last transition."""
    event = state.event
    if not event or event.what != "rolled-back" or event.holder != ITSELF or not event.release:
        return ""
    return f"{event.release.name} {event.release.version} ({event.release.digest[:12]}) did not start: {event.why}"

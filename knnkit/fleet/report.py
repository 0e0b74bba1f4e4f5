"""Reports of a run, for each device and the fleet.

Workers return a report, `--json` prints it, `--report` draws it and `--retry-from` reads it. Frozen and picklable; JSON
through `json_codec`. No I/O.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.documents import ReleaseRef, Status
from device_agent.shared.protocol.record import replace
from device_agent.shared.protocol.reports import Certificate

T = TypeVar("T")


class Outcome(enum.Enum):
    """The result of a run on one device."""

    COMMITTED = "committed"  # it runs the release, confirmed
    UNCHANGED = "unchanged"  # it ran the release already
    ANSWERED = "answered"  # it answered a question (status, parity, bench, ...)
    UNREACHABLE = "unreachable"  # no connection; it still runs what it ran before
    FAILED = "failed"  # the deploy failed; the previous release answers
    ROLLED_BACK = "rolled_back"  # the release was activated, then the device went back to the previous one
    LOCKED = "locked"  # another host is changing it
    SKIPPED = "skipped"  # its job did not begin, or stopped without a change


#: Outcomes that count against the failure budget.
FAILURES = frozenset({Outcome.FAILED, Outcome.ROLLED_BACK})
#: Outcomes after which nothing is left to do.
GOOD = frozenset({Outcome.COMMITTED, Outcome.UNCHANGED, Outcome.ANSWERED})


@dataclass(frozen=True)
class Step:
    """One step on one device: `started` is in seconds since 1970 by the host's clock."""

    name: str  # connect | probe | provision | upload | stage | activate | confirm | roll back | check | ...
    started: float
    seconds: float
    note: str = ""


def named_apart(release: ReleaseRef, left: ReleaseRef | None) -> str:
    """Returns `iris 1.0.0`, name and version; adds the digests of both if `left`, another release, has the same two."""
    named = f"{release.name} {release.version}"
    if left is None or left.digest == release.digest or (left.name, left.version) != (release.name, release.version):
        return named
    return f"{named} ({release.digest[:8]}), from {left.version} ({left.digest[:8]})"


@dataclass(frozen=True)
class DeviceReport:
    """Report of one device's run."""

    name: str
    address: str
    outcome: Outcome
    exit_code: int = constants.EXIT_OK
    reason: str = ""  # a stable word
    message: str = ""
    hint: str = ""
    device_class: str = "any"
    wave: int | None = None  # counts from 0
    started: float = 0.0
    seconds: float = 0.0
    steps: tuple[Step, ...] = ()
    release: ReleaseRef | None = None  # that the device runs now, as far as the host knows
    previous: ReleaseRef | None = None  # the release before it
    certificate: Certificate | None = None
    status: Status | None = None  # the device's state when it was probed
    details: str = ""  # the answer to a question, JSON or text from the device
    sent_bytes: int = 0  # uploaded in this run
    resumed_bytes: int = 0  # on the device already, from an interrupted upload
    connections: int = 0  # attempts to connect
    warnings: tuple[str, ...] = ()

    def answer(self, kind: type[T]) -> T:
        """Returns `details`, parsed as a document of the type `kind`."""
        return json_codec.loads(kind, self.details, limit=len(self.details))

    @property
    def good(self) -> bool:
        """Whether the device needs no further action: committed, unchanged or answered, and exit code 0."""
        return self.outcome in GOOD and self.exit_code == constants.EXIT_OK

    @property
    def failed(self) -> bool:
        """Whether it counts against the failure budget: it failed, went back, or was lost while it switched."""
        lost = self.outcome is Outcome.UNREACHABLE and any(step.name == "activate" for step in self.steps)
        return lost or self.outcome in FAILURES

    @property
    def word(self) -> str:
        """The outcome as text for people. A rollback has the outcome COMMITTED, but the text "rolled back to …"."""
        steps = {step.name for step in self.steps}
        if self.outcome is Outcome.COMMITTED and self.release and "roll back" in steps and "activate" not in steps:
            return f"rolled back to {named_apart(self.release, self.status.committed if self.status else None)}"
        return self.outcome.value.replace("_", " ")

    @property
    def said(self) -> str:
        """The message without the device's name at its start."""
        return self.message.removeprefix(f"{self.name}: ")


@dataclass(frozen=True)
class WaveReport:
    """Report of one wave; `label` is its entry in `waves` of deploy.yaml."""

    label: str
    devices: tuple[str, ...]
    started: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class FleetReport:
    """Report of a whole run. `stopped` says why it ended early; `releases` are the releases to deploy or check."""

    command: str
    started: float
    seconds: float
    devices: tuple[DeviceReport, ...]
    waves: tuple[WaveReport, ...] = ()
    releases: tuple[ReleaseRef, ...] = ()
    nonce: str = ""
    holder: str = ""
    stopped: str = ""
    interrupted: bool = False
    schema: int = constants.SCHEMA

    @property
    def exit_code(self) -> int:
        """The exit code of the run: 130 if it was interrupted, else by the exit codes of its devices."""
        return EXIT_INTERRUPTED if self.interrupted else exit_code(self.devices)

    def summary(self) -> str:
        """Returns the number of devices by outcome as text, such as `3 committed, 1 unreachable`."""
        order = list(Outcome)
        counts = Counter(device.word for device in sorted(self.devices, key=lambda one: order.index(one.outcome)))
        return ", ".join(f"{number} {word}" for word, number in counts.items()) or "no devices"

    def unfinished(self) -> tuple[str, ...]:
        """Returns the names of the devices that `--retry-from` tries again."""
        return tuple(device.name for device in self.devices if not device.good)


def readable(certificate: Certificate) -> Certificate:
    """Returns a golden check's certificate without impossible figures, which a hostile device may send.

    Removes the confusion matrix unless each row has as many counts as there are rows, or one more ("unknown"), and none
    is negative. Removes the accuracies of all label columns if one of them was measured on no row.
    """
    size, columns = len(certificate.confusion), certificate.columns
    square = all(len(row) in (size, size + 1) and min(row) >= 0 for row in certificate.confusion)
    measured = all(each.rows > 0 for each in columns)
    if square and measured:
        return certificate
    return replace(certificate, confusion=certificate.confusion if square else (), columns=columns if measured else ())


EXIT_INTERRUPTED = 130


def exit_code(devices: Iterable[DeviceReport]) -> int:
    """Returns one exit code for many devices: the first of 1, 2, 4, 5 and 3 that any of them has; else 0.

    So 4 means that every failure was one of verification, parity or accuracy, and 3 that devices were only unreachable.
    Devices that the run skipped do not count.
    """
    failed = [device.exit_code for device in devices if not device.good and device.outcome is not Outcome.SKIPPED]
    worst_first = (constants.EXIT_FAILED, constants.EXIT_USAGE, constants.EXIT_REFUSED, constants.EXIT_LOCKED)
    usual = constants.EXIT_UNREACHABLE if failed else constants.EXIT_OK
    return next((code for code in worst_first if code in failed), usual)

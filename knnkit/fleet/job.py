"""What one device's deploy is told: the job and its deadlines, frozen and picklable. Does nothing."""

from __future__ import annotations

from dataclasses import dataclass

from device_agent import contract
from knnkit.fleet.connect import Dialling, Opener, open_transport
from knnkit.fleet.package import Package
from knnkit.fleet.plan import PlanOptions
from knnkit.fleet.target import Target

_DIALLING = Dialling()
_OPTIONS = PlanOptions()


@dataclass(frozen=True)
class Pace:
    """Deadlines, in seconds."""

    dialling: Dialling = _DIALLING
    command: float = 300.0
    confirm: float = contract.DEFAULT_CONFIRM_SECONDS
    lock: float = 0.0  # how long to wait for another host that holds the device


_PACE = Pace()


@dataclass(frozen=True)
class DeviceJob:
    """Everything that one device's deploy needs."""

    target: Target
    package: Package
    nonce: str
    holder: str  # names this run, and no other, in the device's lock and history: what it began, it may take back
    options: PlanOptions = _OPTIONS
    pace: Pace = _PACE
    keys: tuple[tuple[str, bytes], ...] = ()  # fingerprint, PEM: for a device that trusts none yet
    offline: bool = False
    wheels: str | None = None
    opener: Opener = open_transport

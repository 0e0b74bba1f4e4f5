"""The job of one device's deploy, frozen and picklable."""

from __future__ import annotations

from dataclasses import dataclass

from knnkit.fleet.decide.plan import PlanOptions
from knnkit.fleet.device.connect import Opener, Pace, open_transport
from knnkit.fleet.targets import Target
from knnkit.release.package import Package

_OPTIONS = PlanOptions()


_PACE = Pace()


@dataclass(frozen=True)
class DeviceJob:
    """Everything that one device's deploy needs."""

    target: Target
    package: Package
    nonce: str
    holder: str  # unique name of this run in the device's lock and history; it can revert only its own activation
    options: PlanOptions = _OPTIONS
    pace: Pace = _PACE
    keys: tuple[tuple[str, bytes], ...] = ()  # fingerprint, PEM: for a device that trusts no key yet
    offline: bool = False
    wheels: str | None = None
    opener: Opener = open_transport

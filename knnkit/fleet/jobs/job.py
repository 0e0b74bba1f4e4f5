"""The job of one device's deploy, frozen and picklable."""

from __future__ import annotations

from dataclasses import dataclass

from knnkit.fleet.decide.plan import PlanOptions
from knnkit.fleet.device.connect import Job
from knnkit.release.package import Package

_OPTIONS = PlanOptions()


@dataclass(frozen=True)
class DeviceJob(Job):
    """Everything that the deploy of one device needs."""

    package: Package
    nonce: str
    holder: str  # unique name of this run in the device's lock and history; it can revert only its own activation
    options: PlanOptions = _OPTIONS
    keys: tuple[tuple[str, bytes], ...] = ()  # fingerprint, PEM: for a device that trusts no key yet
    offline: bool = False
    wheels: str | None = None

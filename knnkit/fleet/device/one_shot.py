"""Connects to one device, runs a function, and reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from knnkit.errors import DeviceFailed, KnnkitError
from knnkit.fleet.device.connect import Opener, Pace, Pause, dial
from knnkit.fleet.device.probe import Facts, probe
from knnkit.fleet.device.recorder import Listener, Recorder
from knnkit.fleet.report import DeviceReport
from knnkit.fleet.targets import Target
from knnkit.transport.base import Transport


class Errand(Protocol):
    """What a visit needs to know about a job."""

    @property
    def target(self) -> Target:
        """The device."""
        ...

    @property
    def pace(self) -> Pace:
        """Time limits."""
        ...

    @property
    def opener(self) -> Opener:
        """Opens a connection."""
        ...


#: The function of a visit; it returns the report.
Work = Callable[[Transport, Facts, Recorder], DeviceReport]


def visit(errand: Errand, work: Work, listen: Listener, pause: Pause, *, full: bool = False) -> DeviceReport:
    """Visits one device; every fault of a device becomes a report.

    Args:
        errand: the device and the time limits.
        work: called with the connection, the facts and the recorder.
        listen: called at each step.
        pause: waits between attempts to connect, and returns whether the run was stopped.
        full: ask for the system's Python even if there is an agent.
    """
    recorder, target, pace = Recorder(errand.target, listen), errand.target, errand.pace
    try:
        with recorder.step("connect"):
            transport = dial(
                target, pace.dialling, opener=errand.opener, pause=pause, tried=recorder.tried, warn=recorder.warn
            )
        try:
            with recorder.step("probe"):
                facts = probe(transport, target.root, timeout=pace.command, full=full)
            return work(transport, facts, recorder)
        finally:
            transport.close()
    except KnnkitError as error:
        return recorder.fail(error)


def agent_of(target: Target, facts: Facts) -> tuple[str, ...]:
    """Returns the command line of a device's agent.

    Raises:
        DeviceFailed: there is no agent, or it does not answer.
    """
    if facts.agent is None:
        said = facts.agent_problem or "there is no agent"
        raise DeviceFailed(f"{target.name}: {said}", reason="no-agent", hint="knnkit provision --target HOST")
    return facts.agent_argv

"""One visit to one device: connects, lets the work be done, hangs up, and reports. Knows nothing of the work."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Protocol

from device_agent.shared.protocol import constants
from knnkit.errors import DeviceFailed, KnnkitError
from knnkit.fleet.device.connect import Opener, Pace, Pause, dial
from knnkit.fleet.device.probe import Facts, probe
from knnkit.fleet.device.recorder import Listener, Recorder
from knnkit.fleet.report import DeviceReport
from knnkit.fleet.targets import Target
from knnkit.transport.base import Transport


class Errand(Protocol):
    """What a visit needs to know of a job."""

    @property
    def target(self) -> Target:
        """The device."""
        ...

    @property
    def pace(self) -> Pace:
        """Deadlines."""
        ...

    @property
    def opener(self) -> Opener:
        """Opens a connection."""
        ...


#: Does what the visit is for, and ends the report.
Work = Callable[[Transport, Facts, Recorder], DeviceReport]


def visit(errand: Errand, work: Work, listen: Listener, pause: Pause, *, full: bool = False) -> DeviceReport:
    """Visits one device, and reports; raises nothing that is a device's fault.

    Args:
        errand: to which device, and how fast.
        work: is given the connection, the facts and the recorder.
        listen: is told of each step.
        pause: waits between attempts to connect, and says whether the run was stopped.
        full: ask for the system's Python also where there is an agent.
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
    """Returns how the agent of a device is called.

    Raises:
        DeviceFailed: there is none that answers.
    """
    if facts.agent is None:
        said = facts.agent_problem or "there is no agent"
        hint = f"knnkit provision --target {target.name}"
        hint += "" if target.root == constants.DEFAULT_ROOT else f" --root {shlex.quote(target.root)}"
        raise DeviceFailed(f"{target.name}: {said}", reason="no-agent", hint=hint)
    return facts.agent_argv

"""Connects to one device, runs a function, and reports."""

from __future__ import annotations

from collections.abc import Callable

from knnkit.errors import DeviceFailed, KnnkitError, from_os_error
from knnkit.fleet.device.connect import Job, Pause, dial
from knnkit.fleet.device.probe import Facts, probe
from knnkit.fleet.device.recorder import Listener, Recorder
from knnkit.fleet.report import DeviceReport
from knnkit.fleet.targets import Target
from knnkit.transport.base import Transport

#: The function of a visit; it returns the report.
Work = Callable[[Transport, Facts, Recorder], DeviceReport]


def visit(job: Job, work: Work, listen: Listener, pause: Pause, *, full: bool = False) -> DeviceReport:
    """Connects to one device, and returns the report that `work` returns; after an error, the report of a failure.

    `listen` gets the progress. `pause` waits some seconds, and returns whether the run was stopped. `full`: whether to
    probe the system's Python, too.
    """
    recorder, target = Recorder(job.target, listen), job.target
    try:
        with recorder.step("connect"):
            transport = dial(job, pause=pause, tried=recorder.tried, warn=recorder.warn)
        try:
            with recorder.step("probe"):
                facts = probe(transport, target.root, timeout=job.pace.command, full=full)
            return work(transport, facts, recorder)
        finally:
            transport.close()
    except KnnkitError as error:
        return recorder.fail(error)
    except OSError as error:  # of a file on this machine
        return recorder.fail(from_os_error(error))


def agent_of(target: Target, facts: Facts) -> tuple[str, ...]:
    """Returns the command line of a device's agent.

    Raises:
        DeviceFailed: the device has no agent, or the agent does not answer.
    """
    if facts.agent is None:
        known = target.root_typed or facts.agent_problem  # where the agent is
        elsewhere = "" if known else ", or --root DIR if the agent is elsewhere"
        hint = "knnkit provision --target HOST" + elsewhere
        raise DeviceFailed(f"{target.name}: {facts.no_agent}", reason="no-agent", hint=hint)
    return facts.agent_argv

"""Rows to a device's classifier and its answers back, between open files. Parses neither."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from knnkit.errors import DeviceFailed, KnnkitError
from knnkit.fleet.connect import Opener, Pause, dial, just_sleep, open_transport
from knnkit.fleet.device import Pace
from knnkit.fleet.facts import Facts, probe
from knnkit.fleet.recorder import Listener, Recorder, nobody
from knnkit.fleet.report import DeviceReport, Outcome
from knnkit.fleet.target import Target
from knnkit.transport.base import Completed, Transport

_PACE = Pace()


@dataclass(frozen=True)
class RowsJob:
    """One file of rows for one device; `output` is written as the answers come."""

    target: Target
    command: tuple[str, ...]
    input: str
    output: str
    pace: Pace = _PACE
    opener: Opener = open_transport


def pipe_rows(
    target: Target,
    pace: Pace,
    command: tuple[str, ...],
    source: BinaryIO,
    sink: BinaryIO,
    *,
    opener: Opener = open_transport,
) -> Completed:
    """Runs the agent's `classify` between two files; waits as long as the rows' writer does.

    Raises:
        Unreachable: the connection cannot be had, or broke.
        DeviceFailed: there is no agent.
    """
    transport = dial(target, pace.dialling, opener=opener)
    try:
        facts = probe(transport, target.root, timeout=pace.command)
        return transport.pipe([*_agent(target, facts), *command], source, sink, idle=None)
    finally:
        transport.close()


def classify_rows(job: RowsJob, listen: Listener = nobody, pause: Pause = just_sleep) -> DeviceReport:
    """Classifies one file on one device, and reports; raises nothing that is a device's fault."""
    recorder = Recorder(job.target, listen)
    transport: Transport | None = None
    try:
        with recorder.step("connect"):
            transport = dial(job.target, job.pace.dialling, opener=job.opener, pause=pause, tried=recorder.tried)
        facts = probe(transport, job.target.root, timeout=job.pace.command)
        recorder.know(release=facts.agent.committed if facts.agent else None)
        with recorder.step("classify"), Path(job.input).open("rb") as source, Path(job.output).open("wb") as sink:
            argv = [*_agent(job.target, facts), *job.command]
            done = transport.pipe(argv, source, sink, idle=job.pace.command)
        if done.exit_code:
            raise DeviceFailed(f"{job.target.name}: {done.complaint}", reason="classify")
        return recorder.end(Outcome.ANSWERED, details=job.output)
    except KnnkitError as error:
        return recorder.fail(error)
    finally:
        if transport is not None:
            transport.close()


def _agent(target: Target, facts: Facts) -> tuple[str, ...]:
    if facts.agent is None:
        said = facts.agent_problem or "there is no agent"
        raise DeviceFailed(f"{target.name}: {said}", reason="no-agent", hint=f"knnkit provision --target {target.name}")
    return facts.agent_argv

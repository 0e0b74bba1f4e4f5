"""Copies to this machine the rows that one device keeps.

Also copies the rows that it was taught. Changes nothing on the device.
"""

from __future__ import annotations

import json

from device_agent.shared.protocol import json_codec
from knnkit.errors import DeviceFailed
from knnkit.fleet.decide.field_rows import Brought, read_columns, read_rows
from knnkit.fleet.device.connect import Job, Pause, just_sleep
from knnkit.fleet.device.one_shot import agent_of, visit
from knnkit.fleet.device.probe import Facts
from knnkit.fleet.device.recorder import Listener, Recorder, nobody
from knnkit.fleet.report import DeviceReport, Outcome
from knnkit.transport.base import Transport

#: Most bytes that a device may print: its agent keeps less.
_MOST = 128 << 20
_COMMANDS = {"columns": ("ring", "--columns"), "enrolled": ("enrolled",), "ring": ("ring",)}


def collect_rows(job: Job, listen: Listener = nobody, pause: Pause = just_sleep) -> DeviceReport:
    """Copies the rows of one device; returns a report, also if the device fails. `rows_in(report)` returns the rows."""

    def collect(transport: Transport, facts: Facts, recorder: Recorder) -> DeviceReport:
        agent = agent_of(job.target, facts)
        recorder.know(release=facts.agent.committed if facts.agent else None)
        with recorder.step("collect"):
            printed = {name: _run(transport, agent, words, job.pace.command) for name, words in _COMMANDS.items()}
            done = recorder.end(Outcome.ANSWERED, details=json.dumps(printed))
            try:
                rows_in(done)
            except json_codec.MalformedDocument as error:
                said = f"{job.target.name}: the rows that the device keeps are malformed: {error}"
                raise DeviceFailed(said, reason="bad-answer", hint="knnkit doctor --target HOST") from None
        return recorder.end(Outcome.ANSWERED, details=done.details)

    return visit(job, collect, listen, pause)


def rows_in(report: DeviceReport) -> Brought:
    """Returns the rows in a report of `collect_rows`.

    Raises:
        MalformedDocument: the device printed a line that is not what the agent prints.
    """
    printed = {name: text.encode() for name, text in json.loads(report.details).items()}
    return read_rows(report.name, printed["enrolled"], printed["ring"], read_columns(printed["columns"]))


def _run(transport: Transport, agent: tuple[str, ...], words: tuple[str, ...], seconds: float) -> str:
    """Returns the output of the agent command `words`; raises DeviceFailed if it fails, Unreachable after `seconds`."""
    done = transport.run([*agent, *words, "--json"], timeout=seconds, max_output=_MOST)
    if done.exit_code:
        said = f"{transport.name}: {words[0]}: {done.complaint or done.exit_code}"
        raise DeviceFailed(said, reason="collect-failed", hint="knnkit doctor --target HOST")
    return done.stdout.decode("utf-8", "replace")

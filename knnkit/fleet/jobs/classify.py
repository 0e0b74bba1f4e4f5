"""Sends rows to a device's classifier and writes its answers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from device_agent.shared.file_hints import with_file
from device_agent.shared.protocol import constants
from device_agent.shared.safe_files import whole_file
from device_agent.shared.trust import standing
from knnkit.errors import DeviceFailed, KnnkitError
from knnkit.fleet.decide.plan import foreign_model
from knnkit.fleet.device.connect import Job, Pause, dial, just_sleep
from knnkit.fleet.device.one_shot import agent_of, visit
from knnkit.fleet.device.probe import Facts, probe
from knnkit.fleet.device.recorder import Listener, Recorder, nobody
from knnkit.fleet.report import DeviceReport, Outcome
from knnkit.transport.base import Completed, Transport

#: The name that the agent gives its input at the start of a message, before the line number or the error.
_FED = re.compile(
    rb"^(device_agent: )" + constants.STANDARD_INPUT.encode() + rb"(?=[,:])((?:, line (\d+))?)(.*)(\n  try: .*)?",
    re.MULTILINE,
)

_WARNING = re.compile(rb"^device_agent: warning: (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class RowsJob(Job):
    """One file of rows for one device to classify; the file `output` appears only when it has all answers."""

    command: tuple[str, ...]
    input: str
    output: str
    named: Path | None = None  # what the user named, if `input` is made of it
    files: tuple[str, ...] = ()  # the file of each line of `input`, below `named`
    models: frozenset[str] = frozenset()  # names of the models that deploy.yaml builds


def about(rows: Path | None, done: Completed, files: Sequence[str] = ()) -> Completed:
    """Returns `done` with the name of the user's file in its messages: the agent knows only its standard input.

    `rows`: the file or folder that the user named; None: standard input, and `done` is returned unchanged. `files`: for
    each line of the agent's input the name of the sound or picture in it; (): the agent got the user's file itself.
    """
    if rows is None:
        return done

    def name(found: re.Match[bytes]) -> bytes:
        number, said = int(found[3] or 0), found[2] + found[4]
        shown = os.fsencode(rows)
        if 0 < number <= len(files):
            below = constants.plain(files[number - 1]).encode()
            shown, said = os.fsencode(rows / files[number - 1] if rows.is_dir() else rows), found[4]
            said = said.removeprefix(b": " + below) if rows.is_dir() else said
        hint = os.fsencode(with_file(os.fsdecode(found[5] or b""), os.fsdecode(shown)))
        return found[1] + shown.replace(b"\n", b" ") + said + hint

    said = re.sub(_FED, name, done.stderr)
    if files:
        lead = b"take the file out of the folder" if rows.is_dir() else b"another file"
        said = said.replace(constants.OTHER_LINES.encode(), lead)
    return replace(done, stderr=said)


def pipe_rows(
    job: Job,
    command: tuple[str, ...],
    source: BinaryIO,
    sink: BinaryIO,
    *,
    models: frozenset[str] = frozenset(),
    warn: Callable[[tuple[str, ...]], None] = lambda _: None,
) -> Completed:
    """Runs the agent's `classify` (`command`) from the file `source` to the file `sink`, without a time limit.

    Before the first row is sent, `warn` is called with the warnings: why the device would not accept its release today,
    and that its model is not one of `models` (if given). The agent's messages at the end do not repeat them.

    Raises:
        Unreachable: the device cannot be connected to, or the connection broke.
        DeviceFailed: the device has no agent.
    """
    target, transport = job.target, dial(job)
    try:
        facts = probe(transport, target.root, timeout=job.pace.command)
        stands = tuple(standing.gates_missed(facts.agent.warnings)) if facts.agent else ()
        warn((*stands, *foreign_model(facts.agent, models)))
        done = transport.pipe([*agent_of(target, facts), *command], source, sink, idle=None)
        said = target.lead(os.fsdecode(done.stderr)).encode(errors="surrogateescape")
        for text in stands:
            said = said.replace(f"device_agent: warning: {text}\n".encode(), b"", 1)
        return replace(done, stderr=said)
    except KnnkitError as error:
        error.hint = target.lead(error.hint)
        raise
    finally:
        transport.close()


def classify_rows(job: RowsJob, listen: Listener = nobody, pause: Pause = just_sleep) -> DeviceReport:
    """Classifies one file of rows on one device; returns a report, also if the device fails."""

    def classify(transport: Transport, facts: Facts, recorder: Recorder) -> DeviceReport:
        if facts.agent:
            recorder.know(release=facts.agent.committed)
            recorder.warn(*facts.agent.warnings, *foreign_model(facts.agent, job.models))
        argv = [*agent_of(job.target, facts), *job.command]
        with recorder.step("classify"), Path(job.input).open("rb") as source, whole_file(Path(job.output)) as sink:
            done = transport.pipe(argv, source, sink, idle=job.pace.command)
            if done.exit_code:
                said = about(job.named or Path(job.input), done, job.files).complaint
                raise DeviceFailed(f"{job.target.name}: {said}", reason="classify")
        recorder.warn(*(said.decode("utf-8", "replace") for said in re.findall(_WARNING, done.stderr)))
        return recorder.end(Outcome.ANSWERED, details=job.output)

    return visit(job, classify, listen, pause)

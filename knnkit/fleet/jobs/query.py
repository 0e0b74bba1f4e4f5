"""Runs one query on one device: status, parity, rollback, ..."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from device_agent.shared.protocol import constants, json_codec, reports
from device_agent.shared.protocol.documents import Committed, History, TrustedKeys
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.protocol.reports import Bench, Diagnosis
from device_agent.shared.trust import standing
from knnkit.errors import DeviceFailed, ParityFailed
from knnkit.fleet.decide.doctor import findings_of
from knnkit.fleet.decide.plan import foreign_keys, foreign_model
from knnkit.fleet.device.agent_client import ask
from knnkit.fleet.device.connect import Job, Pause, just_sleep
from knnkit.fleet.device.one_shot import agent_of, visit
from knnkit.fleet.device.probe import Facts
from knnkit.fleet.device.recorder import Listener, Recorder, nobody
from knnkit.fleet.jobs.check import prove
from knnkit.fleet.report import DeviceReport, Outcome
from knnkit.transport.base import Transport

Kind = Literal["status", "parity", "rollback", "floor", "bench", "logs", "doctor", "keys"]
#: Most bytes of taught rows: as many as a device takes, and a rest.
_MAX_TAUGHT = 64 << 20
#: Queries whose answer is only passed on: the agent's command, and the document that it answers.
_ASKED: dict[str, tuple[str, type[Any]]] = {
    "bench": ("bench", Bench),
    "logs": ("history", History),
    "keys": ("trust", TrustedKeys),
}


@dataclass(frozen=True)
class Question(Job):
    """The job of one query to one device; `arguments` and `input` are passed unchanged to the agent's command."""

    kind: Kind
    holder: str
    nonce: str = ""
    arguments: tuple[str, ...] = ()
    input: bytes = b""  # the command's standard input
    rows: int | None = None  # number of rows that a certificate must cover; None: not checked
    digest: str | None = None  # the release that a certificate must be for; None: the one that answers
    named: frozenset[str] = frozenset()  # fingerprints of the keys that deploy.yaml names
    models: frozenset[str] = frozenset()  # names of the models that it builds
    built: Mapping[str, Path] = field(default_factory=dict)  # digest -> release on this machine, to replay taught rows


@dataclass(frozen=True)
class Findings:
    """The answer of the query `doctor`: the host's findings, then the agent's."""

    findings: tuple[reports.Finding, ...]


def ask_device(question: Question, listen: Listener = nobody, pause: Pause = just_sleep) -> DeviceReport:
    """Runs a query on one device; returns a report, also if the device fails."""
    return visit(question, partial(_answer, question), listen, pause)


def _answer(question: Question, transport: Transport, facts: Facts, recorder: Recorder) -> DeviceReport:
    if facts.agent:
        recorder.know(release=facts.agent.committed, previous=facts.agent.previous, status=facts.agent)
        recorder.warn(*facts.agent.warnings, *foreign_keys(facts.agent, question.named))
    if question.kind == "doctor":
        return _doctor(question, transport, facts, recorder)
    recorder.warn(*foreign_model(facts.agent, question.models))
    agent_of(question.target, facts)
    if question.kind == "status":
        return recorder.end(Outcome.ANSWERED)
    if question.kind == "parity":
        return _parity(question, transport, facts, recorder)
    if question.kind in ("rollback", "floor"):
        return _rollback(question, transport, facts, recorder)
    with recorder.step(question.kind):
        command, kind = _ASKED[question.kind]
        asked, pace = [command, *question.arguments], question.pace
        found = ask(transport, facts.agent_argv, asked, kind, timeout=pace.command, input=question.input)
    return recorder.end(Outcome.ANSWERED, details=json_codec.dumps(found))


def _parity(question: Question, transport: Transport, facts: Facts, recorder: Recorder) -> DeviceReport:
    name, status = question.target.name, facts.agent
    assert status is not None
    if status.answering is None:
        raise DeviceFailed(f"{name}: no release runs there", reason="no-release", hint="knnkit deploy --target HOST")
    if question.digest not in (None, status.answering):
        said = f"{name}: runs {status.answering[:12]}, not the release that these rows are for"
        raise DeviceFailed(said, reason="other-release", hint="knnkit deploy --target HOST")
    with recorder.step("check"):
        proof = prove(
            transport,
            facts.agent_argv,
            status.answering,
            question.nonce,
            timeout=question.pace.command,
            arguments=question.arguments,
            input=question.input,
            rows=question.rows,
        )
    recorder.know(certificate=proof.certificate)
    stands = standing.gates_missed((*(proof.certificate.warnings if proof.certificate else ()), *status.warnings))
    if proof.wrong:
        raise ParityFailed(f"{name}: {'; '.join((proof.wrong, *stands))}", reason=proof.reason, hint=proof.hint)
    _replay(question, transport, facts, recorder, proof.certificate)
    if stands:
        hint = "knnkit doctor --target HOST names the way out"
        raise ParityFailed(f"{name}: {'; '.join(stands)}", reason=stands[0].partition(":")[0], hint=hint)
    return recorder.end(Outcome.ANSWERED)


def _replay(
    question: Question, transport: Transport, facts: Facts, recorder: Recorder, proof: reports.Certificate | None
) -> None:
    """Checks the numbers about taught rows in `proof`, a golden check's result: computes them again on this machine."""
    told = proof.taught if proof else None
    if proof is None or told is None or proof.release not in question.built:
        return
    from knnkit.evaluation import taught  # NumPy

    with recorder.step("replay"):
        argv = [*facts.agent_argv, "enrolled", "--json"]
        sent = transport.run(argv, timeout=question.pace.command, max_output=_MAX_TAUGHT)
        try:
            wrong = taught.contradicts(question.built[proof.release], proof.release, sent.stdout, told)
        except (json_codec.MalformedDocument, ModelUnusable) as error:
            wrong = f"the taught rows of the device cannot be read: {error}"
    if wrong:
        said = f"{question.target.name}: {wrong}"
        raise ParityFailed(said, reason="taught-differs", hint="python -m device_agent enrolled, on the device")


def _rollback(question: Question, transport: Transport, facts: Facts, recorder: Recorder) -> DeviceReport:
    command = ["rollback", "--holder", question.holder, *question.arguments]
    with recorder.step("roll back"):
        done = ask(transport, facts.agent_argv, command, Committed, timeout=question.pace.command, input=question.input)
    known = {"release": done.release, "previous": done.previous}
    if question.kind == "floor":
        said = f"the device accepts older releases {'already' if done.already else 'again'}"
        return recorder.end(Outcome.UNCHANGED if done.already else Outcome.ANSWERED, message=said, **known)
    if not done.already:
        if facts.agent:  # what was wrong with the releases that are left is over
            recorder.unwarn(*standing.gates_missed(facts.agent.warnings), *standing.of_previous(facts.agent.warnings))
        recorder.warn(*done.warnings)
        return recorder.end(Outcome.COMMITTED, **known)
    gone = "the device has gone back already; to go further back: --to VERSION or DIGEST"
    why = "the device runs this release already" if question.input else gone
    return recorder.end(Outcome.UNCHANGED, message=why, **known)


def _doctor(question: Question, transport: Transport, facts: Facts, recorder: Recorder) -> DeviceReport:
    """Returns a report with the findings of the host, then those of the agent's `doctor`."""
    findings = list(findings_of(question.target, facts, question.named, question.models))
    if facts.agent is not None:
        with recorder.step("doctor"):
            completed = transport.run(
                [*facts.agent_argv, "doctor", "--json"],
                timeout=question.pace.command,
                max_output=json_codec.MAX_DOCUMENT,
            )
        try:  # with errors among its findings the agent exits with 1, and still answers
            findings += json_codec.loads(Diagnosis, completed.stdout).findings
        except json_codec.MalformedDocument as error:
            said = f"the agent's doctor does not answer: {completed.complaint or error}"
            findings.append(reports.Finding("agent", "error", said, "knnkit provision --target HOST"))
    findings = [replace(each, mend=question.target.lead(each.mend)) for each in findings]
    sick = sum(finding.level == "error" for finding in findings)
    return recorder.end(
        Outcome.FAILED if sick else Outcome.ANSWERED,
        exit_code=constants.EXIT_FAILED if sick else constants.EXIT_OK,
        reason="unfit" if sick else "",
        message=f"{question.target.name}: {sick} of {len(findings)} findings are errors" if sick else "",
        details=json_codec.dumps(Findings(tuple(findings))),
    )

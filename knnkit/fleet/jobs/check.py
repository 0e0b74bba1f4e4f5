"""A device proves that what answers there holds: a fresh golden check, judged again here. Switches nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.reports import Certificate
from knnkit.errors import ParityFailed
from knnkit.fleet.decide.certificate import disbelieved, missed
from knnkit.fleet.device.agent_client import AgentProblem, ask_agent
from knnkit.fleet.device.probe import Facts
from knnkit.fleet.device.recorder import Recorder
from knnkit.fleet.targets import Target
from knnkit.transport.base import Transport

_DISBELIEVED = "bad-certificate"
#: What to do where the release that answers does not hold in another environment.
_HINT = "deploy a release that holds on both, with --provision never, then provision"


@dataclass(frozen=True)
class Proof:
    """What a check came to: `wrong` says why the certificate proves nothing, and is empty where it does."""

    certificate: Certificate
    wrong: str
    reason: str  # a stable word

    @property
    def different(self) -> float:
        """Rows that are answered wrongly: all, where the certificate is not to be believed."""
        return math.inf if self.reason == _DISBELIEVED else self.certificate.different


def prove(
    transport: Transport,
    agent: Sequence[str],
    digest: str,
    nonce: str,
    *,
    timeout: float,
    arguments: Sequence[str] = (),
    input: bytes = b"",
    rows: int | None = None,
) -> Proof:
    """Has an agent check the release that answers.

    Args:
        transport: to the device.
        agent: how it is called.
        digest: of the release that answers.
        nonce: of this run.
        timeout: seconds.
        arguments: go to the agent's command as they are.
        input: the command's standard input.
        rows: how many rows the certificate must cover; None: as many as the release has.

    Raises:
        AgentProblem: there is no certificate.
        DeviceFailed, Unreachable: as `knnkit.fleet.device.agent_client.ask`.
    """
    command, refused = ["check", "--nonce", nonce, *arguments], ""
    try:
        found = ask_agent(transport, agent, command, Certificate, timeout=timeout, input=input)
    except AgentProblem as problem:
        if problem.problem.certificate is None:
            raise
        found, refused = problem.problem.certificate, problem.said
    wrong = disbelieved(found, nonce, digest, rows=rows)
    said = wrong or "; ".join(missed(found, None)) or refused
    return Proof(found, said, _DISBELIEVED if wrong else "gate-failed")


def trial(
    target: Target, transport: Transport, facts: Facts, recorder: Recorder, nonce: str, *, timeout: float
) -> Callable[[str, str], None] | None:
    """Returns what has the release that answers checked in another environment, before a device uses that.

    It is called with the Python of an environment beside the one in use and with what is new there, gives the
    certificate to the recorder, and raises where the release does not hold there: less than in the environment in use,
    where it does not hold either. None where nothing can answer now: another environment can only mend that.

    Args:
        target: the device.
        transport: to it.
        facts: say what answers there now.
        recorder: of this run.
        nonce: of this run.
        timeout: seconds.
    """
    status = facts.agent
    if status is None or status.runtime is None:
        return None

    def attempt(python: str) -> _Attempt:
        agent = (python, *facts.agent_argv[1:])
        try:
            proof = prove(transport, agent, status.answering or "", nonce, timeout=timeout)
        except AgentProblem as problem:
            if problem.exit_code != constants.EXIT_REFUSED:
                raise
            return _Attempt(None, math.inf, problem.said, problem.reason, problem.hint)
        return _Attempt(proof.certificate, proof.different, proof.wrong, proof.reason, _HINT)

    def check(python: str, what: str) -> None:
        if status.answering is None:
            return
        found = attempt(python)
        recorder.know(certificate=found.certificate)
        if not found.said:
            return
        before = attempt(facts.agent_argv[0])
        if before.said and found.different <= before.different:
            recorder.warn(f"what answers there holds neither on {what} nor on what it replaces: {found.said}")
            return
        stays = f"what answers there does not hold on {what}, which was not put into use"
        raise ParityFailed(f"{target.name}: {stays}: {found.said}", reason=found.reason, hint=found.hint)

    return check


@dataclass(frozen=True)
class _Attempt:
    """What a check in one environment came to; `said` is empty where the release holds."""

    certificate: Certificate | None
    different: float  # rows that are answered wrongly: all, where none is answered
    said: str
    reason: str
    hint: str

"""Runs a golden check on a device; judges its certificate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.reports import Certificate
from knnkit.errors import ParityFailed
from knnkit.fleet.decide.certificate import disbelieved, missed
from knnkit.fleet.device.agent_client import AgentProblem, ask
from knnkit.fleet.device.probe import Facts
from knnkit.fleet.device.recorder import Recorder
from knnkit.fleet.targets import Target
from knnkit.transport.base import Transport

_DISBELIEVED = "bad-certificate"
#: Hint if a device says that all is well, but its certificate says otherwise, or cannot be believed.
ANOTHER_AGENT = "`knnkit provision --target HOST` replaces the agent, whose report is wrong"
#: The hint if the answering release fails its check in another environment.
_HINT = "deploy a release that passes in both environments, with --provision never, then provision"


@dataclass(frozen=True)
class Proof:
    """The result of a golden check: `wrong` says why it failed; "" if it passed."""

    certificate: Certificate | None  # None: the agent refused without one
    wrong: str
    reason: str  # a stable word
    hint: str

    @property
    def different(self) -> float:
        """Number of golden rows that the certificate calls different; infinite without a valid certificate."""
        if self.certificate is None or self.reason == _DISBELIEVED:
            return math.inf
        return self.certificate.different


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
    """Runs the agent's golden check of `digest`, the device's present release. Switches nothing.

    `agent` begins the agent's command line; `nonce` is a random text that the certificate must repeat. `arguments` and
    `input` are additional arguments and the standard input of the agent's command. `rows` is the number of rows that
    the certificate must cover; None: not checked.

    Raises:
        AgentProblem: the agent reports a problem without a certificate.
        DeviceFailed: there is no answer, it is malformed, or this knnkit is too old to read it.
        Unreachable: the connection broke, or `timeout` seconds passed.
    """
    command, refused, hint = ["check", "--nonce", nonce, *arguments], "", ANOTHER_AGENT
    try:
        found = ask(transport, agent, command, Certificate, timeout=timeout, input=input)
    except AgentProblem as problem:
        if problem.problem.certificate is None:
            raise
        found, refused, hint = problem.problem.certificate, problem.said, problem.hint
    wrong = disbelieved(found, nonce, digest, rows=rows)
    hint = ANOTHER_AGENT if wrong else hint
    said = wrong or "; ".join(missed(found, None)) or refused
    return Proof(found, said, _DISBELIEVED if wrong else "gate-failed", hint)


def trial(
    target: Target, transport: Transport, facts: Facts, recorder: Recorder, nonce: str, *, timeout: float
) -> Callable[[str, str], None] | None:
    """Returns a function that checks the device's release in a new environment before the device uses that environment.

    The function takes the path of the new environment's Python, and text for messages about what is new there. It
    records the check's result. It raises ParityFailed if the release fails the check there, unless it also fails in the
    environment in use, with at least as many wrong rows. Returns None if the device has no agent or runtime yet.
    """
    status = facts.agent
    if status is None or status.runtime is None:
        return None

    def attempt(python: str) -> Proof:
        agent = (python, *facts.agent_argv[1:])
        try:
            return prove(transport, agent, status.answering or "", nonce, timeout=timeout)
        except AgentProblem as problem:
            if problem.exit_code != constants.EXIT_REFUSED:
                raise
            return Proof(None, problem.said, problem.reason, problem.hint)

    def check(python: str, what: str) -> None:
        if status.answering is None:
            return
        found = attempt(python)
        recorder.know(certificate=found.certificate)
        if not found.wrong:
            return
        before = attempt(facts.agent_argv[0])
        if before.wrong and found.different <= before.different:
            used = "which comes into use all the same, because the old environment answers no better"
            recorder.warn(f"its release fails the golden check on {what}, {used}: {found.wrong}")
            return
        stays = f"its release fails the golden check on {what}; the device keeps its old environment"
        hint = _HINT if found.certificate else found.hint
        raise ParityFailed(f"{target.name}: {stays}: {found.wrong}", reason=found.reason, hint=hint)

    return check

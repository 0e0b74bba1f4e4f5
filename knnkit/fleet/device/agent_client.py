"""Asks a device's agent one thing and reads the one document it answers, strictly. Decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.reports import Problem
from knnkit.errors import DeviceFailed, KnnkitError
from knnkit.fleet.device.probe import Facts
from knnkit.transport.base import Completed, Transport, printable

T = TypeVar("T")


class AgentProblem(KnnkitError):
    """The agent said no: `problem` is its own document, cleaned for display."""

    def __init__(self, device: str, problem: Problem) -> None:
        super().__init__(
            f"{device}: {printable(problem.message)}", hint=printable(problem.hint), reason=printable(problem.reason)
        )
        self.problem = problem
        self.said = printable(problem.message)
        # Arguments are ours: that the agent does not take them is a failure, not the user's mistake.
        known = (constants.EXIT_REFUSED, constants.EXIT_LOCKED)
        self.exit_code = problem.exit_code if problem.exit_code in known else constants.EXIT_FAILED


def ask(
    transport: Transport, facts: Facts, command: Sequence[str], answer: type[T], *, timeout: float, input: bytes = b""
) -> T:
    """Runs an agent command with `--json` and returns its document.

    Args:
        transport: to the device.
        facts: say how the agent is called.
        command: the agent's command and arguments.
        answer: the contract's dataclass for it.
        timeout: seconds.
        input: the command's standard input.

    Raises:
        AgentProblem: the agent said no.
        DeviceFailed: it answered nothing, or what keeps no constants.
        Unreachable: the connection broke, or the deadline passed.
    """
    return ask_agent(transport, facts.agent_argv, command, answer, timeout=timeout, input=input)


def ask_agent(
    transport: Transport,
    agent: Sequence[str],
    command: Sequence[str],
    answer: type[T],
    *,
    timeout: float,
    input: bytes = b"",
) -> T:
    """As `ask`, of the agent that is called so, also where it is not the one in use."""
    argv = [*agent, *command, "--json"]
    completed = transport.run(argv, timeout=timeout, input=input, max_output=json_codec.MAX_DOCUMENT)
    return read_answer(transport.name, completed, command[0], answer)


def read_answer(device: str, completed: Completed, command: str, answer: type[T]) -> T:
    """Reads the document that an agent command printed.

    Raises:
        AgentProblem, DeviceFailed: as `ask`.
    """
    try:
        if completed.exit_code == 0:
            return json_codec.loads(answer, completed.stdout)
        problem = json_codec.loads(Problem, completed.stdout)
    except json_codec.NewerDocument as error:
        said = f"{device}: `{command}` answers what this knnkit cannot read: {error}"
        hint = "in a clone of the knnkit whose version `knnkit status` shows as the agent's: pip install ."
        raise DeviceFailed(said, reason="knnkit-too-old", hint=hint) from None
    except json_codec.MalformedDocument as error:
        said = completed.complaint or f"exit code {completed.exit_code}, {printable(str(error))}"
        raise DeviceFailed(
            f"{device}: `{command}` gave no answer: {said}",
            reason="no-answer",
            hint=f"knnkit doctor --target {device}",
        ) from None
    raise AgentProblem(device, problem)

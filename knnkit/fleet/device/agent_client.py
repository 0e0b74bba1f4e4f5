"""Runs one command of a device's agent; reads the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.reports import Problem
from knnkit.errors import DeviceFailed, KnnkitError
from knnkit.transport.base import Completed, Transport, printable

T = TypeVar("T")


class AgentProblem(KnnkitError):
    """An error that the agent reported; `problem` is the agent's document about it."""

    def __init__(self, device: str, problem: Problem) -> None:
        super().__init__(
            f"{device}: {printable(problem.message)}", hint=printable(problem.hint), reason=printable(problem.reason)
        )
        self.problem = problem
        self.said = printable(problem.message)
        # The arguments come from this code: if the agent rejects them, it is a failure, not the user's mistake.
        known = (constants.EXIT_REFUSED, constants.EXIT_LOCKED)
        self.exit_code = problem.exit_code if problem.exit_code in known else constants.EXIT_FAILED


def ask(
    transport: Transport,
    agent: Sequence[str],
    command: Sequence[str],
    answer: type[T],
    *,
    timeout: float,
    input: bytes = b"",
) -> T:
    """Runs an agent command with `--json`, and returns its answer as a document of the type `answer`.

    `agent` begins the command line: a Python, `-m device_agent` and the root. `input` is the standard input of the
    command, `timeout` its time limit in seconds.

    Raises:
        AgentProblem: the agent reported a problem.
        DeviceFailed: there is no answer, it is malformed, or this knnkit is too old to read it.
        Unreachable: the connection broke, or the time limit passed.
    """
    argv = [*agent, *command, "--json"]
    completed = transport.run(argv, timeout=timeout, input=input, max_output=json_codec.MAX_DOCUMENT)
    return read_answer(transport.name, completed, command[0], answer)


def read_answer(device: str, completed: Completed, command: str, answer: type[T]) -> T:
    """Parses the output of the agent command `command`, now completed, as a document of the type `answer`.

    Raises:
        AgentProblem: the agent reported a problem.
        DeviceFailed: there is no answer, it is malformed, or this knnkit is too old to read it.
    """
    try:
        if completed.exit_code == 0:
            return json_codec.loads(answer, completed.stdout)
        problem = json_codec.loads(Problem, completed.stdout)
    except json_codec.NewerDocument as error:
        said = f"{device}: this knnkit cannot read the answer of `{command}`: {error}"
        hint = "in a clone of the knnkit whose version `knnkit status` shows as the agent's: pip install ."
        raise DeviceFailed(said, reason="knnkit-too-old", hint=hint) from None
    except json_codec.MalformedDocument as error:
        said = completed.complaint or f"exit code {completed.exit_code}, {printable(str(error))}"
        raise DeviceFailed(
            f"{device}: `{command}` gave no answer: {said}", reason="no-answer", hint="knnkit doctor --target HOST"
        ) from None
    raise AgentProblem(device, problem)

"""Keeps what happens to one device while its job runs, and makes the report of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from device_agent.shared.protocol import constants
from knnkit.errors import DeviceLocked, KnnkitError, Unreachable
from knnkit.fleet.device.agent_client import AgentProblem
from knnkit.fleet.report import DeviceReport, Outcome, Step
from knnkit.fleet.targets import Target

#: Is told (device, step, bytes done, bytes in all); bytes only where a step sends some.
Listener = Callable[[str, str, "int | None", "int | None"], None]


def nobody(_device: str, _step: str, _done: int | None, _total: int | None) -> None:
    """Listens to nothing."""


class Recorder:
    """One device's run: steps with their times, and what is known so far."""

    def __init__(self, target: Target, listen: Listener) -> None:
        self._listen = listen
        self._steps: list[Step] = []
        self._report = DeviceReport(
            target.name, str(target), Outcome.SKIPPED, device_class=target.device_class, started=time.time()
        )
        self._begun = time.monotonic()

    def know(self, **values: object) -> None:
        """Sets fields of the report to come."""
        self._report = replace(self._report, **values)  # type: ignore[arg-type]

    def tried(self) -> None:
        """Counts an attempt to connect."""
        self.know(connections=self._report.connections + 1)

    def warn(self, *warnings: str) -> None:
        """Adds warnings."""
        self.know(warnings=tuple(dict.fromkeys((*self._report.warnings, *warnings))))

    def unwarn(self, *warnings: str) -> None:
        """Takes warnings back: what they are about is over."""
        self.know(warnings=tuple(text for text in self._report.warnings if text not in warnings))

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """Times a step; gives a function to say how many bytes of how many are sent."""
        self._listen(self._report.name, name, None, None)
        started, begun, note = time.time(), time.monotonic(), ""

        def progress(done: int, total: int) -> None:
            self._listen(self._report.name, name, done, total)

        try:
            yield progress
        except KnnkitError as error:
            note = error.reason or type(error).__name__
            raise
        finally:
            self._steps.append(Step(name, started, round(time.monotonic() - begun, 6), note))

    def divide(self, first: str, seconds: float) -> None:
        """Says that the last step was two: its first `seconds`, as the device tells them, were the step `first`."""
        last = self._steps.pop()
        part = round(min(max(0.0, seconds), last.seconds), 6)  # it may say anything
        rest = replace(last, started=last.started + part, seconds=round(last.seconds - part, 6))
        self._steps += [Step(first, last.started, part), rest]

    def rename(self, name: str) -> None:
        """Says that the last step was another one."""
        self._steps[-1] = replace(self._steps[-1], name=name)

    def end(self, outcome: Outcome, **values: object) -> DeviceReport:
        """Returns the report."""
        self.know(outcome=outcome, seconds=round(time.monotonic() - self._begun, 6), steps=tuple(self._steps), **values)
        return self._report

    def fail(self, error: KnnkitError, outcome: Outcome | None = None, more: str = "") -> DeviceReport:
        """Returns the report of a device that came to nothing; `more` is what is known beyond the error."""
        certificate = error.problem.certificate if isinstance(error, AgentProblem) else None
        outcome = outcome or outcome_of(error)
        plain = error.exit_code == constants.EXIT_USAGE or (
            outcome is Outcome.ROLLED_BACK and error.exit_code in (constants.EXIT_UNREACHABLE, constants.EXIT_LOCKED)
        )
        return self.end(
            outcome,
            exit_code=constants.EXIT_FAILED if plain else error.exit_code,
            reason=error.reason or type(error).__name__,
            message=f"{error}; {more}" if more else str(error),
            hint=error.hint,
            certificate=certificate or self._report.certificate,
        )


def outcome_of(error: KnnkitError) -> Outcome:
    """Returns what an error makes of a device that was not yet activated."""
    if isinstance(error, Unreachable):
        return Outcome.UNREACHABLE
    if isinstance(error, DeviceLocked) or error.exit_code == constants.EXIT_LOCKED:
        return Outcome.LOCKED
    return Outcome.FAILED

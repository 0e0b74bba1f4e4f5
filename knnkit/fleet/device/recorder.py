"""Records the steps of one device's job for its report."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from device_agent.shared.protocol import constants
from knnkit.errors import DeviceLocked, KnnkitError, Unreachable
from knnkit.fleet.device.agent_client import AgentProblem
from knnkit.fleet.report import DeviceReport, Outcome, Step, readable
from knnkit.fleet.targets import Target

#: Called with (device, step, bytes sent, bytes in total); bytes are None if a step sends nothing.
Listener = Callable[[str, str, "int | None", "int | None"], None]


def nobody(_device: str, _step: str, _done: int | None, _total: int | None) -> None:
    """A progress listener that does nothing."""


def report_on(target: Target, outcome: Outcome, **values: Any) -> DeviceReport:
    """Returns a new report of a device; `values` are fields of the report."""
    return DeviceReport(target.name, str(target), outcome, device_class=target.device_class, **values)


class Recorder:
    """Records the run of one job: its steps with their times, and the fields of its report."""

    def __init__(self, target: Target, listen: Listener) -> None:
        self._listen, self._lead = listen, target.lead
        self._steps: list[Step] = []
        self._report = report_on(target, Outcome.SKIPPED, started=time.time())
        self._begun = time.monotonic()

    def know(self, **values: Any) -> None:
        """Sets fields of the report, by name; first removes impossible figures from a `certificate`."""
        if values.get("certificate"):
            values["certificate"] = readable(values["certificate"])
        self._report = replace(self._report, **values)

    def tried(self) -> None:
        """Adds one to the number of connections in the report."""
        self.know(connections=self._report.connections + 1)

    def warn(self, *warnings: str) -> None:
        """Adds warnings to the report, each once."""
        self.know(warnings=tuple(dict.fromkeys((*self._report.warnings, *warnings))))

    def unwarn(self, *warnings: str) -> None:
        """Removes warnings from the report."""
        self.know(warnings=tuple(text for text in self._report.warnings if text not in warnings))

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """Measures the time of the step `name`; yields a function that reports (bytes sent, bytes in total)."""
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
        """Splits the last step in two: its first `seconds` become the step `first`, its other seconds keep its name."""
        last = self._steps.pop()
        part = round(min(max(0.0, seconds), last.seconds), 6)  # a hostile device may send any number
        rest = replace(last, started=last.started + part, seconds=round(last.seconds - part, 6))
        self._steps += [Step(first, last.started, part), rest]

    def rename(self, name: str) -> None:
        """Gives the last step another name."""
        self._steps[-1] = replace(self._steps[-1], name=name)

    def end(self, outcome: Outcome, **values: object) -> DeviceReport:
        """Ends the run; returns its report with the fields `values`; its hint names this device in place of HOST."""
        values["hint"] = self._lead(str(values.get("hint", "")))
        self.know(outcome=outcome, seconds=round(time.monotonic() - self._begun, 6), steps=tuple(self._steps), **values)
        return self._report

    def fail(self, error: KnnkitError, outcome: Outcome | None = None, more: str = "") -> DeviceReport:
        """Ends the run with `error`; returns its report, with `more` after the message.

        Without an `outcome`, the class of the error decides between unreachable, locked and failed.
        """
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
    """Returns the outcome of a device if `error` ended its job before a release was activated."""
    if isinstance(error, Unreachable):
        return Outcome.UNREACHABLE
    if isinstance(error, DeviceLocked) or error.exit_code == constants.EXIT_LOCKED:
        return Outcome.LOCKED
    return Outcome.FAILED

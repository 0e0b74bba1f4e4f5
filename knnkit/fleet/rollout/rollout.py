"""Deploys to a fleet in waves, within a failure budget.

After a stop (too many failures, or Ctrl-C), no further device begins, and a device that is switching to the release
finishes the switch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from device_agent.shared.protocol import constants
from knnkit.fleet.decide import go_back
from knnkit.fleet.device.connect import Job
from knnkit.fleet.device.recorder import report_on
from knnkit.fleet.jobs.deploy import run_job
from knnkit.fleet.jobs.job import DeviceJob
from knnkit.fleet.jobs.query import Question, ask_device
from knnkit.fleet.report import DeviceReport, FleetReport, Outcome, WaveReport, exit_code
from knnkit.fleet.rollout import waves
from knnkit.fleet.rollout.executor import Fan, Work, stopped_by_signals
from knnkit.fleet.rollout.waves import Wave
from knnkit.fleet.targets import Target


class Watch(Protocol):
    """Callbacks for progress; `step` is called in the thread of its device."""

    def wave(self, wave: Wave, number: int, total: int) -> None:
        """Called when a wave begins, the `number`-th of `total` (from 1)."""

    def step(self, device: str, step: str, done: int | None, total: int | None) -> None:
        """Called when a device begins a step, and during uploads, with `done` of `total` bytes sent."""

    def finish(self, report: DeviceReport) -> None:
        """Called when a device is finished."""

    def note(self, text: str) -> None:
        """Called with a message about the whole run."""


@dataclass(frozen=True)
class Rules:
    """Waves and failure budget of a rollout, as in `rollout` of deploy.yaml."""

    waves: tuple[int | str, ...] = ("100%",)
    max_failures: int | str = 0
    on_failure: Literal["stop", "roll_back"] = "stop"


def roll_out(
    targets: Sequence[Target],
    make_job: Callable[[Target], DeviceJob],
    rules: Rules,
    fan: Fan,
    watch: Watch,
    *,
    work: Work = run_job,
) -> FleetReport:
    """Deploys to every device, wave by wave; `make_job` returns the job of a device, just before `work` runs it.

    Returns:
        A report with every target, in the order of `targets`; devices whose job did not begin are SKIPPED.
    """
    run = _Rollout(targets, make_job, rules, fan, watch, work)
    with stopped_by_signals(fan.stop, watch.note):
        run.go()
        if rules.on_failure == "roll_back":
            run.roll_back()
    return run.report()


@dataclass
class _Rollout:
    """The state of a rollout while it runs."""

    targets: Sequence[Target]
    make_job: Callable[[Target], DeviceJob]
    rules: Rules
    fan: Fan
    watch: Watch
    work: Work

    def __post_init__(self) -> None:
        self.by_name = {target.name: target for target in self.targets}
        self.waves, self.left_out = waves.divide(self.targets, self.rules.waves)
        self.budget = waves.allowed(self.rules.max_failures, len(self.targets))
        self.done: dict[str, DeviceReport] = {}
        self.jobs: dict[str, DeviceJob] = {}  # those that were begun
        self.wave_reports: list[WaveReport] = []
        self.stopped = ""
        self.started, self.begun = time.time(), time.monotonic()

    def go(self) -> None:
        for index, wave in enumerate(self.waves):
            if self.stopped or self.fan.stop.is_set():
                self.wave_reports.append(WaveReport(wave.label, wave.devices))
                continue
            self.watch.wave(wave, index + 1, len(self.waves))
            started, begun = time.time(), time.monotonic()
            self._run_wave(index, wave)
            self.wave_reports.append(WaveReport(wave.label, wave.devices, started, time.monotonic() - begun))

    def _run_wave(self, index: int, wave: Wave) -> None:
        proving = index == 0 and len(self.waves) > 1
        jobs = (self._begin(self.by_name[name]) for name in wave.devices)
        for report in self.fan.each(self.work, jobs, self.watch.step, may_begin=lambda: not self.stopped):
            report = replace(report, wave=index)
            self.done[report.name] = report
            self.watch.finish(report)
            self._stop_for(waves.overspent(tuple(self.done.values()), self.budget, proving=proving))
        self.stopped = waves.overspent(tuple(self.done.values()), self.budget, proving=proving)  # counts all failures
        if proving and not self.stopped and not self.fan.stop.is_set():
            self._stop_for(waves.unproven([self.done[name] for name in wave.devices]))

    def _begin(self, target: Target) -> DeviceJob:
        job = self.jobs[target.name] = self.make_job(target)
        return job

    def _stop_for(self, why: str) -> None:
        if why and not self.stopped:
            self.stopped = why
            self.watch.note(f"the rollout stops: {why}")

    def roll_back(self) -> None:
        """Rolls back the devices that committed the release in this run; does nothing unless the rollout stopped."""
        leaving = go_back.committed(self.done.values())
        if not self.stopped or not leaving:
            return
        self.watch.note(f"rolling back {', '.join(report.name for report in leaving)}")
        code = exit_code(self.done.values())
        answers: dict[str, DeviceReport] = {}
        for _ in range(2):  # an answer may be lost; a device that went back already does nothing
            silent = [r for r in leaving if r.name not in answers or answers[r.name].outcome is Outcome.UNREACHABLE]
            questions = [self._question(report) for report in silent if report.previous]
            for answer in self.fan.each(ask_device, questions, self.watch.step):
                answers[answer.name] = answer
        for report in leaving:
            done = go_back.gone_back(report, answers.get(report.name), code)
            self.done[report.name] = replace(done, hint=self.by_name[report.name].lead(done.hint))
            self.watch.finish(self.done[report.name])

    def _question(self, report: DeviceReport) -> Question:
        job = self.jobs[report.name]
        leave = ("--leave", job.package.digest)
        return Question(job.target, "rollback", job.holder, arguments=leave, pace=job.pace, opener=job.opener)

    def report(self) -> FleetReport:
        """Returns the report of the whole run so far."""
        numbers = {name: index for index, wave in enumerate(self.waves) for name in wave.devices}
        devices = tuple(
            self.done.get(name) or self._unfinished(target, numbers.get(name)) for name, target in self.by_name.items()
        )
        return FleetReport(
            command="deploy",
            started=self.started,
            seconds=time.monotonic() - self.begun,
            devices=devices,
            waves=tuple(self.wave_reports),
            stopped=self.stopped,
            interrupted=self.fan.stop.is_set(),
        )

    def _unfinished(self, target: Target, wave: int | None) -> DeviceReport:
        job = self.jobs.get(target.name)
        if job is not None and self.fan.stop.left:
            message = (
                "a second signal ended the run during this deploy: the device commits the release, "
                f"or goes back to the previous release within {job.pace.confirm:g} s"
            )
            hint = target.lead("knnkit status --target HOST, to see which release runs")
            why = {"reason": "left", "message": message, "hint": hint}
            return report_on(target, Outcome.FAILED, exit_code=constants.EXIT_FAILED, wave=wave, **why)
        if target.name in self.left_out:
            reason, said = "no-wave", "no wave contains it"
        elif self.stopped:
            reason, said = "rollout-stopped", f"not begun: {self.stopped}"
        else:
            reason, said = "interrupted", "not begun: the run was interrupted"
        return report_on(target, Outcome.SKIPPED, reason=reason, message=said, wave=wave)


def ask_all(command: str, jobs: Sequence[Job], work: Work, fan: Fan, watch: Watch) -> FleetReport:
    """Runs `work` for each of `jobs`, without waves; returns a report of `command`, with devices in that order."""
    started, begun = time.time(), time.monotonic()
    done: dict[str, DeviceReport] = {}
    with stopped_by_signals(fan.stop, watch.note):
        for report in fan.each(work, jobs, watch.step):
            watch.finish(report)
            done[report.name] = report
    missing = (job.target for job in jobs if job.target.name not in done)
    said = "no result: the run was interrupted a second time" if fan.stop.left else "not begun: interrupted"
    for target in missing:
        done[target.name] = report_on(target, Outcome.SKIPPED, reason="interrupted", message=said)
    devices = tuple(done[job.target.name] for job in jobs)
    return FleetReport(command, started, time.monotonic() - begun, devices, interrupted=fan.stop.is_set())

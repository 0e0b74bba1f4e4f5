"""Deploys to one device: look, plan, push, stage, activate, confirm from a new connection. One device, one thread.

The job and the report are frozen and picklable, so that any executor can run it. Whatever happens, the device is on
the new release or on the one before, and the report says which. Knows nothing of waves or budgets.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from pathlib import Path

from device_agent import contract
from device_agent.contract import Activated, Committed, Staged
from knnkit.errors import DeviceFailed, KnnkitError, ParityFailed, Unreachable
from knnkit.fleet.agent import AgentProblem, ask
from knnkit.fleet.certify import disbelieved, missed
from knnkit.fleet.connect import Dialling, Opener, Pause, dial, just_sleep, open_transport
from knnkit.fleet.facts import Facts, probe
from knnkit.fleet.package import Package
from knnkit.fleet.plan import DevicePlan, PlanOptions, plan_device
from knnkit.fleet.recorder import Listener, Recorder, nobody
from knnkit.fleet.report import DeviceReport, Outcome
from knnkit.fleet.target import Target
from knnkit.transport.base import Transport
from knnkit.transport.upload import PushFile, push


@dataclass(frozen=True)
class Pace:
    """Deadlines, in seconds."""

    dialling: Dialling = Dialling()
    command: float = 300.0
    confirm: float = contract.DEFAULT_CONFIRM_SECONDS
    lock: float = 0.0  # how long to wait for another host that holds the device


@dataclass(frozen=True)
class DeviceJob:
    """Everything that one device's deploy needs."""

    target: Target
    package: Package
    nonce: str
    options: PlanOptions = PlanOptions()
    pace: Pace = Pace()
    keys: tuple[tuple[str, bytes], ...] = ()  # fingerprint, PEM: for a device that trusts none yet
    offline: bool = False
    wheels: str | None = None
    opener: Opener = open_transport


def run_job(job: DeviceJob, listen: Listener = nobody, pause: Pause = just_sleep) -> DeviceReport:
    """Deploys to one device and reports; raises nothing that is a device's fault.

    Args:
        job: what to do.
        listen: is told of each step.
        pause: waits so many seconds and says whether the run was stopped: what is not activated is then left alone.
    """
    recorder = Recorder(job.target, listen)
    try:
        return _Deploy(job, recorder, pause).run()
    except KnnkitError as error:
        return recorder.fail(error)


class _Stopped(Exception):
    """The run was stopped before this device was activated."""


class _Deploy:
    def __init__(self, job: DeviceJob, recorder: Recorder, pause: Pause) -> None:
        self._job, self._recorder, self._pause = job, recorder, pause
        self._transport: Transport | None = None

    def run(self) -> DeviceReport:
        try:
            facts = self._look()
            plan = plan_device(
                self._job.target.name, self._job.target.device_class, facts, self._job.package, self._job.options
            )
            if plan.unchanged:
                return self._recorder.end(Outcome.UNCHANGED)
            return self._apply(plan, facts)
        except _Stopped:
            return self._recorder.end(
                Outcome.SKIPPED, reason="interrupted", message="stopped before it was activated; nothing was switched"
            )
        finally:
            self._hang_up()

    def _look(self) -> Facts:
        with self._recorder.step("connect"):
            self._transport = self._dial()
        with self._recorder.step("probe"):
            facts = probe(self._transport, self._job.target.root, timeout=self._job.pace.command)
        self._know(facts)
        return facts

    def _know(self, facts: Facts) -> None:
        if facts.agent:
            self._recorder.know(release=facts.agent.committed, previous=facts.agent.previous, status=facts.agent)
            self._recorder.warn(*facts.agent.warnings)

    def _apply(self, plan: DevicePlan, facts: Facts) -> DeviceReport:
        waited_until = time.monotonic() + self._job.pace.lock
        while plan.refusal:
            refusal = plan.refusal
            if refusal.exit_code != contract.EXIT_LOCKED or time.monotonic() >= waited_until:
                outcome = Outcome.LOCKED if refusal.exit_code == contract.EXIT_LOCKED else Outcome.FAILED
                return self._recorder.end(
                    outcome,
                    exit_code=refusal.exit_code,
                    reason=refusal.reason,
                    message=refusal.message,
                    hint=refusal.hint,
                )
            facts, plan = self._wait_for_lock(plan)
        for step in plan.steps:
            if step.action in ("provision", "upload", "stage", "activate"):
                self._go_on()
            if step.action == "provision":
                facts = self._provision(facts)
            elif step.action == "upload":
                self._upload(facts)
            elif step.action == "stage":
                self._stage(facts)
            elif step.action == "activate":
                return self._activate(facts)
        return self._recorder.end(Outcome.UNCHANGED)

    def _wait_for_lock(self, plan: DevicePlan) -> tuple[Facts, DevicePlan]:
        with self._recorder.step("wait for the lock"):
            if self._pause(2.0):
                raise _Stopped
        facts = probe(self._open(), self._job.target.root, timeout=self._job.pace.command)
        again = plan_device(plan.device, self._job.target.device_class, facts, self._job.package, self._job.options)
        return facts, again

    def _provision(self, facts: Facts) -> Facts:
        from knnkit.provision import provision

        with self._recorder.step("provision") as progress:
            trusts = facts.agent.trusted if facts.agent else ()
            done = provision(
                self._open(),
                facts,
                root=facts.root,
                keys={} if trusts else dict(self._job.keys),
                offline=self._job.offline,
                wheels_dir=Path(self._job.wheels) if self._job.wheels else None,
                progress=progress,
            )
        self._recorder.warn(*done.notes)
        with self._recorder.step("probe"):
            facts = probe(self._open(), facts.root, timeout=self._job.pace.command)
        if facts.agent is None:
            raise DeviceFailed(
                f"{self._job.target.name}: the agent does not answer after provisioning: {facts.agent_problem}",
                reason="no-agent",
                hint=f"knnkit doctor --target {self._job.target}",
            )
        self._know(facts)
        return facts

    def _upload(self, facts: Facts) -> None:
        package = self._job.package
        there = _incoming(facts, package)
        files = [
            PushFile(Path(package.directory, file.name), f"{there}/{file.name}", file.size, file.sha256)
            for file in package.files
        ]
        with self._recorder.step("upload") as progress:
            pushed = push(self._open(), files, timeout=self._job.pace.command, progress=progress)
        self._recorder.know(sent_bytes=pushed.sent, resumed_bytes=pushed.resumed)

    def _stage(self, facts: Facts) -> None:
        with self._recorder.step("stage"):
            staged = self._ask(facts, ["stage", _incoming(facts, self._job.package)], Staged)
        self._recorder.warn(*staged.warnings)
        if staged.release.digest != self._job.package.digest:
            raise DeviceFailed(
                f"{self._job.target.name}: staged {staged.release.digest[:12]}, not what was sent", reason="wrong-release"
            )

    def _activate(self, facts: Facts) -> DeviceReport:
        job = self._job
        command = ["activate", job.package.digest, "--nonce", job.nonce, "--deadline", f"{job.pace.confirm:g}"]
        deadline = time.monotonic() + job.pace.confirm
        try:
            with self._recorder.step("activate"):
                activated = self._ask(facts, [*command, "--holder", job.options.holder], Activated)
        except Unreachable as error:
            return self._lost(facts, error, deadline)
        self._recorder.know(certificate=activated.certificate)
        wrong = disbelieved(activated.certificate, job.nonce, job.package.digest, job.package.model_sha256)
        gates = () if wrong else missed(activated.certificate, job.package)
        if wrong or gates:
            said = wrong or "; ".join(gates)
            error = ParityFailed(f"{job.target.name}: {said}", reason="bad-certificate" if wrong else "gate-failed")
            return self._give_up(facts, error, deadline)
        if activated.already:
            return self._recorder.end(Outcome.COMMITTED, release=job.package.ref)
        return self._confirm(facts, deadline)

    def _confirm(self, facts: Facts, deadline: float) -> DeviceReport:
        """Commits over a new connection, for as long as the device waits for it."""
        self._hang_up()
        with self._recorder.step("confirm"):
            while True:
                try:
                    committed = self._ask(facts, ["confirm", self._job.package.digest], Committed)
                    break
                except AgentProblem as problem:
                    return self._recorder.fail(problem, Outcome.ROLLED_BACK)
                except Unreachable as error:
                    self._hang_up()
                    if time.monotonic() >= deadline:
                        return self._recorder.fail(_reverts(error, self._job))
        return self._recorder.end(Outcome.COMMITTED, release=committed.release, previous=committed.previous)

    def _lost(self, facts: Facts, error: Unreachable, deadline: float) -> DeviceReport:
        """The line broke while it was activated: comes back to undo that, or lets the device do it."""
        return self._give_up(facts, error, deadline)

    def _give_up(self, facts: Facts, error: KnnkitError, deadline: float) -> DeviceReport:
        """Takes the activation back over a new connection; the device does so itself where none can be had."""
        self._hang_up()
        try:
            with self._recorder.step("roll back"):
                status = probe(self._open(), facts.root, timeout=self._job.pace.command).agent
                if status and status.pending and status.pending.digest == self._job.package.digest:
                    committed = self._ask(facts, ["rollback", "--holder", self._job.options.holder], Committed)
                    self._recorder.know(release=committed.release, previous=committed.previous)
                elif status:
                    self._recorder.know(release=status.committed, previous=status.previous)
        except Unreachable:
            return self._recorder.fail(_reverts(error, self._job))
        except AgentProblem as problem:
            self._recorder.warn(str(problem))
        return self._recorder.fail(error, Outcome.ROLLED_BACK)

    def _ask(self, facts: Facts, command: list[str], answer: type[contract.T]) -> contract.T:
        return ask(self._open(), facts, command, answer, timeout=self._job.pace.command)

"""Deploys to one device: look, plan, push, install, confirm from a new connection. One device, one thread.

The agent stages and activates in one command; the report has both as steps, as the plan has. The job and the report are
frozen and picklable, so that any executor can run it. Whatever happens, the device is on the new release or on the one
before, and the report says which. Knows nothing of waves or budgets.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from device_agent import contract
from device_agent.contract import Activated, Committed, Installed
from device_agent.trust import Reason
from knnkit.errors import DeviceFailed, KnnkitError, ParityFailed, Unreachable
from knnkit.fleet.agent import AgentProblem, ask
from knnkit.fleet.certify import disbelieved, missed
from knnkit.fleet.connect import Dialling, Opener, Pause, dial, just_sleep, open_transport
from knnkit.fleet.facts import Facts, probe
from knnkit.fleet.package import Package
from knnkit.fleet.plan import DevicePlan, PlanOptions, Refusal, plan_device
from knnkit.fleet.recorder import Listener, Recorder, nobody
from knnkit.fleet.report import DeviceReport, Outcome
from knnkit.fleet.target import Target
from knnkit.transport.base import Transport
from knnkit.transport.upload import PushFile, push

T = TypeVar("T")
_DIALLING = Dialling()
_OPTIONS = PlanOptions()
#: What a device refuses before anything is staged; what a golden check says has other words.
_REFUSED_TO_STAGE = frozenset(reason.value for reason in Reason)


@dataclass(frozen=True)
class Pace:
    """Deadlines, in seconds."""

    dialling: Dialling = _DIALLING
    command: float = 300.0
    confirm: float = contract.DEFAULT_CONFIRM_SECONDS
    lock: float = 0.0  # how long to wait for another host that holds the device


_PACE = Pace()


@dataclass(frozen=True)
class DeviceJob:
    """Everything that one device's deploy needs."""

    target: Target
    package: Package
    nonce: str
    holder: str  # how the device's lock and history name this host
    options: PlanOptions = _OPTIONS
    pace: Pace = _PACE
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
        self._lock_until = 0.0
        self._asked = 0.0  # when the device was last asked to switch

    def run(self) -> DeviceReport:
        try:
            with self._recorder.step("connect"):
                self._open()
            return self._apply(self._look(self._job.target.root))
        except _Stopped:
            return self._recorder.end(
                Outcome.SKIPPED, reason="interrupted", message="stopped before it was activated; nothing was switched"
            )
        finally:
            self._hang_up()

    # --- looking and planning -------------------------------------------------------------------------------------
    def _look(self, root: str) -> Facts:
        with self._recorder.step("probe"):
            facts = probe(self._open(), root, timeout=self._job.pace.command)
        if facts.agent:
            self._recorder.know(release=facts.agent.committed, previous=facts.agent.previous, status=facts.agent)
            self._recorder.warn(*facts.agent.warnings)
        return facts

    def _plan(self, facts: Facts, options: PlanOptions) -> DevicePlan:
        return plan_device(self._job.target.name, self._job.target.device_class, facts, self._job.package, options)

    def _apply(self, facts: Facts) -> DeviceReport:
        self._lock_until = time.monotonic() + self._job.pace.lock
        plan = self._plan(facts, self._job.options)
        if plan.steps and plan.steps[0].action == "provision":
            facts = self._provision(facts)
            plan = self._plan(facts, replace(self._job.options, provisioning="never"))
        while plan.refusal and plan.refusal.exit_code == contract.EXIT_LOCKED and self._may_wait():
            facts = self._look(facts.root)
            plan = self._plan(facts, replace(self._job.options, provisioning="never"))
        if plan.refusal:
            return self._refused(plan.refusal)
        actions = [step.action for step in plan.steps]
        if "upload" in actions:
            self._upload(facts)
            return self._switch(facts, self._install)
        return self._switch(facts, self._activate) if "activate" in actions else self._recorder.end(Outcome.UNCHANGED)

    def _refused(self, refusal: Refusal) -> DeviceReport:
        locked = refusal.exit_code == contract.EXIT_LOCKED
        return self._recorder.end(
            Outcome.LOCKED if locked else Outcome.FAILED,
            exit_code=refusal.exit_code,
            reason=refusal.reason,
            message=refusal.message,
            hint=refusal.hint,
        )

    def _may_wait(self) -> bool:
        """Waits for another host; False when the time for that is over."""
        left = self._lock_until - time.monotonic()
        if left <= 0:
            return False
        with self._recorder.step("wait"):
            if self._pause(min(left, 1.0)):
                raise _Stopped
        return True

    # --- before the switch ----------------------------------------------------------------------------------------
    def _provision(self, facts: Facts) -> Facts:
        from knnkit.provision import provision  # not needed for a device that has everything

        self._go_on()
        if facts.python is None:
            facts = probe(self._open(), facts.root, timeout=self._job.pace.command, full=True)
        with self._recorder.step("provision") as progress:
            trusted = facts.agent.trusted if facts.agent else ()
            done = provision(
                self._open(),
                facts,
                root=facts.root,
                keys={} if trusted else dict(self._job.keys),
                offline=self._job.offline,
                wheels_dir=Path(self._job.wheels) if self._job.wheels else None,
                progress=progress,
            )
        self._recorder.warn(*done.notes)
        facts = self._look(facts.root)
        if facts.agent is None:
            raise DeviceFailed(
                f"{self._job.target.name}: the agent does not answer after provisioning: {facts.agent_problem}",
                reason="no-agent",
                hint=f"knnkit doctor --target {self._job.target}",
            )
        return facts

    def _upload(self, facts: Facts) -> None:
        self._go_on()
        package, there = self._job.package, self._incoming(facts)
        files = [
            PushFile(Path(package.directory, file.name), f"{there}/{file.name}", file.size, file.sha256)
            for file in package.files
        ]
        with self._recorder.step("upload") as progress:
            pushed = push(self._open(), files, timeout=self._job.pace.command, progress=progress, finish=False)
        self._recorder.know(sent_bytes=pushed.sent, resumed_bytes=pushed.resumed)

    # --- the switch -----------------------------------------------------------------------------------------------
    def _switch(self, facts: Facts, ask_for_it: Callable[[Facts], Activated]) -> DeviceReport:
        self._go_on()
        job = self._job
        try:
            activated = ask_for_it(facts)
        except (Unreachable, DeviceFailed) as error:  # it may have switched before the answer was lost
            return self._give_up(facts, error, self._asked)
        self._recorder.know(certificate=activated.certificate)
        wrong = disbelieved(activated.certificate, job.nonce, job.package.digest, job.package.model_sha256)
        said = wrong or "; ".join(missed(activated.certificate, job.package))
        if said:
            reason = "bad-certificate" if wrong else "gate-failed"
            return self._give_up(facts, ParityFailed(f"{job.target.name}: {said}", reason=reason))
        if activated.already:
            return self._recorder.end(Outcome.UNCHANGED, release=activated.release)
        left = min(activated.seconds_left or 0.0, job.pace.confirm)  # it may say anything
        return self._confirm(facts, time.monotonic() + left)

    def _activate(self, facts: Facts) -> Activated:
        """Has it try a release that was staged before."""
        with self._recorder.step("activate"):
            return self._ask_in_turn(facts, ["activate", self._job.package.digest, *self._trial], Activated)

    def _install(self, facts: Facts) -> Activated:
        """Has it stage what was sent, and try that."""
        try:
            with self._recorder.step("activate"):
                found = self._ask_in_turn(facts, ["install", self._incoming(facts), *self._trial], Installed)
        except AgentProblem as problem:
            if problem.problem.reason in _REFUSED_TO_STAGE:
                self._recorder.rename("stage")
            raise
        self._recorder.divide("stage", found.stage_seconds)
        if found.staged:
            self._recorder.warn(*found.staged.warnings)
        return found.activated

    def _confirm(self, facts: Facts, deadline: float) -> DeviceReport:
        """Commits over a new connection, trying for as long as the device waits."""
        with self._recorder.step("confirm"):
            while True:
                self._hang_up()
                try:
                    committed = self._ask(facts, ["confirm", self._job.package.digest, *self._holder], Committed)
                    break
                except AgentProblem as problem:
                    return self._recorder.fail(problem, Outcome.ROLLED_BACK)
                except Unreachable as error:
                    if time.monotonic() >= deadline:
                        return self._recorder.fail(self._reverts(error))
                    time.sleep(0.2)
        if committed.release.digest != self._job.package.digest:
            said = f"{self._job.target.name}: committed {committed.release.digest[:12]}, not what was confirmed"
            raise DeviceFailed(said, reason="wrong-release")
        return self._recorder.end(Outcome.COMMITTED, release=committed.release, previous=committed.previous)

    def _give_up(self, facts: Facts, error: KnnkitError, asked: float | None = None) -> DeviceReport:
        """Takes the activation back over a new connection; the device does so by itself where none can be had.

        `asked` says when the device was asked, where its answer was lost: it may not have switched at all.
        """
        self._hang_up()
        try:
            with self._recorder.step("probe"):
                status = probe(self._open(), facts.root, timeout=self._job.pace.command).agent
            switched = asked is None or time.monotonic() - asked >= self._job.pace.confirm
            if status and status.pending and status.pending.digest == self._job.package.digest:
                switched = True
                with self._recorder.step("roll back"):
                    self._ask(facts, ["rollback", *self._holder], Committed)
        except AgentProblem as problem:
            self._recorder.warn(str(problem))
        except Unreachable:
            return self._recorder.fail(self._reverts(error, known=asked is None), Outcome.UNREACHABLE)
        if status:
            self._recorder.know(release=status.committed, previous=status.previous)
        if not switched and isinstance(error, Unreachable):  # the command may still be at work there
            return self._recorder.fail(self._reverts(error, known=False))
        return self._recorder.fail(error, Outcome.ROLLED_BACK if switched else None)

    def _reverts(self, error: KnnkitError, known: bool = True) -> Unreachable:
        within = f"it returns to the release before within {self._job.pace.confirm:g} s"
        state = "it was activated and not confirmed: " if known else "if it was activated, "
        return Unreachable(
            f"{error}; {state}{within}", reason=error.reason, hint="run the command again when it can be reached"
        )

    # --- talking --------------------------------------------------------------------------------------------------
    @property
    def _holder(self) -> list[str]:
        return ["--holder", self._job.holder]

    @property
    def _trial(self) -> list[str]:
        """What an activation is told."""
        job = self._job
        return ["--nonce", job.nonce, "--deadline", f"{job.pace.confirm:g}", *self._class, *self._holder]

    @property
    def _class(self) -> list[str]:
        name = self._job.target.device_class
        return [] if name == "any" else ["--device-class", name]

    def _incoming(self, facts: Facts) -> str:
        return f"{facts.root}/{contract.INCOMING_DIR}/{self._job.package.digest}"

    def _go_on(self) -> None:
        if self._pause(0.0):
            raise _Stopped

    def _open(self) -> Transport:
        if self._transport is None:
            job = self._job
            self._transport = dial(
                job.target, job.pace.dialling, opener=job.opener, pause=self._pause, tried=self._recorder.tried
            )
        return self._transport

    def _hang_up(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def _ask(self, facts: Facts, command: list[str], answer: type[T]) -> T:
        return ask(self._open(), facts, command, answer, timeout=self._job.pace.command)

    def _ask_in_turn(self, facts: Facts, command: list[str], answer: type[T]) -> T:
        """As `_ask`; where another host holds the device, waits for it as long as the user allows."""
        while True:
            self._asked = time.monotonic()
            try:
                return self._ask(facts, command, answer)
            except AgentProblem as problem:
                if problem.exit_code != contract.EXIT_LOCKED or not self._may_wait():
                    raise

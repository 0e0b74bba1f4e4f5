"""Deploys to one device: probe, plan, upload, switch.

The job and the report are frozen and picklable, so that any executor can run it. After every failure the device is on
the new release or on the previous one, and the report says which. `knnkit.fleet.jobs.activate` does the switch. Waves
and failure budgets are in `knnkit.fleet.rollout`.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

from device_agent.shared.golden import class_gates
from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.documents import Staged
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.protocol.reports import Compared, Running
from device_agent.shared.release import model_file
from device_agent.shared.safe_files import read_small
from device_agent.shared.trust.reasons import Reason
from knnkit.errors import DeviceFailed, DeviceLocked, KnnkitError, from_os_error
from knnkit.fleet.decide.plan import DevicePlan, PlanOptions, Refusal, foreign_keys, plan_device
from knnkit.fleet.device.agent_client import AgentProblem, ask
from knnkit.fleet.device.connect import Pause, just_sleep
from knnkit.fleet.device.one_shot import visit
from knnkit.fleet.device.probe import Facts, probe
from knnkit.fleet.device.recorder import Listener, Recorder, nobody
from knnkit.fleet.jobs.activate import Switch
from knnkit.fleet.jobs.job import DeviceJob
from knnkit.fleet.jobs.provision import install
from knnkit.fleet.jobs.session import Conversation, Stopped
from knnkit.fleet.jobs.upload_dir import claim
from knnkit.fleet.report import DeviceReport, FleetReport, Outcome
from knnkit.release.package import Package
from knnkit.transport.base import Transport
from knnkit.transport.upload import PushFile, push

NO_PILLOW = (
    "no-pillow: the device cannot decode PNG and JPEG, only arrays and what `knnkit classify` sends; "
    "on the board: sudo apt install python3-pil"
)
#: Refusals of a release that is on the device, after which it is sent again.
_DAMAGED = frozenset(
    reason.value
    for reason in Reason
    if reason.value.startswith("file-") or reason in (Reason.BAD_SIGNATURE, Reason.MANIFEST_MALFORMED)
)
#: Errors of an upload that the device removed because another host has staged the release.
_OVERTAKEN = frozenset({"cannot-write", Reason.FILE_MISSING.value})


def run_job(job: DeviceJob, listen: Listener = nobody, pause: Pause = just_sleep) -> DeviceReport:
    """Deploys a release to one device; returns a report, also if the device fails.

    `pause` waits some seconds, and returns whether the run was stopped; after a stop, no release is activated.
    """
    recorder = Recorder(job.target, listen)
    try:
        return _Deploy(job, recorder, pause).run()
    except KnnkitError as error:
        return recorder.fail(error)


class _Deploy:
    def __init__(self, job: DeviceJob, recorder: Recorder, pause: Pause) -> None:
        self._job, self._recorder = job, recorder
        self._talk = Conversation(job, recorder, pause)

    def run(self) -> DeviceReport:
        try:
            with self._recorder.step("connect"):
                self._talk.open()
            return self._apply(self._look(self._job.target.root))
        except Stopped:
            return self._recorder.end(
                Outcome.SKIPPED, reason="interrupted", message="stopped before activation; the device did not switch"
            )
        finally:
            self._talk.hang_up()

    # --- looking and planning -------------------------------------------------------------------------------------
    def _look(self, root: str) -> Facts:
        with self._recorder.step("probe"):
            facts = probe(self._talk.open(), root, timeout=self._job.pace.command)
        self._recorder.warn(*filter(None, [facts.fleeting]))
        if facts.agent:
            self._recorder.know(release=facts.agent.committed, previous=facts.agent.previous, status=facts.agent)
            self._recorder.warn(*facts.agent.warnings, *foreign_keys(facts.agent, self._job.options.named))
        return facts

    def _plan(self, facts: Facts, options: PlanOptions) -> DevicePlan:
        return plan_device(self._job.target, facts, self._job.package, options)

    def _apply(self, facts: Facts) -> DeviceReport:
        self._talk.begin_waiting()
        plan = self._plan(facts, self._job.options)
        if plan.steps and plan.steps[0].action == "provision":
            facts = self._provision(facts)
            plan = self._plan(facts, replace(self._job.options, provisioning="never"))
        if self._job.package.pictures and facts.agent and not facts.agent.pictures:
            self._recorder.warn(NO_PILLOW)
        while plan.refusal and plan.refusal.exit_code == constants.EXIT_LOCKED and self._talk.may_wait():
            facts = self._look(facts.root)
            plan = self._plan(facts, replace(self._job.options, provisioning="never"))
        actions = [step.action for step in plan.steps]
        said = self._sign(facts) if "sign" in actions else ""
        if plan.refusal:
            return self._refused(plan.refusal, said)
        send = "upload" in actions or self._is_damaged(facts)
        if not send and "activate" not in actions:
            return self._recorder.end(Outcome.UNCHANGED, message=said)
        self._recorder.know(certificate=None)  # of the previous release, checked in the new environment
        return self._send_and_switch(facts) if send else self._switch(facts)

    def _is_damaged(self, facts: Facts) -> bool:
        """Whether files of the release on the device differ from the signed ones.

        False without asking, unless `--verify` is given or the device warns that the release failed to start.
        """
        assert facts.agent is not None
        status, digest = facts.agent, self._job.package.digest
        doubted = self._job.options.verify or any(text.startswith("starts-failed") for text in status.warnings)
        if digest not in status.staged or not doubted:
            return False
        place = f"{facts.root}/{constants.RELEASES_DIR}/{digest}"
        try:
            with self._recorder.step("verify"):
                self._talk.ask(facts, ["verify", place], Staged)
        except AgentProblem as problem:
            if problem.reason in _DAMAGED:  # activation reports any other problem
                self._recorder.warn(f"{problem}: the release is sent again")
                return True
        return False

    def _switch(self, facts: Facts, place: str | None = None) -> DeviceReport:
        self._talk.go_on()
        return Switch(self._job, self._recorder, self._talk, facts).run(place)

    def _send_and_switch(self, facts: Facts) -> DeviceReport:
        try:
            return self._switch(facts, self._upload(facts))
        except (AgentProblem, DeviceFailed, OSError) as error:
            package = self._job.package
            if not _is_intact(package):
                said = f"{package.directory} was replaced on this machine during the run ({error})"
                raise DeviceFailed(
                    f"{self._job.target.name}: {said}", reason="release-changed", hint="the same command again"
                ) from None
            if isinstance(error, OSError):
                raise from_os_error(error) from None
            if error.reason not in _OVERTAKEN:
                raise
            return self._overtaken(error, facts.root)

    def _overtaken(self, error: KnnkitError, root: str) -> DeviceReport:
        """Handles `error` if another host stages this release: waits for it, then switches to the release."""
        digest = self._job.package.digest
        while True:
            facts = self._look(root)
            there, lock = (facts.agent.staged, facts.agent.lock) if facts.agent else ((), None)
            if digest in there or lock is None or not self._talk.may_wait():
                break
        if digest not in there:
            raise DeviceLocked(f"{error}; {lock.holder} has locked the device", reason="locked") if lock else error
        self._recorder.warn(str(error))
        plan = self._plan(facts, replace(self._job.options, provisioning="never"))
        if plan.refusal:
            return self._refused(plan.refusal)
        return self._switch(facts) if plan.steps else self._recorder.end(Outcome.UNCHANGED)

    def _refused(self, refusal: Refusal, more: str = "") -> DeviceReport:
        outcome = Outcome.LOCKED if refusal.exit_code == constants.EXIT_LOCKED else Outcome.FAILED
        message = f"{refusal.message}; {more}" if more else refusal.message
        return self._recorder.end(outcome, **vars(refusal) | {"message": message})

    # --- before the switch ----------------------------------------------------------------------------------------
    def _provision(self, facts: Facts) -> Facts:
        job = self._job
        self._talk.go_on()
        if facts.python is None:
            facts = probe(self._talk.open(), facts.root, timeout=job.pace.command, full=True)
        keys = {} if facts.agent and facts.agent.trusted else dict(job.keys)
        install(job, self._talk.open(), facts, self._recorder, keys=keys, pictures=job.package.pictures)
        facts = self._look(facts.root)
        if facts.agent is None:
            raise DeviceFailed(
                f"{job.target.name}: the agent does not answer after provisioning: {facts.agent_problem}",
                reason="no-agent",
                hint="knnkit doctor --target HOST",
            )
        return facts

    def _sign(self, facts: Facts) -> str:
        """Sends our signature of a release that the device has; returns a message, "" if it had the signature."""
        self._talk.go_on()
        package = self._job.package
        command = ["stage", package.digest, "--signature", "-", "--holder", self._job.holder]
        with self._recorder.step("sign"):
            done = self._talk.ask_in_turn(facts, command, Staged, package.signature)
        if done.already:
            return ""
        if facts.agent:  # warnings about the previous signature no longer apply
            self._recorder.unwarn(*facts.agent.warnings)
        self._look(facts.root)
        return f"the release on the device is now signed by {package.signed_by[:23]}…"

    def _upload(self, facts: Facts) -> str:
        """Uploads the release; returns the path of its folder on the device."""
        self._talk.go_on()
        package, line, seconds = self._job.package, self._talk.open(), self._job.pace.command
        with self._recorder.step("upload") as progress:
            there = claim(line, facts, package.digest, secrets.token_hex(4), timeout=seconds)
            files = [
                PushFile(Path(package.directory, file.name), f"{there}/{file.name}", file.size, file.sha256)
                for file in package.files
            ]
            pushed = push(line, files, timeout=seconds, progress=progress)
        self._recorder.know(sent_bytes=pushed.sent, resumed_bytes=pushed.resumed)
        return there


def _is_intact(package: Package) -> bool:
    """Whether the files of the release on this machine are still those that were read: a build may replace them."""
    try:
        return all(PushFile.of(Path(package.directory, file.name), "").sha256 == file.sha256 for file in package.files)
    except OSError:
        return False


def plan_job(job: DeviceJob, listen: Listener = nobody, pause: Pause = just_sleep) -> DeviceReport:
    """Probes a device and plans its deploy; the plan is in the report's `details`."""

    def plan_it(transport: Transport, facts: Facts, recorder: Recorder) -> DeviceReport:
        plan = plan_device(job.target, facts, job.package, job.options)
        if any(step.action == "activate" for step in plan.steps):
            compared = _compare(job, transport, facts)
            running = facts.agent.committed if facts.agent else None
            would_miss = class_gates.worse(job.package.manifest.gates, compared, running)
            plan = replace(plan, compared=compared, warnings=(*plan.warnings, *would_miss))
        if plan.refusal:
            plan = replace(plan, refusal=replace(plan.refusal, hint=job.target.lead(plan.refusal.hint)))
        outcome, why = (Outcome.FAILED, vars(plan.refusal)) if plan.refusal else (Outcome.ANSWERED, {})
        return recorder.end(outcome, details=json_codec.dumps(plan), warnings=plan.warnings, **why)

    return visit(job, plan_it, listen, pause)


def _compare(job: DeviceJob, transport: Transport, facts: Facts) -> Compared | None:
    """Compares how the device's release and the new one answer the new one's golden rows; None: not possible."""
    if facts.agent is None or facts.agent.answering in (None, job.package.digest):
        return None
    from device_agent.shared.golden import changes  # numpy is for a dry run that compares
    from device_agent.shared.golden.golden_set import Golden

    directory = Path(job.package.directory)
    try:
        info = model_file.read_info(directory / constants.MODEL_FILE)
        data = read_small(directory / constants.GOLDEN_FILE, constants.MAX_GOLDEN)
        golden = Golden.from_bytes(data)
        running = ask(transport, facts.agent_argv, ["compare"], Running, timeout=job.pace.command, input=data)
    except (KnnkitError, ModelUnusable, OSError):
        return None
    return changes.compare(running, info, golden, golden.label)


def plans_of(report: FleetReport) -> list[DevicePlan]:
    """Returns the plans in a report, one for each device that could be reached."""
    return [device.answer(DevicePlan) for device in report.devices if device.details]

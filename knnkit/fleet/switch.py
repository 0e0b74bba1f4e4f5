"""The switch of one device: install or activate, judge the certificate, confirm over a new connection.

The agent stages and activates in one command; the report has both as steps, as the plan has. Never looks for what is to
be done, and sends nothing.
"""

from __future__ import annotations

import time

from device_agent import contract
from device_agent.contract import Activated, Committed, Installed
from device_agent.trust import Reason
from knnkit.errors import DeviceFailed, KnnkitError, ParityFailed, Unreachable
from knnkit.fleet.agent import AgentProblem
from knnkit.fleet.certify import disbelieved, missed
from knnkit.fleet.conversation import Conversation
from knnkit.fleet.facts import Facts, probe
from knnkit.fleet.job import DeviceJob
from knnkit.fleet.package import Package
from knnkit.fleet.recorder import Recorder
from knnkit.fleet.report import DeviceReport, Outcome

#: What a device refuses before anything is staged; what a golden check says has other words.
_REFUSED_TO_STAGE = frozenset(reason.value for reason in Reason)


def incoming(facts: Facts, package: Package) -> str:
    """Returns where a device looks for an upload of `package`."""
    return f"{facts.root}/{contract.INCOMING_DIR}/{package.digest}"


class Switch:
    """One device from one release to the next."""

    def __init__(self, job: DeviceJob, recorder: Recorder, talk: Conversation, facts: Facts) -> None:
        self._job, self._recorder, self._talk, self._facts = job, recorder, talk, facts

    def run(self, *, sent: bool) -> DeviceReport:
        """Switches; `sent` says that the release has just been sent and is yet to be staged."""
        job = self._job
        try:
            activated = self._install() if sent else self._activate()
        except (Unreachable, DeviceFailed) as error:  # it may have switched before the answer was lost
            return self._give_up(error, self._talk.asked)
        self._recorder.know(certificate=activated.certificate)
        wrong = disbelieved(activated.certificate, job.nonce, job.package.digest, job.package.model_sha256)
        said = wrong or "; ".join(missed(activated.certificate, job.package))
        if said:
            reason = "bad-certificate" if wrong else "gate-failed"
            return self._give_up(ParityFailed(f"{job.target.name}: {said}", reason=reason))
        if activated.already:
            return self._recorder.end(Outcome.UNCHANGED, release=activated.release)
        left = min(activated.seconds_left or 0.0, job.pace.confirm)  # it may say anything
        return self._confirm(time.monotonic() + left)

    def _activate(self) -> Activated:
        """Has it try a release that was staged before."""
        with self._recorder.step("activate"):
            return self._talk.ask_in_turn(self._facts, ["activate", self._job.package.digest, *self._trial], Activated)

    def _install(self) -> Activated:
        """Has it stage what was sent, and try that."""
        try:
            with self._recorder.step("activate"):
                place = incoming(self._facts, self._job.package)
                found = self._talk.ask_in_turn(self._facts, ["install", place, *self._trial], Installed)
        except AgentProblem as problem:
            if problem.problem.reason in _REFUSED_TO_STAGE:
                self._recorder.rename("stage")
            raise
        self._recorder.divide("stage", found.stage_seconds)
        if found.staged:
            self._recorder.warn(*found.staged.warnings)
        return found.activated

    def _confirm(self, deadline: float) -> DeviceReport:
        """Commits over a new connection, trying for as long as the device waits."""
        with self._recorder.step("confirm"):
            while True:
                self._talk.hang_up()
                try:
                    committed = self._talk.ask(
                        self._facts, ["confirm", self._job.package.digest, *self._holder], Committed
                    )
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

    def _give_up(self, error: KnnkitError, asked: float | None = None) -> DeviceReport:
        """Takes the activation back over a new connection; the device does so by itself where none can be had.

        `asked` says when the device was asked, where its answer was lost: it may not have switched at all.
        """
        self._talk.hang_up()
        try:
            with self._recorder.step("probe"):
                status = probe(self._talk.open(), self._facts.root, timeout=self._job.pace.command).agent
            switched = asked is None or time.monotonic() - asked >= self._job.pace.confirm
            if status and status.pending and status.pending.digest == self._job.package.digest:
                switched = True
                with self._recorder.step("roll back"):
                    self._talk.ask(self._facts, ["rollback", *self._holder], Committed)
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

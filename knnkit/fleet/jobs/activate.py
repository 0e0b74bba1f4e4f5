"""Switches one device to a release.

Installs or activates it, judges the certificate, and confirms over a new connection. The agent stages and activates in
one command; the report shows two steps, as the plan does. Uploads nothing.
"""

from __future__ import annotations

import time

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.documents import Committed
from device_agent.shared.protocol.reports import Activated, Installed, TakenBack
from device_agent.shared.trust import standing
from device_agent.shared.trust.reasons import Reason
from knnkit.errors import DeviceFailed, KnnkitError, ParityFailed, Unreachable
from knnkit.fleet.decide.certificate import disbelieved, missed
from knnkit.fleet.decide.lost_answer import Aftermath, Stage, judge, unknown
from knnkit.fleet.device.agent_client import AgentProblem
from knnkit.fleet.device.probe import Facts
from knnkit.fleet.device.recorder import Recorder
from knnkit.fleet.jobs.check import ANOTHER_AGENT
from knnkit.fleet.jobs.job import DeviceJob
from knnkit.fleet.jobs.session import Conversation
from knnkit.fleet.report import DeviceReport, Outcome

#: Reasons of refusals before anything is staged; a golden check has other reasons.
_REFUSED_TO_STAGE = frozenset(reason.value for reason in Reason)
#: Number of attempts while another command holds the device; the agent itself waits for two seconds each time.
_PATIENCE = 5


class Switch:
    """Switches one device from its present release to another."""

    def __init__(self, job: DeviceJob, recorder: Recorder, talk: Conversation, facts: Facts) -> None:
        self._job, self._recorder, self._talk, self._facts = job, recorder, talk, facts
        self._stage = Stage.ASKED
        self._holder = ["--holder", job.holder]
        limited = [] if job.target.device_class == "any" else ["--device-class", job.target.device_class]
        #: Arguments for the agent's `activate` and `install`; the deadline is the time to wait for a confirmation.
        self._trial = ["--nonce", job.nonce, "--deadline", f"{job.pace.confirm:g}", *limited, *self._holder]

    def run(self, place: str | None) -> DeviceReport:
        """Switches the device; `place` is the upload's folder on the device; None: the release is staged already."""
        job = self._job
        try:
            activated = self._install(place) if place else self._activate()
        except (Unreachable, DeviceFailed) as error:  # it may have switched before the answer was lost
            return self._give_up(error)
        except AgentProblem as problem:
            if problem.exit_code != constants.EXIT_FAILED:  # refused or locked: nothing was switched
                raise
            return self._give_up(problem)  # a full disk or a signal: before or after the switch
        self._stage = Stage.ACTIVATED
        self._recorder.know(certificate=activated.certificate)
        self._recorder.warn(*activated.certificate.warnings)
        wrong = disbelieved(activated.certificate, job.nonce, job.package.digest, job.package.model_sha256)
        before = self._facts.agent.committed if self._facts.agent and not activated.already else None
        said = wrong or "; ".join(missed(activated.certificate, job.package, before))
        if said:
            reason = "bad-certificate" if wrong else "gate-failed"
            unfit = ParityFailed(f"{job.target.name}: {said}", reason=reason, hint=ANOTHER_AGENT)
            return self._recorder.fail(unfit) if activated.already else self._give_up(unfit)
        if activated.already:
            return self._recorder.end(Outcome.UNCHANGED, release=activated.release)
        left = min(activated.seconds_left or 0.0, job.pace.confirm)  # a hostile device may send any number
        return self._confirm(time.monotonic() + left)

    def _activate(self) -> Activated:
        """Activates a staged release. Sends our signature, since another key may have signed the staged release."""
        package = self._job.package
        signature = ["--signature", "-"] if package.signature else []
        command = ["activate", package.digest, *self._trial, *signature]
        with self._recorder.step("activate"):
            return self._talk.ask_in_turn(self._facts, command, Activated, package.signature)

    def _install(self, place: str) -> Activated:
        """Stages the release that was uploaded to the folder `place` on the device, and activates it."""
        try:
            with self._recorder.step("activate"):
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
        """Confirms the release over a new connection; retries while the device waits for the confirmation."""
        try:
            with self._recorder.step("confirm"):
                committed = self._ask_to_confirm(deadline)
        except (AgentProblem, DeviceFailed, Unreachable) as error:
            return self._give_up(error)
        if committed.release.digest != self._job.package.digest:
            found = committed.release.digest[:12]
            said = f"{self._job.target.name}: the device committed {found}, not the release that was confirmed"
            raise DeviceFailed(said, reason="wrong-release")
        if self._facts.agent:  # warnings about the previous release no longer apply
            self._recorder.unwarn(*standing.gates_missed(self._facts.agent.warnings))
        return self._recorder.end(Outcome.COMMITTED, release=committed.release, previous=committed.previous)

    def _ask_to_confirm(self, deadline: float) -> Committed:
        command = ["confirm", self._job.package.digest, *self._holder]
        while True:
            self._talk.hang_up()
            try:
                self._talk.open()
                self._stage = Stage.CONFIRMING  # from here on the confirmation may arrive even without an answer
                return self._talk.ask(self._facts, command, Committed)
            except (AgentProblem, Unreachable) as error:
                passes = isinstance(error, Unreachable) or error.exit_code == constants.EXIT_LOCKED
                if not passes or time.monotonic() >= deadline:
                    raise
            time.sleep(0.2)

    def _give_up(self, error: KnnkitError) -> DeviceReport:
        """Reverts this run's activation over a new connection, after `error`; returns the report.

        If the device had got the confirmation, it reverts nothing, and the report is that of a success.
        """
        job = self._job
        self._talk.hang_up()
        found = None
        try:
            with self._recorder.step("roll back"):
                found = self._take_back()
        except (DeviceFailed, Unreachable) as silence:
            self._recorder.warn(str(silence))
        if found is None:
            return self._end(unknown(error, self._stage, job.pace.confirm))
        self._recorder.know(release=found.committed, previous=found.previous)
        return self._end(judge(error, self._stage, found, job.package.digest, job.pace.confirm))

    def _take_back(self) -> TakenBack | None:
        """Reverts the activation if this run made it; returns the agent's answer, or None if it reports a problem."""
        for attempt in range(_PATIENCE):
            try:
                return self._talk.ask(self._facts, ["rollback", "--own", *self._holder], TakenBack)
            except AgentProblem as problem:
                if problem.exit_code != constants.EXIT_LOCKED or attempt == _PATIENCE - 1:
                    self._recorder.warn(str(problem))
                    return None
                self._talk.wait(1.0)
        return None

    def _end(self, after: Aftermath) -> DeviceReport:
        if after.error is not None:
            return self._recorder.fail(after.error, after.outcome, after.more)
        assert after.outcome is not None
        self._recorder.warn(after.more)
        return self._recorder.end(after.outcome)

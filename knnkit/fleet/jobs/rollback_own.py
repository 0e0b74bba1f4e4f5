"""Takes back on a device what this run began there, and hears what became of it. Never touches what another host began.

An agent of today decides that itself, in one command. One that does not know the question is asked for its status, and
taken back only where that names this run.
"""

from __future__ import annotations

from dataclasses import replace

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.documents import Committed, HistoryEntry
from device_agent.shared.protocol.reports import TakenBack
from knnkit.errors import DeviceFailed
from knnkit.fleet.decide import lost_answer
from knnkit.fleet.device.agent_client import AgentProblem
from knnkit.fleet.device.probe import Facts, probe
from knnkit.fleet.device.recorder import Recorder
from knnkit.fleet.jobs.job import DeviceJob
from knnkit.fleet.jobs.session import Conversation

#: How often a device is asked while another command holds it; the agent itself waits for two seconds each time.
_PATIENCE = 5


def take_back(job: DeviceJob, recorder: Recorder, talk: Conversation, facts: Facts) -> TakenBack | None:
    """Returns what is there now; None where the device could not say.

    Raises:
        Unreachable: it could not be asked.
        DeviceFailed: it does not know the question, and does not say what it is on either.
    """
    own = ["rollback", "--own", "--holder", job.holder]
    for attempt in range(_PATIENCE):
        try:
            return talk.ask(facts, own, TakenBack)
        except AgentProblem as problem:
            if problem.exit_code != constants.EXIT_LOCKED or attempt == _PATIENCE - 1:
                recorder.warn(str(problem))
                return None
            talk.wait(1.0)
        except DeviceFailed:  # it does not know the question, or answers none
            return _by_status(job, recorder, talk, facts)
    return None


def _by_status(job: DeviceJob, recorder: Recorder, talk: Conversation, facts: Facts) -> TakenBack | None:
    status = probe(talk.open(), facts.root, timeout=job.pace.command).agent
    found = lost_answer.told_by(status) if status else None
    if status is None or found is None or not lost_answer.is_own(found, job.holder, job.package.digest):
        return found
    try:
        talk.ask(facts, ["rollback", "--holder", job.holder], Committed)
    except AgentProblem as problem:
        recorder.warn(str(problem))  # that nothing is left, where it was the first release
        if problem.problem.reason != "no-release":
            return None
    step = HistoryEntry(status.clock, "reverted", status.pending, status.committed, "", job.holder)
    return replace(found, taken=True, became=step, pending=None, lock=None)

"""Reverts this run's own activation on a device."""

from __future__ import annotations

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.reports import TakenBack
from knnkit.fleet.device.agent_client import AgentProblem
from knnkit.fleet.device.probe import Facts
from knnkit.fleet.device.recorder import Recorder
from knnkit.fleet.jobs.job import DeviceJob
from knnkit.fleet.jobs.session import Conversation

#: Number of attempts while another command holds the device; the agent itself waits for two seconds each time.
_PATIENCE = 5


def take_back(job: DeviceJob, recorder: Recorder, talk: Conversation, facts: Facts) -> TakenBack | None:
    """Reverts it and returns the device's answer; None if the agent reports a problem.

    Never changes an activation of another host.

    Raises:
        Unreachable: there is no connection.
        DeviceFailed: the answer is malformed.
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
    return None

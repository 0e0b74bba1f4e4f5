"""One device's connection during a job: opened when it is needed, opened anew where that is the point. Decides nothing
about releases.
"""

from __future__ import annotations

import time
from typing import TypeVar

from device_agent.shared.protocol import constants
from knnkit.fleet.device.agent_client import AgentProblem, ask
from knnkit.fleet.device.connect import Pause, dial
from knnkit.fleet.device.probe import Facts
from knnkit.fleet.device.recorder import Recorder
from knnkit.fleet.jobs.job import DeviceJob
from knnkit.transport.base import Transport

T = TypeVar("T")


class Stopped(Exception):
    """The run was stopped before this device was activated."""


class Conversation:
    """Asks a device what the job needs, over one connection at a time.

    Args:
        job: says how to connect and how long to wait.
        recorder: counts attempts and waits.
        pause: waits so many seconds and says whether the run was stopped.
    """

    def __init__(self, job: DeviceJob, recorder: Recorder, pause: Pause) -> None:
        self._job, self._recorder, self._pause = job, recorder, pause
        self._transport: Transport | None = None
        self._lock_until = 0.0

    def open(self) -> Transport:
        """Returns the connection.

        Raises:
            Unreachable: there is none to be had.
        """
        if self._transport is None:
            job = self._job
            self._transport = dial(
                job.target,
                job.pace.dialling,
                opener=job.opener,
                pause=self._pause,
                tried=self._recorder.tried,
                warn=self._recorder.warn,
            )
        return self._transport

    def hang_up(self) -> None:
        """Ends the connection; the next question opens another."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def ask(self, facts: Facts, command: list[str], answer: type[T], input: bytes = b"") -> T:
        """Asks the agent one thing.

        Raises:
            AgentProblem, DeviceFailed, Unreachable: as `knnkit.fleet.device.agent_client.ask`.
        """
        return ask(self.open(), facts, command, answer, timeout=self._job.pace.command, input=input)

    def ask_in_turn(self, facts: Facts, command: list[str], answer: type[T], input: bytes = b"") -> T:
        """As `ask`; where another host holds the device, waits for it as long as the user allows."""
        while True:
            try:
                return self.ask(facts, command, answer, input)
            except AgentProblem as problem:
                if problem.exit_code != constants.EXIT_LOCKED or not self.may_wait():
                    raise

    def begin_waiting(self) -> None:
        """Says that the time in which the user waits for other hosts begins now."""
        self._lock_until = time.monotonic() + self._job.pace.lock

    def may_wait(self) -> bool:
        """Waits for another host; False when the time for that is over.

        Raises:
            Stopped: the run was.
        """
        left = self._lock_until - time.monotonic()
        if left <= 0:
            return False
        with self._recorder.step("wait"):
            if self._pause(min(left, 1.0)):
                raise Stopped
        return True

    def wait(self, seconds: float) -> None:
        """Waits, whether or not the run is stopped: what has begun is brought to its end."""
        until = time.monotonic() + seconds
        if self._pause(seconds):  # it is over at once where the run was stopped before
            time.sleep(max(0.0, until - time.monotonic()))

    def go_on(self) -> None:
        """Ends the job if the run was stopped.

        Raises:
            Stopped: it was.
        """
        if self._pause(0.0):
            raise Stopped

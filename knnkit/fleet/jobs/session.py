"""The connection to one device during a job.

The connection is opened when it is needed, and again after `hang_up`. Decides nothing about releases.
"""

from __future__ import annotations

import time
from typing import TypeVar

from device_agent.shared.protocol import constants
from knnkit.fleet.device.agent_client import AgentProblem, ask
from knnkit.fleet.device.connect import Job, Pause, dial
from knnkit.fleet.device.probe import Facts
from knnkit.fleet.device.recorder import Recorder
from knnkit.transport.base import Transport

T = TypeVar("T")


class Stopped(Exception):
    """The run was stopped before a release was activated on this device."""


class Conversation:
    """Runs a job's commands on a device, over one connection at a time."""

    def __init__(self, job: Job, recorder: Recorder, pause: Pause) -> None:
        self._job, self._recorder, self._pause = job, recorder, pause
        self._transport: Transport | None = None
        self._lock_until = 0.0

    def open(self) -> Transport:
        """Returns the connection to the device; opens it if it is not open.

        Raises:
            Unreachable: the device cannot be connected to.
        """
        if self._transport is None:
            recorder = self._recorder
            self._transport = dial(self._job, pause=self._pause, tried=recorder.tried, warn=recorder.warn)
        return self._transport

    def hang_up(self) -> None:
        """Closes the connection; the next command opens a new one."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def ask(self, facts: Facts, command: list[str], answer: type[T], input: bytes = b"") -> T:
        """Runs one command of the device's agent, and returns its answer as a document of the type `answer`.

        Raises:
            AgentProblem: the agent reported a problem.
            DeviceFailed: there is no answer, it is malformed, or this knnkit is too old to read it.
            Unreachable: there is no connection, or the time limit for a command passed.
        """
        return ask(self.open(), facts.agent_argv, command, answer, timeout=self._job.pace.command, input=input)

    def ask_in_turn(self, facts: Facts, command: list[str], answer: type[T], input: bytes = b"") -> T:
        """Like `ask`, but while another host has locked the device, tries again for the time of `--wait`."""
        while True:
            try:
                return self.ask(facts, command, answer, input)
            except AgentProblem as problem:
                if problem.exit_code != constants.EXIT_LOCKED or not self.may_wait():
                    raise

    def begin_waiting(self) -> None:
        """Starts the time limit (`--wait`) for waiting for other hosts."""
        self._lock_until = time.monotonic() + self._job.pace.lock

    def may_wait(self) -> bool:
        """Waits a second for another host, then returns True; at once False if the limit `--wait` has passed.

        Raises:
            Stopped: the run was stopped.
        """
        left = self._lock_until - time.monotonic()
        if left <= 0:
            return False
        with self._recorder.step("wait"):
            if self._pause(min(left, 1.0)):
                raise Stopped
        return True

    def wait(self, seconds: float) -> None:
        """Waits `seconds`, also if the run was stopped, because a switch that has begun must be finished."""
        until = time.monotonic() + seconds
        if self._pause(seconds):  # returns at once if the run was stopped before
            time.sleep(max(0.0, until - time.monotonic()))

    def go_on(self) -> None:
        """Does nothing unless the run was stopped; called before each step that a stopped run must not begin.

        Raises:
            Stopped: the run was stopped.
        """
        if self._pause(0.0):
            raise Stopped

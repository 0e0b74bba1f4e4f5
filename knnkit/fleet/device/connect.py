"""Opens connections to a device, with retries.

Only connecting is retried, with growing pauses and jitter."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from device_agent.shared.protocol import constants
from knnkit.errors import Unreachable
from knnkit.fleet.targets import Target
from knnkit.transport.base import Transport
from knnkit.transport.local import LocalTransport

#: Pauses grow from the first to the last, in seconds.
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 15.0
#: Reasons of Unreachable after which another attempt may succeed.
_WORTH_ANOTHER = frozenset({"connect", "connection-lost", "deadline"})

#: Waits for at most this many seconds, and returns whether the run was stopped.
Pause = Callable[[float], bool]


def just_sleep(seconds: float) -> bool:
    """Waits, then returns False: a `pause` for runs that nobody can stop."""
    time.sleep(seconds)
    return False


@dataclass(frozen=True)
class Pace:
    """Time limits of a job in seconds, and the number of further attempts to connect."""

    connect: float = 10.0
    retries: int = 2
    command: float = 300.0
    confirm: float = constants.DEFAULT_CONFIRM_SECONDS
    lock: float = 0.0  # how long to wait for another host that holds the device


def open_transport(name: str, target: Target, timeout: float) -> Transport:
    """Opens a connection to a device within `timeout` seconds; to this machine for the embedded device.

    Raises:
        Unreachable: the device cannot be connected to.
    """
    if target.address is None:
        return LocalTransport(name)
    from knnkit.transport.ssh.connection import SshTransport  # paramiko is slow to load

    return SshTransport.connect(name, target.address, timeout=timeout)


#: Opens the connections of a job; tests replace it.
Opener = Callable[[str, Target, float], Transport]


@dataclass(frozen=True)
class Job:
    """The work for one device; picklable. Subclasses add the fields that their kind of work needs."""

    target: Target
    pace: Pace = field(default=Pace(), kw_only=True)
    opener: Opener = field(default=open_transport, kw_only=True)


def dial(
    job: Job,
    *,
    pause: Pause = just_sleep,
    tried: Callable[[], None] = lambda: None,
    warn: Callable[[str], None] = lambda _: None,
) -> Transport:
    """Opens a connection to the device of a job; tries again after an error that may be gone at the next attempt.

    `pause` waits some seconds, and returns whether the run was stopped; then there is no further attempt. `tried` is
    called before each attempt, `warn` with each warning of the login.

    Raises:
        Unreachable: the last attempt failed, or another attempt would not help.
    """
    target, pace = job.target, job.pace
    for attempt in range(pace.retries + 1):
        tried()
        try:
            transport = job.opener(target.name, target, pace.connect)
            for warning in getattr(transport, "warnings", ()):
                warn(warning)
            return transport
        except Unreachable as error:
            if attempt == pace.retries or error.reason not in _WORTH_ANOTHER or pause(_pause_after(attempt)):
                if target.suggestion and error.reason == "no-such-name":
                    error.hint = f"did you mean --target {target.suggestion}? Else: {error.hint}"
                raise
    raise AssertionError("unreachable code: the loop returns or raises")


def _pause_after(attempt: int) -> float:
    """Returns a random number of seconds to wait; its limit doubles with each attempt."""
    bound: float = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt)
    return random.uniform(bound / 4, bound)  # noqa: S311  (spreads load, hides nothing)

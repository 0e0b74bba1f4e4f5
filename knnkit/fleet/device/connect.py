"""Opens connections to a target: the only thing that is tried again, with growing pauses and jitter."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

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

#: Returns whether the run was stopped, after waiting for at most so many seconds.
Pause = Callable[[float], bool]


def just_sleep(seconds: float) -> bool:
    """Waits where nothing can stop the run."""
    time.sleep(seconds)
    return False


@dataclass(frozen=True)
class Dialling:
    """How to connect: `timeout` in seconds for one attempt, `retries` further ones."""

    timeout: float = 10.0
    retries: int = 2


@dataclass(frozen=True)
class Pace:
    """Deadlines, in seconds."""

    dialling: Dialling = Dialling()
    command: float = 300.0
    confirm: float = constants.DEFAULT_CONFIRM_SECONDS
    lock: float = 0.0  # how long to wait for another host that holds the device


def open_transport(name: str, target: Target, timeout: float) -> Transport:
    """Opens one connection; the embedded device needs none.

    Raises:
        Unreachable: there is none to be had.
    """
    if target.address is None:
        return LocalTransport(name)
    from knnkit.transport.ssh.connection import SshTransport  # paramiko is loaded only where it is needed

    return SshTransport.connect(name, target.address, timeout=timeout)


#: What a device job opens its connections with; tests put a fleet of their own in its place.
Opener = Callable[[str, Target, float], Transport]


def dial(
    target: Target,
    how: Dialling,
    *,
    opener: Opener = open_transport,
    pause: Pause = just_sleep,
    tried: Callable[[], None] = lambda: None,
    warn: Callable[[str], None] = lambda _: None,
) -> Transport:
    """Opens a connection, trying again where that may help.

    Args:
        target: the device.
        how: deadlines and attempts.
        opener: opens one connection.
        pause: waits between attempts.
        tried: is called before each attempt.
        warn: is given what the login warns of.

    Raises:
        Unreachable: the last attempt's.
    """
    for attempt in range(how.retries + 1):
        tried()
        try:
            transport = opener(target.name, target, how.timeout)
            for warning in getattr(transport, "warnings", ()):
                warn(warning)
            return transport
        except Unreachable as error:
            if attempt == how.retries or error.reason not in _WORTH_ANOTHER or pause(_pause_after(attempt)):
                if target.near and error.reason == "no-such-name":
                    error.hint = f"did you mean --target {target.near}? Else: {error.hint}"
                raise
    raise AssertionError("unreachable code: the loop returns or raises")


def _pause_after(attempt: int) -> float:
    """Full jitter: anywhere up to a bound that doubles."""
    bound: float = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt)
    return random.uniform(bound / 4, bound)  # noqa: S311  (spreads load, hides nothing)

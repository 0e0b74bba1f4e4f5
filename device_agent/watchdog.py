"""The process that stays behind after `activate` and goes back to the previous release when no confirmation comes.

It is a convenience, not the guarantee: a pending release past its deadline does not answer whether or not somebody
is there to revert it (`device_agent.state`), and the next command tidies up. It holds no lock while it waits, no
terminal and no pipe, so that the SSH connection that started it can end.
"""

from __future__ import annotations

import contextlib
import os
import time

from device_agent import clock, state
from device_agent.errors import AgentError
from device_agent.store import Store

#: How often it looks whether the activation still waits, in seconds.
LOOK_SECONDS = 1.0
_LOCK_WAIT = 30.0
_MAX_DESCRIPTOR = 4096


def leave_behind(store: Store, digest: str, deadline: float) -> None:
    """Forks a detached process that reverts the activation of `digest` at the uptime `deadline`.

    It is started before the state says "pending", so that there is no moment at which a crash leaves it out.
    """
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    # From here on nothing may return into the caller's stack, whatever happens.
    try:
        os.setsid()
        if os.fork() == 0:
            _detach()
            _watch(store, digest, deadline)
    finally:
        os._exit(0)


def _detach() -> None:
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.closerange(3, _MAX_DESCRIPTOR)


def _watch(store: Store, digest: str, deadline: float) -> None:
    begun = False
    while clock.uptime() < deadline:
        waits = _waits(store, digest)
        if begun and not waits:
            return
        begun = begun or waits
        time.sleep(max(0.0, min(LOOK_SECONDS, deadline - clock.uptime())))
    if not store.state_file.exists():
        return
    with contextlib.suppress(OSError, AgentError), store.changing("watchdog", "revert", wait=_LOCK_WAIT):
        pass  # entering recovers, and recovering reverts


def _waits(store: Store, digest: str) -> bool:
    try:
        pending = store.load().pending
    except (OSError, AgentError):
        return True
    return pending is not None and pending.release.digest == digest and not state.is_over(pending, clock.now())

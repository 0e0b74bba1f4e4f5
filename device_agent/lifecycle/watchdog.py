"""Background process that reverts an unconfirmed activation.

The process outlives `activate`. Safety does not depend on it: a pending release past its deadline does not answer even
if this process died (`device_agent.store.state`), and the next command reverts it. While it waits, it holds no lock,
terminal or pipe, so that the SSH connection that started it can close.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

from device_agent.shared.console import signals
from device_agent.shared.protocol.errors import AgentError
from device_agent.store import state
from device_agent.store.store import Store
from device_agent.system import clock

#: How often it checks whether the activation still waits, in seconds.
LOOK_SECONDS = 1.0
_LOCK_WAIT = 30.0
_MAX_DESCRIPTOR = 4096
_PIPE = 3


@contextlib.contextmanager
def left_behind(store: Store, digest: str, deadline: float) -> Iterator[None]:
    """Forks a detached process that reverts the activation of `digest` at the uptime `deadline`, in seconds.

    The `with` block writes the "pending" state. The process starts before the block, so that a crash cannot leave a
    pending state without a process. After the block, the process ends as soon as the activation is not pending.
    """
    readable, writable = os.pipe()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals.SIGNALS)
    child = os.fork()
    if child == 0:
        # The child must never return into the caller's code.
        try:
            signals.forget()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.setsid()
            if os.fork() == 0:
                _detach(readable)
                _watch(store, digest, deadline)
        finally:
            os._exit(0)
    try:
        os.close(readable)
        os.waitpid(child, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        yield
    finally:
        os.close(writable)


def _detach(readable: int) -> None:
    """Detaches this process from the terminal; closes all files but `readable`, the pipe that the caller will close."""
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.dup2(readable, _PIPE)
    os.closerange(_PIPE + 1, _MAX_DESCRIPTOR)


def _watch(store: Store, digest: str, deadline: float) -> None:
    os.read(_PIPE, 1)
    while clock.uptime() < deadline:
        if not _waits(store, digest):
            return
        time.sleep(max(0.0, min(LOOK_SECONDS, deadline - clock.uptime())))
    if store.state_file.exists():
        # `changing` calls `recover`, which reverts.
        with contextlib.suppress(OSError, AgentError), store.changing("watchdog", "revert", wait=_LOCK_WAIT):
            pass


def _waits(store: Store, digest: str) -> bool:
    try:
        pending = store.load().pending
    except (OSError, AgentError):
        return True
    return pending is not None and pending.release.digest == digest and not state.is_over(pending, clock.now())

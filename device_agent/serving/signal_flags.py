"""Signals to a stream: SIGTERM ends it, SIGHUP reloads."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any


class SignalFlags:
    """Records which signals arrived; `descriptor` becomes readable when one arrives."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.stop = False
        self._reload = False

    def terminate(self, number: int, frame: Any) -> None:
        """Handles SIGTERM (`number`): the stream ends after the rows that it has read."""
        self.stop = True
        signal.signal(number, signal.SIG_DFL)  # a second SIGTERM ends a process that is blocked in a write

    def hang_up(self, number: int, frame: Any) -> None:
        """Handles SIGHUP: the stream loads the current release again."""
        self._reload = True

    def take_reload(self) -> bool:
        """Whether SIGHUP arrived since the last call."""
        requested, self._reload = self._reload, False
        return requested

    def drain(self) -> None:
        """Reads all bytes from `descriptor`, so that it is readable only after the next signal."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptor, 4096)


@contextlib.contextmanager
def stream_signals() -> Iterator[SignalFlags]:
    """Catches SIGTERM and SIGHUP for the duration of a `with` block; then restores the earlier handlers."""
    readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    flags = SignalFlags(readable)
    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, flags.terminate),
        signal.SIGHUP: signal.signal(signal.SIGHUP, flags.hang_up),
    }
    wakeup = signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    try:
        yield flags
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(readable)
        os.close(writable)

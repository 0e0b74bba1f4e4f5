"""Runs one command over one SSH channel.

Reads both streams, sends the input and waits for the end. Has no time limit itself: the caller's watchdog closes the
connection, because paramiko can wait for ever (`recv_exit_status`, `exec_command`, a write to a stalled socket).
"""

from __future__ import annotations

import contextlib
import io
import select
import threading
import time
from collections.abc import Callable

from knnkit.transport.ssh.paramiko_import import paramiko

_CHUNK = 64 * 1024
#: Input up to this size fits every server's first window, so that sending it cannot block.
_SMALL = 16 * 1024
#: Seconds for output that may still come after the command ended (a grandchild can hold the stream open).
_LINGER = 2.0


class Watchdog:
    """Calls `close` when `total` seconds have passed, or `idle` seconds without a `touch`; None: no such limit."""

    def __init__(self, close: Callable[[], None], *, total: float | None = None, idle: float | None = None) -> None:
        self.fired = False
        self._close, self._total, self._idle = close, total, idle
        self._started = self._touched = time.monotonic()
        self._done = threading.Event()

    def touch(self) -> None:
        """Restarts the time limit `idle`, because a byte was sent or received."""
        self._touched = time.monotonic()

    def __enter__(self) -> Watchdog:
        self._started = self._touched = time.monotonic()
        if self._total is not None or self._idle is not None:
            threading.Thread(target=self._watch, name="knnkit-watchdog", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()

    def _watch(self) -> None:
        while not self._done.wait(max(0.001, self._remaining())):
            if self._remaining() <= 0:
                self.fired = True
                self._close()
                return

    def _remaining(self) -> float:
        now = time.monotonic()
        limits = [self._started + self._total - now] if self._total is not None else []
        limits += [self._touched + self._idle - now] if self._idle is not None else []
        return min(limits)

    @property
    def limit(self) -> tuple[float, str]:
        """The time limit in seconds, and text to follow it in a message: what the limit is about."""
        return (self._idle, " without progress") if self._idle is not None else (self._total or 0.0, "")


def feed(channel: paramiko.Channel, read: Callable[[], bytes], touch: Callable[[], None]) -> None:
    """Starts a thread that sends the command the blocks that `read` returns, then closes its standard input.

    The thread ends at an empty block, or when the command reads no more. It calls `touch` after each block.
    """

    def work() -> None:
        with contextlib.suppress(OSError, EOFError, ValueError, paramiko.SSHException):
            while chunk := read():
                channel.sendall(chunk)
                touch()
            channel.shutdown_write()

    threading.Thread(target=work, name="knnkit-feed", daemon=True).start()


def feed_bytes(channel: paramiko.Channel, data: bytes, touch: Callable[[], None]) -> None:
    """Sends `data` to the command's standard input, then closes it.

    Large data is sent in a thread, which calls `touch` after each block.
    """
    if len(data) > _SMALL:
        source = io.BytesIO(data)
        feed(channel, lambda: source.read(_CHUNK), touch)
        return
    with contextlib.suppress(OSError):
        if data:
            channel.sendall(data)
        channel.shutdown_write()


def drain(
    channel: paramiko.Channel, out: Callable[[bytes], None], err: Callable[[bytes], None], touch: Callable[[], None]
) -> int | None:
    """Passes standard output to `out` and standard error to `err` until the command ends; returns the exit code.

    The exit code is -1 if a signal ended the command, and None if the connection broke. Calls `touch` after each block.
    """
    poller = select.poll()
    poller.register(channel.fileno(), select.POLLIN)
    ended: float | None = None
    while True:
        moved = _take(channel, out, err)
        if moved:
            touch()
        if channel.exit_status_ready():
            ended = time.monotonic() if ended is None or moved else ended
            if channel.eof_received or channel.closed or time.monotonic() - ended > _LINGER:
                _take(channel, out, err)
                return _exit_code(channel)
        if channel.eof_received:
            channel.status_event.wait(0.05)  # the pipe below stays readable from now on
        elif not moved:
            poller.poll(100 if ended is not None else 1000)


def _exit_code(channel: paramiko.Channel) -> int | None:
    if channel.exit_status == -1 and not channel.get_transport().is_active():
        return None
    return channel.exit_status


def _take(channel: paramiko.Channel, out: Callable[[bytes], None], err: Callable[[bytes], None]) -> bool:
    moved = False
    while channel.recv_ready():
        out(channel.recv(_CHUNK))
        moved = True
    while channel.recv_stderr_ready():
        err(channel.recv_stderr(_CHUNK))
        moved = True
    return moved

"""`ProxyCommand` of ssh_config: connects through a process.

The process's standard input and output are the connection. paramiko's own `ProxyCommand` loops when the process ends,
reads without a time limit, and leaves a zombie. Here the process has one end of a socket pair, and paramiko the other:
closing it ends the process and its children.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import threading

from knnkit.transport.base import printable

#: Seconds for the process to end once its input has, and once it has been asked to.
_HANG_UP, _GRACE = 0.2, 1.0
_LAST = 300  # bytes of standard error that a message repeats


class ProxySocket(socket.socket):
    """A socket whose other end is the standard input and output of a proxy command."""

    def __init__(self, command: str) -> None:
        """Starts `command` as ssh does: the user's shell replaces itself with the command.

        Raises:
            OSError: no process can be started.
        """
        ours, theirs = socket.socketpair()
        super().__init__(fileno=ours.detach())
        self.said = ""  # once closed: what the command complained of, or how it ended
        self._ending = threading.Lock()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `close`)
        with theirs:
            self._process = subprocess.Popen(
                [os.environ.get("SHELL") or "/bin/sh", "-c", f"exec {command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._errors,
                start_new_session=True,  # a group of its own, which can be ended as a whole
            )

    def close(self) -> None:
        """Closes the connection and ends the process; a second call does nothing."""
        super().close()
        with self._ending:
            if self._errors.closed:
                return
            if not self._ends_within(_HANG_UP):
                self._signal(signal.SIGTERM)
                self._ends_within(_GRACE)
            self._signal(signal.SIGKILL)
            self._process.wait()
            with self._errors:
                self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - _LAST))
                complaint = self._errors.read().decode("utf-8", "replace").strip()
            self.said = printable(complaint) or f"the command ended with exit code {self._process.returncode}"

    def _ends_within(self, seconds: float) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.returncode is not None

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

"""Interface of a connection to a device: run, pipe, append.

A transport is one open connection to one device and belongs to one thread. It does not know releases or agents. Every
call has a time limit, and the size of every answer is limited, since a device may be hostile. `knnkit.transport.upload`
builds uploads from these three operations. No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from knnkit.errors import Unreachable

#: Most bytes of a command's standard output; of standard error the first MAX_COMPLAINT are kept.
MAX_OUTPUT = 8 * 1024 * 1024
MAX_COMPLAINT = 64 * 1024
#: Most characters of standard error in a message: a command to type, with its paths, stays whole.
_MOST_SAID = 4000

#: Exit codes of what SIGKILL ended, directly and by way of a shell.
_KILLED = (-9, 128 + 9)
#: Called with (bytes there, bytes in all) while a file is sent.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Completed:
    """A command that has ended, and its output; `exit_code` is negative if a signal ended it."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def complaint(self) -> str:
        """Why the command failed, for a message: the last lines of standard error (of a traceback, the error alone)."""
        if self.exit_code in _KILLED and not self.stderr.strip():
            return "the command was killed (SIGKILL): the device has too little memory for it, or somebody ended it"
        said = self.stderr.decode("utf-8", "replace").strip()
        said = said.splitlines()[-1] if "Traceback (most recent call last):" in said else said
        return printable(said[-_MOST_SAID:])


def printable(text: str) -> str:
    """Returns `text` from a device without control characters, which could control the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text)


def no_end(name: str, what: str, seconds: float, more: str = "") -> Unreachable:
    """Returns the error for a command (`what`, as text) on the device `name` that did not end within its time limit.

    The message has the limit, `seconds`, and then the text `more`.
    """
    longer = f"{min(1440, max(15, round(seconds / 20)))}m"  # three times the limit, at most a day
    hint = f"allow a slow device more time: --command-timeout {longer}, "
    hint += f"or `rollout: {{command_timeout: {longer}}}` in deploy.yaml"
    return Unreachable(f"{name}: {what}: did not end within {seconds:g} s{more}", reason="deadline", hint=hint)


class Transport(Protocol):
    """One open connection to one device."""

    @property
    def name(self) -> str:
        """The device's name in messages."""

    def run(
        self, argv: Sequence[str], *, timeout: float, input: bytes = b"", max_output: int = MAX_OUTPUT
    ) -> Completed:
        """Runs a command in the login directory and waits for its end. A non-zero exit code raises no error.

        The command gets exactly the arguments `argv`: no shell expands them. `timeout` is in seconds, `input` is stdin.

        Raises:
            Unreachable: the connection broke, or the time limit passed.
            DeviceFailed: the command printed more than `max_output` bytes.
        """

    def pipe(self, argv: Sequence[str], source: BinaryIO, sink: BinaryIO, *, idle: float | None) -> Completed:
        """Runs a command between two open files, in constant memory; `stdout` of the result is empty.

        `sink` gets standard output at once, flushed. `idle` is the time limit in seconds without a byte in either
        direction; None: no limit.

        Raises:
            Unreachable: the connection broke, or no byte was sent or received for `idle` seconds.
            DataError, UsageError: `source` cannot be read to its end, or `sink` cannot be written.
        """

    def append(
        self, source: BinaryIO, remote: str, *, offset: int, size: int, timeout: float, progress: Progress | None = None
    ) -> None:
        """Appends the bytes of `source` from `offset` on to the file `remote` on the device.

        The remote file must have `offset` bytes. With offset 0 it is a new file that only its owner can read; its
        directory must exist. `size` is the size of `source`; `timeout` is in seconds without progress.

        Raises:
            Unreachable: the connection broke, or made no progress for `timeout` seconds.
            DeviceFailed: the device cannot write the file.
        """

    def close(self) -> None:
        """Closes the connection; a second call does nothing."""

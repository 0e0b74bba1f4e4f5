"""What the host can do to a device, whatever lies between: run, pipe, append. No I/O here, and no policy.

A transport is one open connection to one device and belongs to one thread. It knows nothing of releases or agents.
Everything has a deadline, and whatever a device says is capped, since a device may be hostile to its host. Uploads are
built over these three in `knnkit.transport.upload`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

#: Most bytes of standard output that a command may answer; of standard error the first MAX_COMPLAINT are kept.
MAX_OUTPUT = 8 * 1024 * 1024
MAX_COMPLAINT = 64 * 1024

#: Exit codes of what SIGKILL ended, directly and by way of a shell.
_KILLED = (-9, 128 + 9)
#: Called with (bytes there, bytes in all) while a file is sent.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Completed:
    """A command that ran to its end: `exit_code` is negative where a signal ended it."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def complaint(self) -> str:
        """The last lines of standard error, printable, for a message; of a killed command, that it was killed."""
        if self.exit_code in _KILLED and not self.stderr.strip():
            return "it was killed (SIGKILL): the device has too little memory for it, or somebody ended it"
        return printable(self.stderr.decode("utf-8", "replace").strip()[-500:])


def printable(text: str) -> str:
    """Returns `text` from a device without control characters, so that it cannot steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text)


class Transport(Protocol):
    """One open connection to one device."""

    @property
    def name(self) -> str:
        """How messages call the device."""
        ...

    def run(
        self, argv: Sequence[str], *, timeout: float, input: bytes = b"", max_output: int = MAX_OUTPUT
    ) -> Completed:
        """Runs a command in the login directory and returns when it ended; a non-zero exit code is no error here.

        Args:
            argv: the command and its arguments, passed on exactly (no shell expands them).
            timeout: seconds until the command is given up.
            input: its standard input.
            max_output: bytes of standard output accepted.

        Raises:
            Unreachable: the connection broke, or the deadline passed.
            DeviceFailed: it said more than `max_output` bytes.
        """
        ...

    def pipe(self, argv: Sequence[str], source: BinaryIO, sink: BinaryIO, *, idle: float | None) -> Completed:
        """Runs a command between two open files: memory stays constant, `stdout` of the result is empty.

        Args:
            argv: as in `run`.
            source: read to its end into standard input.
            sink: gets standard output as it comes, flushed.
            idle: seconds without a byte either way until the command is given up; None waits for ever.

        Raises:
            Unreachable: the connection broke, or nothing moved for `idle` seconds.
            DataError, UsageError: `source` cannot be read to its end, or `sink` cannot be written.
        """
        ...

    def append(
        self, source: BinaryIO, remote: str, *, offset: int, size: int, timeout: float, progress: Progress | None = None
    ) -> None:
        """Writes the bytes from `offset` to `size` of `source` to the same place of the file `remote`.

        With offset 0 the file is made anew, readable by its owner alone; its directory must exist.

        Args:
            source: an open, seekable file.
            remote: an absolute path on the device.
            offset: where to begin; the remote file must have that many bytes.
            size: bytes of the whole file.
            timeout: seconds without progress until the upload is given up.
            progress: is told the bytes that are sent.

        Raises:
            Unreachable: the connection broke or stood still.
            DeviceFailed: the device cannot write the file.
        """
        ...

    def close(self) -> None:
        """Closes the connection; the second time does nothing."""
        ...

"""Separates a command's output from what the login prints.

A login shell may print other text: a greeting in `.bashrc`, a warning of a ForceCommand, a message at its end. So the
board prints a marker before the command and another one after it, on both streams, and only the text between them is
kept. Each command has a random pair of markers, and the command line contains them in two halves: a login that prints
the command line, or a marker of another run, does not print a marker. Opens no connection.

    marks = Marks.new()
    out = Between(marks, answer.extend)
    out.write(b"disk 0" + marks.begin + b"setosa" + marks.end + b"0" + b"bye")   # answer == b"setosa"
"""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from knnkit.errors import DeviceFailed
from knnkit.transport.base import printable
from knnkit.transport.buffers import Capped

#: Most bytes that a login may print before the command; the last of them are kept for a message.
MAX_NOISE = 64 * 1024 * 1024
_KEPT_NOISE = 500
#: Runs the rest of its arguments. Every login shell passes it on: one line, no single quotes. The shell stays until the
#: command has ended, and `KNNKIT_CONNECTION` names the process that lives as long as the connection. `set +xv` ends a
#: trace that the login exported, which would print the markers.
_RUN = (
    "set +xv; a=$1 b=$2; shift 2; KNNKIT_CONNECTION=$PPID; export KNNKIT_CONNECTION; "
    'printf %s "$a-$b" >&2; printf %s "$a$b"; (exec "$@"); c=$?; printf %s "$b$a$c:"; printf %s "$b-$a$c:" >&2; exit $c'
)
#: Exit codes over 128 that the agent has of its own: interrupted, and nobody reads its output.
_AGENTS_OWN = (130, 141)
_NO_SHELL = (
    "on the board: sudo usermod --shell /bin/sh {user}; or log in as another user. What the login prints: {ssh} true"
)
#: What a login prints that runs no command -> what to do.
_WAYS_OUT = {
    r"expired|password change|change your password": "{ssh} asks for a new password; then run this again",
    r"sftp": "on the board: take `ForceCommand internal-sftp` out of sshd_config; or name another account",
}
_NOLOGIN_EXIT = 254  # OpenSSH, while /etc/nologin is there


@dataclass(frozen=True)
class Marks:
    """The two markers of one command on one stream. The streams' markers differ, since a login may merge streams."""

    first: str
    second: str
    between: str = ""

    @classmethod
    def new(cls) -> Marks:
        """Returns new random markers."""
        return cls(secrets.token_hex(16), secrets.token_hex(16))

    @property
    def on_stderr(self) -> Marks:
        """The markers of the same command on standard error."""
        return replace(self, between="-")

    @property
    def begin(self) -> bytes:
        """The text that the board prints before the command's output."""
        return f"{self.first}{self.between}{self.second}".encode()

    @property
    def end(self) -> bytes:
        """The text that the board prints after the output; the exit code and a colon follow it."""
        return f"{self.second}{self.between}{self.first}".encode()

    def around(self, argv: Sequence[str]) -> str:
        """Returns the command line for the login shell: it prints the markers before and after running `argv`."""
        return f"exec {shlex.join(['sh', '-c', _RUN, 'sh', self.first, self.second, *_for_any_shell(argv)])}"


def _for_any_shell(argv: Sequence[str]) -> Sequence[str]:
    """Returns `argv` as a command that csh, fish and sh read alike; unchanged if they do already.

    In single quotes, csh or fish read `!`, backslash and newline differently from sh. In a command that has one of
    these, they become octal escapes, which a `sh` on the board decodes.
    """
    line = re.sub(r"[!\\\n]", lambda found: f"\\0{ord(found[0]):03o}", shlex.join(argv))
    return argv if "\\0" not in line else ("sh", "-c", 'eval "exec $(printf %b "$1")"', "sh", line)


class Between:
    """Passes the bytes between the markers to `out` as they arrive; calls `ready` when the first marker has arrived."""

    def __init__(self, marks: Marks, out: Callable[[bytes], object], ready: Callable[[], object] = bool) -> None:
        self.began = False
        self._marks, self._out, self._ready = marks, out, ready
        self._held = self._noise = b""
        self._count = 0
        self._after: bytes | None = None

    def write(self, chunk: bytes) -> None:
        """Processes `chunk`, the next bytes that arrived on the stream.

        Raises:
            Capped.Full: the login printed more than MAX_NOISE bytes before the first marker, or `out` raised this.
        """
        if self._after is not None:
            self._after = (self._after + chunk)[:16]
            return
        self._held += chunk
        if self.began or self._begin():
            self._pass_on()

    def finish(self) -> None:
        """Ends the output: passes the last bytes to `out`, held back because they could have begun a marker."""
        if self.began and self._after is None:
            self._out(self._held)

    @property
    def exit_code(self) -> int | None:
        """The exit code of the command, negative after a signal; None if the second marker is missing."""
        found = re.match(rb"(\d{1,3}):", self._after or b"")
        if found is None:
            return None
        code = int(found[1])
        return 128 - code if code > 128 and code not in _AGENTS_OWN else code

    @property
    def noise(self) -> str:
        """The last text that the login printed outside the markers, without control characters."""
        last = self._noise + (b"" if self.began else self._held)
        return printable(last.decode("utf-8", "replace").strip()[-_KEPT_NOISE:])

    def _begin(self) -> bool:
        before, mark, rest = self._held.partition(self._marks.begin)
        self.began = bool(mark)
        if mark:
            self._ready()
        else:  # its first part may be there
            keep = len(self._marks.begin) - 1
            before, rest = before[:-keep], before[-keep:]
        self._count += len(before)
        self._noise, self._held = (self._noise + before)[-_KEPT_NOISE:], rest
        if self._count > MAX_NOISE:
            raise Capped.Full
        return self.began

    def _pass_on(self) -> None:
        output, mark, rest = self._held.partition(self._marks.end)
        if mark:
            self._held, self._after = b"", rest[:16]
        else:
            keep = _overlap(output, self._marks.end)
            output, self._held = output[: len(output) - keep], output[len(output) - keep :]
        if output:
            self._out(output)


def _overlap(data: bytes, mark: bytes) -> int:
    """Returns how many bytes at the end of `data` may be the beginning of `mark`."""
    sizes = range(min(len(data), len(mark) - 1), 0, -1)
    return next((size for size in sizes if data.endswith(mark[:size])), 0)


def no_command(name: str, user: str, ssh: str, exit_code: int, printed: Sequence[str]) -> DeviceFailed:
    """Returns the error for a login that did not run the command, because it ended or never stopped printing.

    `ssh` is the OpenSSH command that connects to the host; `printed` is the last text of the login on each stream.
    """
    said = "\n".join(filter(None, printed))
    hints = [hint for pattern, hint in _WAYS_OUT.items() if re.search(pattern, said, re.IGNORECASE)]
    hint = (
        "sudo rm /etc/nologin, at the board's console" if exit_code == _NOLOGIN_EXIT else next(iter(hints), _NO_SHELL)
    )
    return DeviceFailed(
        f"{name}: the login as {user} runs no command: {said or f'exit code {exit_code}, without any output'}",
        reason="login-runs-nothing",
        hint=hint.format(ssh=ssh, user=user),
    )

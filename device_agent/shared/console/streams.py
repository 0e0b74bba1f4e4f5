"""Standard input, output and error made safe, however the process was started: what a command line does first.

And where it was started: in a directory that somebody has deleted since, no relative path leads anywhere.

One that is closed is taken by something that fails at every use, or the next file to be opened would get its number.
An error of standard output names it, and what its encoding does not have is escaped. What standard error does not take
is dropped: a log on a full disk, or a terminal that is gone, must not end what is being done. Both command lines use
it; it never prints.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path
from typing import Any, TextIO

INPUT, OUTPUT, ERROR = 0, 1, 2
#: What Python chooses for standard output, by the locale: a character that its encoding does not have ends the program.
_FAILING = ("strict", "surrogateescape")


def secure() -> None:
    """Takes what is closed, and stands in for `sys.stdin`, `sys.stdout`, `sys.stderr` unless somebody else does."""
    for descriptor in (INPUT, OUTPUT, ERROR):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if descriptor == INPUT else os.O_RDONLY)  # gets the lowest number: this one
    if sys.stdin is None:
        sys.stdin = open(INPUT, closefd=False)  # noqa: SIM115
    if sys.stdout is sys.__stdout__:
        sys.stdout = _writer(OUTPUT, sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _writer(ERROR, sys.stderr)


def silence_output() -> None:
    """Lets what is still to be written to standard output go nowhere, also when Python flushes it at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), OUTPUT)


def require_reader() -> None:
    """Checks that whoever reads standard output has not gone away, as a host whose line is cut has.

    Raises:
        BrokenPipeError: nobody would see what is printed.
    """
    import select  # few commands ask

    waiting = select.poll()
    waiting.register(OUTPUT, 0)  # a pipe or a socket without its other end says so unasked
    if any(state & (select.POLLERR | select.POLLHUP) for _, state in waiting.poll(0)):
        raise BrokenPipeError(errno.EPIPE, "nobody reads the answer", "standard output")


def is_lost() -> bool:
    """Whether the working directory was deleted."""
    try:
        os.getcwd()  # noqa: PTH109 (that it fails is all that matters)
    except OSError:
        return True
    return False


def here() -> str:
    """Returns the working directory as messages name it."""
    return "a directory that was deleted" if is_lost() else str(Path.cwd())


def hint_here(hint: str) -> str:
    """Returns what to do next; first of all to leave a directory that is gone."""
    if not is_lost():
        return hint
    return f"the working directory was deleted: cd to one that exists, then {hint or 'try again'}"


class _Output(io.FileIO):
    """Standard output."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OSError(error.errno, error.strerror, "standard output") from None


class _Complaints(io.FileIO):
    """Standard error."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return memoryview(data).nbytes


def _writer(descriptor: int, before: TextIO | None) -> TextIO:
    raw = (_Complaints if descriptor == ERROR else _Output)(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding if before else "utf-8",
        errors=before.errors if before and before.errors not in _FAILING else "backslashreplace",
        line_buffering=descriptor == ERROR or raw.isatty(),
    )

"""Makes standard input, output and error safe to use.

Replaces a closed standard stream with a descriptor on which every operation fails. Otherwise the next file that is
opened would get descriptor 0, 1 or 2. Errors of standard output name that stream; characters outside its encoding are
escaped. Failed writes to standard error are dropped: a full disk or a closed terminal must not end the work. Also finds
out whether the working directory was deleted. Both command lines call `secure` first.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

INPUT, OUTPUT, ERROR = 0, 1, 2
#: Error handlers that Python may choose for standard output; both fail on a character outside its encoding.
_FAILING = ("strict", "surrogateescape")
#: Names of a folder that are compared with one that is not there: 100,000 would take seconds.
_MOST_COMPARED = 2000


def secure() -> None:
    """Replaces closed descriptors and a missing `sys.stdin`; makes `sys.stdout` and `sys.stderr` safe.

    Every operation fails on a replaced descriptor. A stream that a program has replaced already (`sys.stdout is not
    sys.__stdout__`) stays as it is.
    """
    for descriptor in (INPUT, OUTPUT, ERROR):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if descriptor == INPUT else os.O_RDONLY)  # gets the lowest free number
    if sys.stdin is None:
        sys.stdin = open(INPUT, closefd=False)  # noqa: SIM115
    if sys.stdout is sys.__stdout__:
        sys.stdout = _writer(OUTPUT, sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _writer(ERROR, sys.stderr)


def silence_output() -> None:
    """Discards all further standard output, including output that Python flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), OUTPUT)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Discards what the process writes to standard error within the `with` block; exceptions still pass."""
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def require_reader() -> None:
    """Checks that standard output still has a reader: a host that lost its connection no longer reads.

    Raises:
        BrokenPipeError: the reader has closed standard output.
    """
    import select  # few commands need it

    waiting = select.poll()
    waiting.register(OUTPUT, 0)  # poll reports a missing other end even with no events requested
    if any(state & (select.POLLERR | select.POLLHUP) for _, state in waiting.poll(0)):
        raise BrokenPipeError(errno.EPIPE, "the program that reads it has ended", "standard output")


def say_if_waiting(name: str) -> None:
    """If standard input is a terminal, says on standard error that the program `name` waits for typed rows."""
    if os.isatty(INPUT):
        print(f"{name}: waiting for rows on standard input; Ctrl-D ends them", file=sys.stderr)


def is_lost() -> bool:
    """Whether the working directory was deleted."""
    try:
        os.getcwd()  # noqa: PTH109 (only whether it fails matters)
    except OSError:
        return True
    return False


def here() -> str:
    """Returns the working directory as text for a message, or "a directory that was deleted"."""
    return "a directory that was deleted" if is_lost() else str(Path.cwd())


def hint_missing(path: str) -> str:
    """Returns a hint for a file that cannot be opened: the most similar name beside it, or where paths start."""
    import difflib  # not needed at a normal start of the agent
    import itertools

    file = Path(path)
    with contextlib.suppress(OSError):
        beside = itertools.islice(file.parent.iterdir(), _MOST_COMPARED)
        names = [entry.name for entry in beside if entry.name != file.name and entry.name.isprintable()]
        if close := difflib.get_close_matches(file.name, names, n=1):
            return f"did you mean {file.with_name(close[0])}?"
    return f"check the path; a relative one starts at {here()}"


def hint_here(hint: str) -> str:
    """Returns the hint; if the working directory was deleted, the hint says first to `cd` to another one."""
    if not is_lost():
        return hint
    return f"the working directory was deleted: cd to one that exists, then {hint or 'try again'}"


class _Output(io.FileIO):
    """Standard output; its OSErrors name "standard output" as the file."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OSError(error.errno, error.strerror, "standard output") from None


class _Error(io.FileIO):
    """Standard error; a failed write counts as written."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return memoryview(data).nbytes


def _writer(descriptor: int, before: TextIO | None) -> TextIO:
    raw = (_Error if descriptor == ERROR else _Output)(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding if before else "utf-8",
        errors=before.errors if before and before.errors not in _FAILING else "backslashreplace",
        line_buffering=descriptor == ERROR or raw.isatty(),
    )

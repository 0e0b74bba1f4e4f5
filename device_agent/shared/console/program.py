"""Runs a command line, from arguments to exit code.

Installs the signal handlers, makes the standard streams safe, runs one command, and turns an error into a message, a
hint, an exit code, and with `--json` one JSON document. `knnkit` and `device_agent` both run in it.
"""

from __future__ import annotations

import _thread
import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import TypeAlias

from device_agent.shared.console import signals, streams
from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.errors import Interrupted, ReportedError

Run: TypeAlias = Callable[[list[str]], int]
Failed: TypeAlias = Callable[[OSError | MemoryError], ReportedError]
_NO_THREAD = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
EXIT_PIPE = 141  # nobody reads our output: what a shell gives a process that SIGPIPE ended


def main(
    name: str,
    argv: Sequence[str] | None,
    run: Run,
    failed: Failed,
    interrupted: Callable[[list[str]], str] = lambda _: "",
) -> int:
    """Runs one command; returns the exit code of `run` or of its error; 130 if interrupted, 141 if output was closed.

    Args:
        name: name of the program in messages.
        argv: the arguments; if None, takes those of the process, and handles its signals, too.
        run: parses the arguments and runs a command; returns the exit code.
        failed: turns an OSError or MemoryError into an error with a message and a hint.
        interrupted: takes the arguments; returns the hint for a command that a signal ended.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if argv is None:
            signals.listen()
        code = _answer(name, words, run, failed)
        signals.deafen()
    except KeyboardInterrupt:
        stopped = (
            failed(_NO_THREAD) if not _may_start_a_thread() else Interrupted("interrupted", hint=interrupted(words))
        )
        code = _complain(name, words, stopped)
    return code


def _answer(name: str, words: list[str], run: Run, failed: Failed) -> int:
    streams.secure()
    try:
        with signals.as_interrupt():
            try:
                code = run(words)
            except SystemExit:  # after --help, whose text is not written yet
                sys.stdout.flush()
                raise
            sys.stdout.flush()
        return code
    except ReportedError as error:
        return _complain(name, words, error)
    except BrokenPipeError:
        return _unread()
    except (OSError, MemoryError) as error:
        return _complain(name, words, failed(error))
    except RuntimeError as error:
        if "can't start new thread" not in str(error):
            raise
        return _complain(name, words, failed(_NO_THREAD))


def _may_start_a_thread() -> bool:
    """Whether the limit of processes allows another thread; if not, OpenBLAS, not the user, may have raised SIGINT."""
    try:
        _thread.start_new_thread(int, ())
    except RuntimeError:
        return False
    return True


def _complain(name: str, words: list[str], error: ReportedError) -> int:
    from device_agent.shared.console.root_hints import typed_root, with_root  # not needed to start

    hint = with_root(error.hint, typed_root(words))
    hint = streams.hint_here(hint) if error.exit_code == constants.EXIT_USAGE else hint
    print(f"{name}: {error}" + (f"\n  try: {hint}" if hint else ""), file=sys.stderr)
    try:
        if "--json" in words:
            from device_agent.shared.protocol.reports import Problem  # not needed to start

            certificate = getattr(error, "certificate", None)
            print(json_codec.dumps(Problem(error.reason or "error", str(error), hint, error.exit_code, certificate)))
        sys.stdout.flush()
    except BrokenPipeError:
        return _unread()
    except OSError:  # it is full, or closed: standard error has it
        streams.silence_output()
    return error.exit_code


def _unread() -> int:
    streams.silence_output()
    return EXIT_PIPE

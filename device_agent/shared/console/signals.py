"""Turns SIGINT, SIGTERM and SIGHUP into one KeyboardInterrupt.

Only the first signal raises; later signals are ignored, because they would interrupt the clean-up. A signal that was
ignored at the start (nohup) stays ignored. Both command lines use this module; it never prints.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any, NoReturn

#: Ctrl-C, kill, and a closed terminal.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Exit code of an interrupted program, for every signal.
EXIT_CODE = 130
#: Seconds after which a destructor has surely finished.
_SOON = 0.005

_heard: list[int] = []


def listen() -> None:
    """Installs the signal handlers; does nothing outside the main thread."""
    _heard.clear()
    with contextlib.suppress(ValueError):  # in another thread
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _hear)
        sys.unraisablehook = _lost


def deafen() -> None:
    """Ignores all further signals. Call it when only the report is left to print."""
    _heard.append(0)


def heard() -> bool:
    """Whether a signal raised KeyboardInterrupt, even if it became another exception (for example, in an import)."""
    return any(_heard)


@contextlib.contextmanager
def as_interrupt() -> Iterator[None]:
    """Turns any exception of the `with` block into KeyboardInterrupt if a signal arrived."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a Rust extension that is interrupted while it loads does not raise an Exception
        if heard():
            raise KeyboardInterrupt from None
        raise


def forget() -> None:
    """Restores the default handlers; a forked child calls it first, because nothing there catches exceptions."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def end(code: int) -> NoReturn:
    """Exits with `code`, without Python's shutdown, which would wait for threads and could be interrupted again."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _hear(number: int, _frame: object) -> None:
    if not _heard:
        _heard.append(number)
        raise KeyboardInterrupt


def _lost(found: Any) -> None:
    """Handles an exception from a destructor, which Python prints but does not raise (`sys.unraisablehook`).

    After the KeyboardInterrupt of a signal, the program would run on, so the signal is sent again. This happens `_SOON`
    seconds later, when the interrupted code has released the global import lock. Prints any other exception.
    """
    if not isinstance(found.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(found)
    elif heard():
        number = next(filter(None, _heard))
        _heard.clear()
        _thread.start_new_thread(_send_again, (number,))


def _send_again(number: int) -> None:
    time.sleep(_SOON)
    os.kill(os.getpid(), number)

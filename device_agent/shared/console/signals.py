"""SIGINT, SIGTERM and SIGHUP end what a program is doing, once: what it holds is let go of, and a word is said.

The first of them is raised as KeyboardInterrupt where the program is; whatever follows would only hurt the clean-up,
and is not heard any more. A signal that was ignored from outside (nohup) stays so. Both command lines use it; it never
prints.
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

#: What ends a program from outside: Ctrl-C, kill, and a terminal that goes away.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: The exit code of a program that was interrupted, whatever the signal.
EXIT_CODE = 130
#: Seconds in which a destructor has come to its end.
_SOON = 0.005

_heard: list[int] = []


def listen() -> None:
    """Takes the signals from here on; does nothing outside the main thread."""
    _heard.clear()
    with contextlib.suppress(ValueError):  # in another thread
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _hear)
        sys.unraisablehook = _lost


def deafen() -> None:
    """Hears nothing from here on: what is left to do is to say what was done."""
    _heard.append(0)


def heard() -> bool:
    """Whether a signal was raised, whatever has become of it: an import that it broke raises something else."""
    return any(_heard)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Takes whatever is raised in the block after a signal for the signal."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # an extension written in Rust, broken while it is loaded, raises no Exception
        if heard():
            raise KeyboardInterrupt from None
        raise


def forget() -> None:
    """Gives the signals back to the system: what a forked child does first, for nobody would catch what is raised."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def end(code: int) -> NoReturn:
    """Ends the process without taking Python apart, which would wait for threads and could be interrupted again."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _hear(number: int, _frame: object) -> None:
    if not _heard:
        _heard.append(number)
        raise KeyboardInterrupt


def _lost(found: Any) -> None:
    """What was raised where nothing can be (a destructor, say) came to nothing: the signal is sent once more.

    Soon: where Python lets go of an import's lock, it may have kept that of all imports, for which threads would wait.
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

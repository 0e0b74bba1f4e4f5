"""Runs a function in a child process.

If a model crashes the runtime, uses up the memory or never ends, only the child dies, and the caller gets an error.
Only for processes without threads. Never touches the store.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import select
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from device_agent.shared.console import signals
from device_agent.shared.protocol.errors import AgentError, DeviceUnfit, ModelUnusable
from device_agent.system import memory

T = TypeVar("T")
U = TypeVar("U")

#: Seconds after which the child is killed.
TIMEOUT_SECONDS = 600.0


def run(work: Callable[[], T], *, close: Iterable[int] = (), timeout: float = TIMEOUT_SECONDS) -> T:
    """Runs `work` in a forked child and returns its result; `close` are descriptors that the child must close.

    Raises:
        AgentError: the error that `work` raised.
        DeviceUnfit: there is not enough memory (`out-of-memory`).
        OSError: the system allows no further process.
        ModelUnusable: the child died (`model-crashed`, with the signal) or took longer than `timeout` seconds.
    """
    return run_both(work, None, close=close, timeout=timeout)[0]


def run_both(
    work: Callable[[], T],
    then: Callable[[T], U] | None,
    *,
    close: Iterable[int] = (),
    timeout: float = TIMEOUT_SECONDS,
    limit: int = 0,
) -> tuple[T, U | None]:
    """Like `run`; the same child then calls `then` with the result of `work`, without importing NumPy again.

    Returns both results. The second is None if `then` failed, crashed, or took longer than `limit` seconds.
    """
    killed_before = memory.oom_kills()
    readable, writable = os.pipe()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals.SIGNALS)  # until the code that ends the child is reached
    try:
        child = os.fork()
    except OSError:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(readable)
        os.close(writable)
        raise
    if child == 0:
        _serve(work, then, writable, (readable, *close), timeout, limit)
    data = None
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(writable)
        data = _collect(readable, timeout + limit)
    finally:
        if data is None:  # it takes too long, or a signal interrupted us
            os.kill(child, signal.SIGKILL)
        os.close(readable)
        _, status = os.waitpid(child, 0)
    if data is None:
        hint = "try again when the device is less busy: uptime shows its load"
        raise ModelUnusable(f"the model gave no answer within {timeout:g} s", reason="model-hangs", hint=hint)
    if not data and _was_killed_for_memory(status, killed_before):
        raise _no_memory()
    if not data:
        raise ModelUnusable(f"the model {_death(status)}", reason="model-crashed", hint="python -m device_agent doctor")
    # Safe to unpickle: our own child wrote it, into a pipe that no other process has.
    results = io.BytesIO(data)
    first: Any = pickle.load(results)  # noqa: S301
    if isinstance(first, BaseException):
        raise first
    with contextlib.suppress(EOFError, pickle.UnpicklingError):  # it died before it had written the second
        second: Any = pickle.load(results)  # noqa: S301
        return first, None if isinstance(second, BaseException) else second
    return first, None


def _serve(
    work: Callable[[], Any],
    then: Callable[[Any], Any] | None,
    writable: int,
    close: Iterable[int],
    timeout: float,
    limit: int,
) -> None:
    """Closes descriptors `close`, runs `work`, then `then`, writes results or AgentErrors to `writable`, and exits."""
    code = 1
    try:
        for descriptor in close:
            os.close(descriptor)
        signals.forget()  # the parent reports Ctrl-C
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.SIGNALS)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(int(timeout) + limit + 5)  # later than the parent; in case the thread below never runs
        with contextlib.suppress(RuntimeError):  # a limit of processes may allow no thread
            threading.Thread(target=_end_with_the_parent, args=(writable,), daemon=True).start()
        _offer_to_the_oom_killer()
        result = _outcome(work)
        _write(writable, result)
        if then is not None and not isinstance(result, AgentError):
            signal.alarm(limit)
            _write(writable, _outcome(lambda: then(result)))
        code = 0
    except BrokenPipeError:
        pass  # the parent was just killed
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _write(writable: int, result: Any) -> None:
    data = pickle.dumps(result)
    with open(writable, "wb", closefd=False) as pipe:
        pipe.write(data)


def _end_with_the_parent(writable: int) -> None:
    """Ends the child when its parent, the only reader of the pipe `writable`, was killed."""
    waiting = select.poll()
    waiting.register(writable, 0)  # poll always reports POLLERR, the loss of the last reader
    waiting.poll()
    os._exit(1)


def _outcome(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except AgentError as error:
        return error
    except MemoryError:
        return _no_memory()


def _no_memory() -> DeviceUnfit:
    hint = "free -m; end other programs, or raise the memory limit (systemctl show -p MemoryMax)"
    return DeviceUnfit("there is not enough memory for the model", reason="out-of-memory", hint=hint)


def _was_killed_for_memory(status: int, before: int | None) -> bool:
    """Whether the kernel killed the child for lack of memory: SIGKILL, and more `oom_kills` than `before`, if known."""
    if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
        return False
    now = memory.oom_kills()
    return now is None or before is None or now > before


def _offer_to_the_oom_killer() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _collect(readable: int, timeout: float) -> bytes | None:
    """Returns all bytes that the child writes; b"" if it died first, None if it takes over `timeout` seconds."""
    give_up = time.monotonic() + timeout
    parts: list[bytes] = []
    while True:
        ready, _, _ = select.select([readable], [], [], max(0.0, give_up - time.monotonic()))
        if not ready:
            return None
        part = os.read(readable, 1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)


def _death(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"crashed the runtime: {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended the runtime with exit code {os.WEXITSTATUS(status)}"

"""Runs one function for many devices in parallel; stoppable.

Works with any concurrent.futures Executor. A job is made only when it starts, so that waiting devices need no memory.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from device_agent.shared.console import signals
from device_agent.shared.protocol import constants
from knnkit.errors import Unreachable, needs
from knnkit.fleet.device.connect import Job
from knnkit.fleet.device.recorder import Listener, report_on
from knnkit.fleet.report import DeviceReport, Outcome
from knnkit.fleet.targets import Target

#: The function to run: called with (job) in another process, with (job, listen, pause) in a thread of this one.
Work = Callable[..., DeviceReport]


class Stop(threading.Event):
    """A flag that stops a run: no new jobs begin. `left`: a second signal came, so the run does not wait for jobs."""

    left = False

    def __call__(self, seconds: float) -> bool:
        """Waits until the flag is set, at most `seconds`; returns whether it is set."""
        return self.wait(seconds)


@dataclass
class Fan:
    """Runs jobs, `concurrency` at a time. `in_process`: in threads of this process, where they see `stop`."""

    executor: Executor
    concurrency: int = 16
    in_process: bool = True
    stop: Stop = field(default_factory=Stop)

    def each(
        self, work: Work, jobs: Iterable[Job], listen: Listener, *, may_begin: Callable[[], bool] = lambda: True
    ) -> Iterator[DeviceReport]:
        """Runs `work` for each job and yields the reports; begins none after a stop, or when `may_begin()` is False."""
        waiting: dict[Future[DeviceReport], Target] = {}
        left = iter(jobs)
        while True:
            while len(waiting) < self.concurrency and not self.stop.is_set() and may_begin():
                job = next(left, None)
                if job is None:
                    break
                arguments: tuple[Any, ...] = (job, listen, self.stop) if self.in_process else (job,)
                waiting[self.executor.submit(work, *arguments)] = job.target
            if not waiting:
                return
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield _report(future, waiting.pop(future))


def _report(future: Future[DeviceReport], target: Target) -> DeviceReport:
    """Returns the report of a finished job; if its worker crashed, a report that the device failed."""
    try:
        return future.result()
    except Exception as error:
        message = f"{target.name}: the job crashed with {type(error).__name__}: {error}"
        why = {"exit_code": constants.EXIT_FAILED, "reason": "crashed", "message": message}
        hint = target.lead("knnkit status --target HOST, to see what runs there")
        return report_on(target, Outcome.FAILED, hint=hint, **why)


@contextlib.contextmanager
def fan(concurrency: int, dask: str | None = None) -> Iterator[Fan]:
    """Yields a `Fan` for `concurrency` devices at a time: threads, or workers of the Dask cluster at address `dask`.

    Raises:
        MissingDependency: `distributed` is not installed.
        Unreachable: there is no scheduler at this address.
    """
    if dask is not None:
        with _dask(dask) as executor:
            yield Fan(executor, concurrency, in_process=False)
        return
    executor = ThreadPoolExecutor(concurrency, thread_name_prefix="knnkit-device")
    made = Fan(executor, concurrency)
    try:
        yield made
    finally:
        executor.shutdown(wait=not made.stop.left, cancel_futures=True)


@contextlib.contextmanager
def _dask(address: str) -> Iterator[Executor]:
    with needs("--dask needs the package distributed", "dask"):
        from distributed import Client
    try:
        client = Client(address, timeout=10)
    except (OSError, TimeoutError, ValueError) as error:
        raise Unreachable(
            f"no Dask scheduler at {address}: {error}",
            reason="dask",
            hint="check --dask ADDRESS; `dask scheduler` starts one",
        ) from None
    try:
        # pure=True would run equal jobs only once; a device job has effects.
        executor: Executor = client.get_executor(pure=False)
        yield executor
    finally:
        client.close()


@contextlib.contextmanager
def stopped_by_signals(stop: Stop, tell: Callable[[str], None]) -> Iterator[None]:
    """Within this context, Ctrl-C, SIGTERM and SIGHUP set `stop`; a second Ctrl-C or SIGTERM ends the context at once.

    Signals after the second are ignored: only the report remains to be printed. If SIGHUP was ignored before (nohup),
    it stays ignored. Does nothing outside the main thread. `tell` gets a text for the user when the run stops.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _frame: object) -> None:
        if stop.left:
            return
        if stop.is_set() and number != signal.SIGHUP:  # shell and kernel may both send SIGHUP
            stop.left = True
            raise KeyboardInterrupt
        if not stop.is_set():
            signals.deafen()
            said.put(f"{signal.Signals(number).name}: starts no further device, confirms those that have switched")
        stop.set()

    numbers = [number for number in signals.SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    with _speaking(tell) as said:
        before = {number: signal.signal(number, handle) for number in numbers}
        try:
            yield
        except KeyboardInterrupt:
            if not stop.left:
                raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def _speaking(tell: Callable[[str], None]) -> Iterator[SimpleQueue[str | None]]:
    """Yields a queue; a thread passes texts put into it to `tell`: a signal handler that prints could wait for ever."""
    said: SimpleQueue[str | None] = SimpleQueue()

    def work() -> None:
        while (words := said.get()) is not None:
            tell(words)

    speaker = threading.Thread(target=work, name="knnkit-signals")
    speaker.start()
    try:
        yield said
    finally:
        said.put(None)
        speaker.join()

"""Runs one function for many devices on any concurrent.futures Executor, so many at a time, and can be stopped.

Memory does not grow with the number of devices that wait: a job is made when its turn comes. Knows nothing of what the
jobs do.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from device_agent.shared.console import signals
from device_agent.shared.protocol import constants
from knnkit.errors import MissingDependency, Unreachable, extra
from knnkit.fleet.device.recorder import Listener
from knnkit.fleet.report import DeviceReport, Outcome
from knnkit.fleet.targets import Target


class Job(Protocol):
    """What a fan needs to know of a job."""

    @property
    def target(self) -> Target:
        """The device that it is for."""
        ...


J = TypeVar("J", bound=Job)
#: A device's work: (job) in another process, (job, listen, pause) in a thread of this one.
Work = Callable[..., DeviceReport]


class Stop:
    """A stop that everybody sees; called with seconds, waits for it at most so long and says whether it came.

    `left` says that somebody asked a second time: nobody waits any more for what was begun.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self.left = False

    def __call__(self, seconds: float) -> bool:
        """Waits for the stop; True once it came."""
        return self._event.wait(seconds)

    def set(self) -> None:
        """Stops everything that has not been switched yet."""
        self._event.set()

    @property
    def came(self) -> bool:
        """Whether it came."""
        return self._event.is_set()


@dataclass
class Fan:
    """An executor with what goes with it: `near` means threads of this process, that can listen and be stopped."""

    executor: Executor
    concurrency: int = 16
    near: bool = True
    stop: Stop = field(default_factory=Stop)

    def each(
        self,
        work: Work,
        jobs: Iterable[J],
        listen: Listener,
        *,
        may_begin: Callable[[], bool] = lambda: True,
    ) -> Iterator[DeviceReport]:
        """Yields each device's report as it comes in; begins no further job once stopped or `may_begin` says no."""
        waiting: dict[Future[DeviceReport], Target] = {}
        left = iter(jobs)
        while True:
            while len(waiting) < self.concurrency and not self.stop.came and may_begin():
                job = next(left, None)
                if job is None:
                    break
                arguments: tuple[Any, ...] = (job, listen, self.stop) if self.near else (job,)
                waiting[self.executor.submit(work, *arguments)] = job.target
            if not waiting:
                return
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield _report(future, waiting.pop(future))


def _report(future: Future[DeviceReport], target: Target) -> DeviceReport:
    """A worker that died, or a fault of ours, is one device's failure, not the fleet's."""
    try:
        return future.result()
    except Exception as error:
        return DeviceReport(
            target.name,
            str(target),
            Outcome.FAILED,
            exit_code=constants.EXIT_FAILED,
            reason="crashed",
            message=f"{target.name}: the job ended with {type(error).__name__}: {error}",
            hint="knnkit status, to see what runs there",
            device_class=target.device_class,
        )


@contextlib.contextmanager
def fan(concurrency: int, dask: str | None = None) -> Iterator[Fan]:
    """Gives a fan for the length of a block: threads, or the workers of a Dask cluster.

    Args:
        concurrency: devices at a time.
        dask: address of a Dask scheduler.

    Raises:
        MissingDependency: `distributed` is not installed.
        Unreachable: there is no such scheduler.
    """
    if dask is not None:
        with _dask(dask) as executor:
            yield Fan(executor, concurrency, near=False)
        return
    executor = ThreadPoolExecutor(concurrency, thread_name_prefix="knnkit-device")
    made = Fan(executor, concurrency)
    try:
        yield made
    finally:
        executor.shutdown(wait=not made.stop.left, cancel_futures=True)


@contextlib.contextmanager
def _dask(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError:
        raise MissingDependency("--dask needs the package distributed", hint=extra("dask")) from None
    try:
        client = Client(address, timeout=10)
    except (OSError, TimeoutError, ValueError) as error:
        raise Unreachable(
            f"no Dask scheduler at {address}: {error}",
            reason="dask",
            hint="check --dask ADDRESS; `dask scheduler` starts one",
        ) from None
    try:
        # pure=True would run jobs that look alike only once; a device job has effects.
        executor: Executor = client.get_executor(pure=False)
        yield executor
    finally:
        client.close()


@contextlib.contextmanager
def stopped_by_signals(stop: Stop, tell: Callable[[str], None]) -> Iterator[None]:
    """Ctrl-C, SIGTERM and a terminal that goes away set the stop; a second Ctrl-C or SIGTERM leaves the block at once.

    Whatever comes after them is not heard: all that is left is to say what became of each device. Does nothing outside
    the main thread. A SIGHUP that is ignored (nohup) stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _frame: object) -> None:
        if stop.left:
            return
        if stop.came and number != signal.SIGHUP:  # shell and kernel may both send one
            stop.left = True
            raise KeyboardInterrupt
        if not stop.came:
            signals.deafen()
            said.put(f"{signal.Signals(number).name}: nothing new is begun; what is switched is being confirmed")
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
    """Gives a queue whose words a thread tells: a signal may come while its own thread holds what telling takes."""
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

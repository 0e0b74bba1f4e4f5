"""A run that is told to stop, however often and whatever it is doing just then."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import Future

import pytest

from knnkit.fleet.report import DeviceReport
from knnkit.fleet.rollout import executor
from knnkit.fleet.rollout.executor import Stop, stopped_by_signals
from knnkit.fleet.targets import Target
from knnkit.transport.address import Typed


def hear(*numbers: int) -> None:
    """Sends this process signals, each of which Python handles before it goes on."""
    for number in numbers:
        os.kill(os.getpid(), number)


def test_a_signal_may_come_while_a_line_is_being_written() -> None:
    lock, told, stop = threading.Lock(), [], Stop()

    def tell(text: str) -> None:
        assert lock.acquire(timeout=10), "it waits for what its own thread holds"
        told.append(text)
        lock.release()

    with stopped_by_signals(stop, tell), lock:
        hear(signal.SIGTERM)
    assert stop.is_set()
    assert [text.split(":")[0] for text in told] == ["SIGTERM"]


def test_a_terminal_that_goes_away_may_say_so_twice() -> None:
    told: list[str] = []
    stop = Stop()
    with stopped_by_signals(stop, told.append):
        hear(signal.SIGHUP, signal.SIGHUP)
    assert stop.is_set()
    assert len(told) == 1


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_whoever_asks_a_second_time_is_obeyed_and_asks_no_third_time(second: int) -> None:
    stop, reached = Stop(), []
    with stopped_by_signals(stop, lambda _: None):
        hear(signal.SIGHUP, second)
        reached.append("the block was not left")
    assert (stop.left, reached) == (True, [])
    with stopped_by_signals(stop, lambda _: None):
        hear(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = Stop()
    try:
        with stopped_by_signals(stop, lambda _: None):
            hear(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert not stop.is_set()


def test_a_job_that_crashed_names_the_command_about_its_device() -> None:
    crashed: Future[DeviceReport] = Future()
    crashed.set_exception(ValueError("no"))
    target = Target("shed", None, typed=Typed("shed", options=("-c", "my fleet.yaml")))
    assert executor._report(crashed, target).hint.startswith("knnkit status --target shed -c 'my fleet.yaml', ")

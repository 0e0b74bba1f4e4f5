"""The process that stays behind an activation: apart from whoever started it, patient, and harmless when it wakes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from device_agent.lifecycle import watchdog
from device_agent.shared.console import signals
from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.documents import ReleaseRef
from device_agent.shared.protocol.errors import Locked
from device_agent.shared.protocol.record import replace
from device_agent.store import transitions
from device_agent.store.state import StoreState
from device_agent.store.store import Store
from device_agent.system import clock

RELEASE, OTHER = (ReleaseRef(f"{number:064x}", "fruit", f"1.0.{number}", number) for number in (1, 2))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A device on which nothing was ever stored."""
    mask = os.umask(0o077)
    made = Store(tmp_path / "root")
    with made.changing("ann", "a test"):
        pass
    yield made
    os.umask(mask)


def waiting(seconds: float = transitions.MAX_DEADLINE, release: ReleaseRef = RELEASE) -> StoreState:
    """The state in which a release waits; long, since parameters are made when the tests are collected."""
    return transitions.begin(
        StoreState(), release, created=0, holder="ann", connection="", seconds=seconds, moment=clock.now()
    )


def over() -> StoreState:
    """The same, and its time is over."""
    state = waiting()
    assert state.pending is not None
    return replace(state, pending=replace(state.pending, deadline=state.pending.started))


# --- the process ------------------------------------------------------------------------------------------------------
class Report:
    """What the process says of itself instead of watching."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        monkeypatch.setattr(watchdog, "_watch", self._tell)

    def _tell(self, store: Store, digest: str, deadline: float) -> None:
        said: dict[str, Any] = {
            "arguments": [str(store.root), digest, deadline],
            "cwd": os.getcwd(),  # noqa: PTH109
            "open": {name: str(fd(name).readlink()) for name in map(str, range(64)) if os.path.lexists(fd(name))},
            "leads": os.getsid(0) == os.getpid(),
            "session": os.getsid(0),
            "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
            "caught": [callable(signal.getsignal(number)) for number in signals.SIGNALS],
        }
        os.read(watchdog._PIPE, 1)
        said["made"] = self.path.with_name("made").exists()
        self.path.with_name("part").write_text(json.dumps(said))
        self.path.with_name("part").rename(self.path)

    def read(self) -> dict[str, Any]:
        give_up = time.monotonic() + 60.0
        while not self.path.exists():
            assert time.monotonic() < give_up, "it says nothing"
            time.sleep(0.01)
        found: dict[str, Any] = json.loads(self.path.read_text())
        return found


def fd(name: str) -> Path:
    return Path("/proc/self/fd", name)


def open_pipes() -> set[str]:
    """The pipes of this process, by names that no other has."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(str(path.readlink()))
    return {name for name in found if name.startswith("pipe:")}


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Report]:
    """Whoever starts it catches signals, as the agent does, whatever ran these tests has them do."""
    before = [signal.signal(number, lambda *_: None) for number in signals.SIGNALS]
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.SIGNALS)
    yield Report(tmp_path / "report", monkeypatch)
    for number, handler in zip(signals.SIGNALS, before):
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def test_it_has_nothing_of_whoever_started_it_but_the_end_of_a_pipe(store: Store, report: Report) -> None:
    readable, writable = os.pipe()  # as the pipe of an SSH connection, which must be able to end
    with watchdog.left_behind(store, "digest", 123.5):
        os.close(writable)
        assert os.read(readable, 1) == b"", "it holds what was open"
        os.close(readable)
        report.path.with_name("made").touch()
        assert not report.path.exists()
    said = report.read()
    assert said["arguments"] == [str(store.root), "digest", 123.5]
    assert said["cwd"] == "/"
    assert [said["open"].pop(name) for name in "012"] == [os.devnull] * 3
    assert [name for name in said["open"] if said["open"][name].startswith("pipe:")] == ["3"]
    assert list(said["open"]) == ["3"]
    assert (said["leads"], said["session"] == os.getsid(0)) == (False, False), "no terminal is its own, or can be"
    assert (said["blocked"], said["caught"]) == ([], [False] * 3)
    assert said["made"], "it was to wait for the state to be made"


def test_whoever_started_it_is_as_before_and_waits_for_no_child(store: Store, report: Report) -> None:
    before, pipes, born = signal.pthread_sigmask(signal.SIG_BLOCK, []), open_pipes(), children()
    caught = [signal.getsignal(number) for number in signals.SIGNALS]
    with watchdog.left_behind(store, "digest", 1.0):
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
        assert [signal.getsignal(number) for number in signals.SIGNALS] == caught
        assert children() <= born
    report.read()
    assert open_pipes() <= pipes


def test_it_is_told_also_where_the_state_is_not_made(store: Store, report: Report) -> None:
    with pytest.raises(OSError, match="full"), watchdog.left_behind(store, "digest", 1.0):
        raise OSError("full")
    assert report.read()["made"] is False


def test_no_signal_is_heard_until_the_process_is_itself(
    store: Store, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is raised in a forked copy of the caller's stack would run the caller's clean-up twice."""
    genuine, blocked = os.fork, list[set[int]]()

    def fork() -> int:
        blocked.append(set(signal.pthread_sigmask(signal.SIG_BLOCK, [])))
        return genuine()

    monkeypatch.setattr(os, "fork", fork)
    with watchdog.left_behind(store, "digest", 1.0):
        assert [set(signals.SIGNALS) <= found for found in blocked] == [True]
    report.read()


# --- watching ---------------------------------------------------------------------------------------------------------
class Clock:
    """Uptime that only passes while the watchdog sleeps, from a moment of this boot on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, then: Callable[[], None] = lambda: None) -> None:
        self.at, self.slept, self.then = clock.uptime(), list[float](), then
        monkeypatch.setattr(watchdog.os, "read", lambda descriptor, size: b"")
        monkeypatch.setattr(watchdog.time, "sleep", self.sleep)
        monkeypatch.setattr(watchdog.clock, "uptime", lambda: self.at)

    def sleep(self, seconds: float) -> None:
        assert len(self.slept) < 1000
        self.slept.append(seconds)
        self.at += seconds
        self.then()


def state_of(store: Store) -> StoreState:
    return json_codec.loads(StoreState, store.state_file.read_bytes())


def test_it_looks_each_second_and_goes_back_at_the_deadline(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.commit(waiting(2.5))
    time_ = Clock(monkeypatch)
    watchdog._watch(store, RELEASE.digest, time_.at + 2.5)
    assert time_.slept == pytest.approx([1.0, 1.0, 0.5])
    assert state_of(store).pending is None
    (_, reverted) = [json.loads(line) for line in store.history_file.read_text().splitlines()]
    assert (reverted["what"], reverted["why"]) == ("reverted", "no confirmation within 2.5 s")


def test_it_ends_when_what_it_watches_waits_no_more(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.commit(waiting())
    time_ = Clock(monkeypatch, then=lambda: store.commit(StoreState()))
    watchdog._watch(store, RELEASE.digest, time_.at + 600.0)
    assert time_.slept == [1.0]


def test_it_waits_for_the_activation_to_be_written_before_it_looks(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch)
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(watchdog.os, "read", lambda descriptor, size: asked.append((descriptor, size)))
    watchdog._watch(store, RELEASE.digest, clock.uptime() + 600.0)
    assert asked == [(watchdog._PIPE, 1)]


def test_a_device_that_is_gone_is_not_made_anew(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    gone = Store(store.root / "gone")
    watchdog._watch(gone, RELEASE.digest, 0.0)
    assert not gone.root.exists()


@pytest.mark.parametrize("error", [Locked("somebody is at work"), OSError("a worn disk")])
def test_what_it_cannot_do_the_next_command_does(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    store.commit(over())
    Clock(monkeypatch)
    asked: list[tuple[Any, ...]] = []

    def refuse(*arguments: Any, **named: Any) -> None:
        asked.append((*arguments, named))
        raise error

    monkeypatch.setattr(store, "changing", refuse)
    watchdog._watch(store, RELEASE.digest, 0.0)
    assert asked == [("watchdog", "revert", {"wait": 30.0})], "a command that is at work may take its time"


@pytest.mark.parametrize(
    ("state", "digest", "waits"),
    [
        (StoreState(), RELEASE.digest, False),
        (waiting(), RELEASE.digest, True),
        (waiting(), OTHER.digest, False),
        (over(), RELEASE.digest, False),
    ],
    ids=["nothing", "this one", "another", "over"],
)
def test_it_watches_one_activation(store: Store, state: StoreState, digest: str, waits: bool) -> None:
    store.commit(state)
    assert watchdog._waits(store, digest) is waits


@pytest.mark.parametrize("damage", [b"{", None], ids=["damaged", "a directory"])
def test_a_state_that_cannot_be_read_now_may_be_read_later(store: Store, damage: bytes | None) -> None:
    store.commit(waiting())
    if damage is None:
        store.state_file.unlink()
        store.state_file.mkdir()
    else:
        store.state_file.write_bytes(damage)
    assert watchdog._waits(store, RELEASE.digest)
    assert store.state_file.name == constants.STATE_FILE

"""Two hosts that provision one board at once over real sshd: both end well, and nothing is left lying on the board."""

from __future__ import annotations

import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest
from support.halved import Halved
from support.tiny import PROBE, make_tiny_wheels, want_tiny_wheels

import device_agent
from device_agent.bootstrap.upload_dirs import started
from knnkit.errors import DeviceLocked, Unreachable
from knnkit.provision import Provisioned, environment, install, provision
from knnkit.transport.local import LocalTransport
from knnkit.transport.ssh.connection import SshTransport

if TYPE_CHECKING:
    from conftest import Dial


@dataclass(frozen=True)
class HasPython:
    """Facts of the board: its Python."""

    python: tuple[int, int, int] = (3, 11, 2)
    python_path: str = sys.executable


class Event(threading.Event):
    """An event that must come."""

    def reached(self) -> None:
        assert self.wait(30.0)


class Line:
    """A real connection. `at_half` is called in the middle of the first file, `before` ahead of a command."""

    def __init__(self, inner: SshTransport) -> None:
        self.inner = inner
        self.at_half: Callable[[], object] | None = None
        self.before: Callable[[str], object] = lambda command: None
        self.offsets: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def run(self, argv: Any, **named: Any) -> Any:
        if "-I" in argv:
            self.before(argv[3])
        return self.inner.run(argv, **named)

    def append(self, source: BinaryIO, remote: str, *, offset: int, **named: Any) -> None:
        self.offsets.append(offset)
        then, self.at_half = self.at_half, None
        self.inner.append(Halved(source, then) if then else source, remote, offset=offset, **named)


@dataclass
class Board:
    """A root behind the suite's server, and hosts that provision it."""

    root: Path
    wheels: Path
    dial: Dial
    lines: list[Line] = field(default_factory=list)

    def line(self) -> Line:
        self.lines.append(Line(self.dial()))
        return self.lines[-1]

    def provision(self, line: Line | None = None) -> Provisioned:
        return provision(line or self.line(), HasPython(), root=str(self.root), offline=True, wheels_dir=self.wheels)

    def left(self) -> list[str]:
        """What lies beside the environments."""
        return [path.name for path in self.root.glob("venvs/*") if not (path / "knnkit.json").is_file()]

    def assert_whole(self, done: Provisioned) -> None:
        """The environment in use runs, and nothing else lies about."""
        assert (self.root / "venv").readlink() == Path("venvs", done.environment)
        assert self.left() == []
        assert {path.name for path in self.root.iterdir()} <= {"venv", "venvs", "trust"}
        python = str(self.root / "venv/bin/python")
        assert LocalTransport().run([python, "-I", "-c", PROBE], timeout=30).exit_code == 0


@pytest.fixture
def board(tmp_path: Path, dial: Dial, monkeypatch: pytest.MonkeyPatch) -> Board:
    wheels = make_tiny_wheels(tmp_path / "wheels")
    want_tiny_wheels(monkeypatch, wheels)
    return Board(tmp_path / "root", wheels, dial)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as made:
        yield made


def test_two_hosts_at_the_same_instant_both_end_well(board: Board, pool: ThreadPoolExecutor) -> None:
    lines, root = [board.line(), board.line()], board.root
    for number in range(6):
        board.root, together = root / str(number), threading.Barrier(2)

        def host(line: Line, together: threading.Barrier = together) -> Provisioned:
            line.before = lambda command: together.wait(20.0) if command == "state" else None
            return board.provision(line)

        first, second = pool.map(host, lines)
        assert first.environment == second.environment
        assert sorted([first.changed, second.changed]) == [False, True]
        board.assert_whole(first)


def test_a_host_in_the_middle_of_its_upload_is_not_disturbed_by_one_that_is_done(
    board: Board, pool: ThreadPoolExecutor
) -> None:
    half, go_on, slow = Event(), Event(), board.line()
    slow.at_half = lambda: (half.set(), go_on.reached())
    late = pool.submit(board.provision, slow)
    half.reached()
    first = board.provision()
    go_on.set()
    second = late.result()
    assert (first.changed, first.environment) == (True, second.environment)
    assert not second.changed
    assert "another host has provisioned the board meanwhile" in second.notes[0]
    board.assert_whole(first)


def test_wheels_whose_line_was_cut_are_gone_on_with_where_they_stopped(board: Board) -> None:
    cut = board.line()
    cut.at_half = cut.inner.close
    with pytest.raises(Unreachable):
        board.provision(cut)
    (left,) = board.left()
    give_up = time.monotonic() + 30.0
    while started(left.split(".")[1]):  # until the server has seen it
        assert time.monotonic() < give_up
    again = board.line()
    done = board.provision(again)
    assert again.offsets[0] > 0
    board.assert_whole(done)


def test_a_host_whose_wheels_were_taken_up_is_told_what_became_of_them(board: Board, pool: ThreadPoolExecutor) -> None:
    """Its line was silent for so long that another host took it for broken; then it goes on."""
    half, go_on, slow = Event(), Event(), board.line()
    slow.at_half = lambda: (half.set(), go_on.reached())
    late = pool.submit(board.provision, slow)
    half.reached()
    (place,) = board.root.glob("venvs/incoming.*")
    give_up = time.monotonic() + 30.0
    while not any(path.stat().st_size for path in place.iterdir()):  # until the half is there
        assert time.monotonic() < give_up
    for path in (*place.iterdir(), place):
        os.utime(path, (time.time() - 60,) * 2)
    fast = board.line()
    first = board.provision(fast)
    assert not place.exists()
    go_on.set()
    second = late.result()
    assert (first.changed, second.changed, second.environment) == (True, False, first.environment)
    board.assert_whole(first)


def test_a_build_that_has_outlived_its_connection_keeps_its_wheels(board: Board, pool: ThreadPoolExecutor) -> None:
    """Another host comes while it is at work: it waits for its end, and finds it done."""
    first, second = board.line(), board.line()
    fifo = board.wheels.parent / "fifo"
    os.mkfifo(fifo)
    environment.PROBE = f"open({str(fifo)!r}).read()\n{PROBE}"  # the fixture puts it back
    lost = pool.submit(board.provision, first)
    with fifo.open("w"):  # it is in the middle of its proof
        first.inner.close()
        with pytest.raises(Unreachable):
            lost.result()
        asked = Event()
        second.before = lambda command: asked.set() if command == "build" else None
        late = pool.submit(board.provision, second)
        asked.reached()
    done = late.result()
    assert not done.changed
    board.assert_whole(done)


def test_a_host_that_may_not_wait_any_longer_is_told_who_is_in_the_way_and_leaves_nothing(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "LOCK_SECONDS", 0.2)
    done = board.provision()
    monkeypatch.setattr(device_agent, "__version__", "9.9")  # another environment
    handle = os.open(board.root / "venvs", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(DeviceLocked, match="another host is provisioning") as caught:
            board.provision()
    finally:
        os.close(handle)
    assert caught.value.hint == "wait, then try again"
    board.assert_whole(done)

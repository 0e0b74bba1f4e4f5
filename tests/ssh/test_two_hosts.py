"""Two hosts and one board: the real agent over real sshd, and each host is told what became of what it began."""

from __future__ import annotations

import itertools
import json
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from support.board_roots import copy_board
from support.halved import Halved
from support.releases import Releases

from knnkit.errors import Unreachable
from knnkit.fleet.device.connect import Pace
from knnkit.fleet.jobs.deploy import run_job
from knnkit.fleet.jobs.job import DeviceJob
from knnkit.fleet.report import DeviceReport, Outcome
from knnkit.fleet.targets import Target
from knnkit.release.keys import load_public_keys
from knnkit.release.package import Package, read_package
from knnkit.transport.address import Address
from knnkit.transport.base import MAX_OUTPUT, Completed
from knnkit.transport.ssh.connection import SshTransport

PACE = Pace(connect=60.0, retries=0, command=120.0, confirm=60.0)
_RUNS = itertools.count(1)


class Board:
    """A root behind the suite's server, and its agent as a person on the board calls it."""

    def __init__(self, root: Path, address: Address, releases: Releases) -> None:
        self.root, self.releases = root, releases
        self.target = Target("board", address, str(root))
        self.keys = load_public_keys([releases.public_key])

    def package(self, release: Path) -> Package:
        return read_package(release, self.keys)

    def agent(self, *words: str) -> dict[str, Any]:
        argv = [str(self.root / "venv/bin/python"), "-m", "device_agent", "--root", str(self.root), *words, "--json"]
        done = subprocess.run(argv, capture_output=True, check=False)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def deploy(
        self,
        package: Package,
        *,
        line: Line | None = None,
        wait: float = 0.0,
        confirm: float = 60.0,
        holder: str | None = None,
    ) -> tuple[str, DeviceReport]:
        """Runs one host's deploy; returns its name and what it reports."""
        named = holder or f"host {next(_RUNS)}"
        pace = replace(PACE, confirm=confirm, lock=wait)
        opener = line.open if line else Line().open
        return named, run_job(DeviceJob(self.target, package, f"nonce of {named}", named, pace=pace, opener=opener))

    def incoming(self) -> list[str]:
        """What lies where uploads are kept."""
        return [path.name for path in (self.root / "incoming").iterdir()]

    def steps(self, holder: str) -> list[str]:
        """What the board's history has under a name."""
        return [entry["what"] for entry in self.agent("history")["entries"] if entry["holder"] == holder]

    def settled(self) -> dict[str, Any]:
        """The status, once nothing is under way any more."""
        give_up = time.monotonic() + 120.0
        while True:
            status = self.agent("status")
            if status["lock"] is None and status["pending"] is None:
                return status
            assert time.monotonic() < give_up, status["lock"]
            time.sleep(0.05)


@pytest.fixture
def board(first: Path, tmp_path: Path, address: Address, releases: Releases) -> Board:
    return Board(copy_board(first, tmp_path / "root"), address, releases)


class Line:
    """Real connections on which the answer to one command is lost: `lose` names it, `when` says how.

    `before`: the command never arrives. `after`: it ends, and nobody hears. `cut`: the connection is closed while it is
    at work. `then` is called when that has happened; with `append`, before the first file is sent, and nothing is lost.
    """

    def __init__(self, lose: str = "", when: str = "after", then: Callable[[], None] = lambda: None) -> None:
        self.lose, self.when, self.then = lose, when, then

    def open(self, name: str, target: Target, timeout: float) -> Losing:
        assert target.address is not None
        self.connection = SshTransport.connect(name, target.address, timeout=timeout)
        return Losing(self, self.connection)

    def source(self, file: BinaryIO) -> BinaryIO:
        """What is read to send the model."""
        return file

    def before_install(self) -> object:
        """Is called before the device is asked to install."""


class Losing:
    """One such connection."""

    def __init__(self, line: Any, inner: SshTransport) -> None:
        self._line, self._inner = line, inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def run(
        self, argv: Sequence[str], *, timeout: float, input: bytes = b"", max_output: int = MAX_OUTPUT
    ) -> Completed:
        line, hit = self._line, self._line.lose and self._line.lose in argv

        def ask(seconds: float) -> Completed:
            return self._inner.run(argv, timeout=seconds, input=input, max_output=max_output)

        if "install" in argv:
            line.before_install()
        if not hit:
            return ask(timeout)
        line.lose = ""
        if line.when == "after":
            ask(timeout)
        elif line.when == "cut":
            with pytest.raises(Unreachable):
                ask(0.05)
        line.then()
        raise Unreachable("board: the answer was lost", reason="connection-lost")

    def append(self, source: BinaryIO, remote: str, **named: Any) -> None:
        if self._line.lose == "append":
            self._line.lose = ""
            self._line.then()
        if remote.endswith("/model.tflite.part"):
            source = self._line.source(source)
        self._inner.append(source, remote, **named)


class Event(threading.Event):
    """An event that must come."""

    def reached(self) -> None:
        assert self.wait(120.0)


class Slow(Line):
    """Waits before it opens the model's file, and again when it has sent half of it."""

    def __init__(self) -> None:
        super().__init__()
        self.waits, self.go_half, self.half, self.go_on = Event(), Event(), Event(), Event()

    def source(self, file: BinaryIO) -> BinaryIO:
        self.waits.set()
        self.go_half.reached()
        return Halved(file, lambda: (self.half.set(), self.go_on.reached()))


class Fast(Line):
    """Says when all is sent, before it asks for the installation."""

    before_install: Callable[[], object]


class Cut(Line):
    """Is cut when half of the model is sent."""

    def source(self, file: BinaryIO) -> BinaryIO:
        return Halved(file, self.cut)

    def cut(self) -> None:
        self.connection.close()


def wait_until_gone(name: str) -> None:
    """Waits until the server has seen that the connection which sent into a place has ended."""
    process = Path("/proc", name.partition(".")[2].partition("-")[0])
    give_up = time.monotonic() + 60.0
    while process.exists():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def running(status: dict[str, Any]) -> str:
    version: str = status["committed"]["version"]
    return version


def test_an_activation_whose_answer_was_lost_is_taken_back_by_its_name(board: Board, releases: Releases) -> None:
    host, report = board.deploy(board.package(releases["iris-next"]), line=Line("install"))
    assert (report.outcome, report.exit_code) == (Outcome.ROLLED_BACK, 1)
    assert board.steps(host)[-2:] == ["activated", "reverted"]
    assert running(board.settled()) == "1.0.0"
    assert board.agent("history")["entries"][-1]["why"] == f"given up by {host}"


def test_another_hosts_activation_of_the_same_release_stays_and_is_named(board: Board, releases: Releases) -> None:
    package = board.package(releases["iris-next"])
    board.agent("stage", str(releases["iris-next"]))

    def ben() -> None:
        board.agent("activate", package.digest, "--holder", "ben@desk 1")

    host, report = board.deploy(package, line=Line("activate", "before", ben))
    assert (report.outcome, report.exit_code) == (Outcome.LOCKED, 5)
    assert "ben@desk 1 activated 1.1.0, which waits" in report.message
    assert board.agent("status")["pending"]["version"] == "1.1.0"
    assert board.agent("confirm", package.digest, "--holder", "ben@desk 1")["already"] is False
    assert board.steps(host) == []
    assert running(board.settled()) == "1.1.0"


@pytest.mark.parametrize("lose", ["install", "confirm"])
def test_what_was_confirmed_counts_whoever_heard_of_it(board: Board, releases: Releases, lose: str) -> None:
    package = board.package(releases["iris-next"])

    def somebody_confirms() -> None:
        board.agent("confirm", package.digest)

    line = Line("install", then=somebody_confirms) if lose == "install" else Line("confirm")
    host, report = board.deploy(package, line=line)
    assert (report.outcome, report.exit_code) == (Outcome.COMMITTED, 0)
    assert board.steps(host)[-2:] == ["activated", "confirmed"]
    assert running(board.settled()) == "1.1.0"


def test_a_host_that_comes_back_after_the_deadline_is_told_that_the_board_went_back(
    board: Board, releases: Releases
) -> None:
    def wait_for_the_board() -> None:
        board.settled()

    _, report = board.deploy(
        board.package(releases["iris-next"]), line=Line("install", then=wait_for_the_board), confirm=1.0
    )
    assert (report.outcome, report.exit_code) == (Outcome.ROLLED_BACK, 1)
    assert report.message.endswith("the device went back: no confirmation within 1 s")
    assert running(board.settled()) == "1.0.0"


def test_a_command_that_was_cut_at_work_is_never_called_rolled_back_unless_it_was(
    board: Board, releases: Releases
) -> None:
    host, report = board.deploy(board.package(releases["iris-next"]), line=Line("install", "cut"))
    status = board.settled()
    assert running(status) == "1.0.0"
    if report.outcome is Outcome.ROLLED_BACK:
        assert board.steps(host)[-1] == "reverted"
    else:
        assert (report.outcome, report.exit_code) == (Outcome.UNREACHABLE, 3)
        assert "if the release was activated, the device returns" in report.message


@pytest.mark.parametrize("committed", [True, False])
def test_a_host_whose_upload_was_overtaken_goes_on_with_what_the_other_brought(
    board: Board, releases: Releases, committed: bool
) -> None:
    """The device has taken the other's, and with it every place into which that release was sent."""
    package = board.package(releases["iris-next"])

    def ben() -> None:
        if committed:
            assert board.deploy(package)[1].outcome is Outcome.COMMITTED
        else:
            board.agent("install", str(releases["iris-next"]), "--holder", "ben@desk 1")

    _, report = board.deploy(package, line=Line("append", then=ben))
    expected = Outcome.UNCHANGED if committed else Outcome.LOCKED
    assert (report.outcome, report.reason) == (expected, "" if committed else "locked"), report.message
    assert board.incoming() == []


def test_what_one_host_sends_never_ends_in_what_another_has_sent(board: Board, releases: Releases) -> None:
    """The slow one opens its file when the other has sent all, and is in the middle of it while that is installed."""
    package = board.package(releases["iris-next"])
    slow, fast = Slow(), Fast()
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(board.deploy, package, line=slow)
        slow.waits.reached()
        fast.before_install = lambda: (slow.go_half.set(), slow.half.reached())
        _, first = board.deploy(package, line=fast)
        slow.go_on.set()
        _, second = late.result()
    assert (first.outcome, first.resumed_bytes) == (Outcome.COMMITTED, 0), first.message
    assert second.outcome is Outcome.UNCHANGED, second.message
    assert running(board.settled()) == "1.1.0"
    assert board.agent("verify", package.digest)["release"]["digest"] == package.digest
    assert board.incoming() == []


def test_an_upload_whose_line_was_cut_goes_on_where_it_stopped(board: Board, releases: Releases) -> None:
    package = board.package(releases["iris-next"])
    size = next(file.size for file in package.files if file.name == "model.tflite")
    _, report = board.deploy(package, line=Cut())
    assert report.outcome is Outcome.UNREACHABLE
    (left,) = board.incoming()
    wait_until_gone(left)
    _, again = board.deploy(package)
    assert again.outcome is Outcome.COMMITTED, again.message
    assert size // 2 <= again.resumed_bytes < package.size
    assert again.sent_bytes + again.resumed_bytes == package.size
    assert board.incoming() == []


@pytest.mark.parametrize("staged", [True, False])
@pytest.mark.parametrize("wait", [0.0, 60.0])
def test_two_hosts_with_one_release_at_once_are_both_told_the_truth(
    board: Board, releases: Releases, tmp_path: Path, wait: float, staged: bool
) -> None:
    """Each round both begin at the same instant; whichever command meets which, what they report is what is so."""
    for number in range(3):
        version = f"2.0.{number}"
        release = releases.variant("iris-next", tmp_path / version, sequence=100 + number, version=version)
        package, together = board.package(release), threading.Barrier(2)
        if staged:
            board.agent("stage", str(release))

        def deploy(package: Package = package, together: threading.Barrier = together) -> tuple[str, DeviceReport]:
            together.wait(60.0)
            return board.deploy(package, wait=wait)

        with ThreadPoolExecutor(2) as pool:
            both = [job.result() for job in [pool.submit(deploy), pool.submit(deploy)]]
        runs = running(board.settled())
        told = [(report.outcome, report.reason, report.message) for _, report in both]
        for host, report in both:
            became = (board.steps(host) or ["nothing"])[-1]
            assert report.outcome in MEETING[became], (became, told)
            assert not report.good or runs == version, (runs, told)
        first, second = sorted((report.outcome for _, report in both), key=lambda outcome: outcome.value)
        assert first is Outcome.COMMITTED, told
        assert second is Outcome.UNCHANGED or (not wait and second is Outcome.LOCKED), told
        assert runs == version, (runs, told)
        assert board.incoming() == []


#: What became of what a host began -> what it may report.
MEETING = {
    "confirmed": {Outcome.COMMITTED},
    "nothing": {Outcome.UNCHANGED, Outcome.LOCKED},
    "staged": {Outcome.UNCHANGED, Outcome.LOCKED},
}

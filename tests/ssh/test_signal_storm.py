"""Storms of signals into `knnkit deploy` to real devices: each is on one release, and the report says which."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import sshd
from support.board_roots import copy_board
from support.releases import Releases

from device_agent.shared.protocol import json_codec
from knnkit.fleet.report import EXIT_INTERRUPTED, DeviceReport, FleetReport, Outcome

ROOT = Path(__file__).parents[2]
COUNT = 3
CONFIRM = 2.0
#: For a deploy that must succeed, on a machine of any speed.
PATIENT = ("--wait", "60s", "--confirm-within", "60s")
STORM = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Fleet:
    """Devices d0, d1, ... with release `iris` committed, and a deploy.yaml that names them."""

    roots: tuple[Path, ...]
    config: Path

    def agent(self, number: int, *words: str) -> dict[str, object]:
        root = self.roots[number]
        argv = [str(root / "venv/bin/python"), "-m", "device_agent", "--root", str(root), *words, "--json"]
        found: dict[str, object] = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
        return found

    def settled(self, number: int) -> str:
        """The version that is committed once nothing is pending."""
        give_up = time.monotonic() + 60.0
        while (status := self.agent(number, "status"))["pending"]:
            assert time.monotonic() < give_up, "it never went back"
            time.sleep(0.1)
        return str(status["committed"]["version"])  # type: ignore[index]

    def floor(self) -> int:
        """The highest sequence that a device has committed."""
        return max(int(str(self.agent(number, "status")["floor"])) for number in range(COUNT))

    def deploy(self, release: Path, *words: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "knnkit", "deploy", "-c", str(self.config), "--release", str(release), *words]
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


@pytest.fixture(scope="module")
def fleet(first: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("storm")
    with contextlib.ExitStack() as stack:
        servers = []
        for n in range(COUNT):
            servers.append(sshd.start(folder / f"server{n}", host=f"127.0.4.{n + 1}"))
            stack.callback(servers[-1].stop)
        yield _made(folder, first, servers)


def _made(folder: Path, board: Path, servers: list[sshd.Sshd]) -> Fleet:
    roots = tuple(copy_board(board, folder / f"root{n}") for n in range(COUNT))
    (folder / "known_hosts").write_text("".join(server.known_hosts.read_text() for server in servers))
    (folder / "ssh_config").write_text("")
    lines = "".join(
        f"    - {{name: d{n}, host: {server.host}, port: {server.port}, user: {server.user}, root: '{roots[n]}', "
        f"identity: '{server.identity}'}}\n"
        for n, server in enumerate(servers)
    )
    config = folder / "deploy.yaml"
    config.write_text(
        f"fleet:\n  known_hosts: known_hosts\n  ssh_config: {folder / 'ssh_config'}\n  targets:\n{lines}"
        f"rollout: {{waves: [100%], confirm_within: {CONFIRM:g}s, concurrency: 2, connect_retries: 0}}\n"
    )
    return Fleet(roots, config)


def storm(process: subprocess.Popen[str], begin: str, signals: list[int], seed: int) -> tuple[str, str]:
    """Sends the signals, at moments that the seed chooses, once the run has said `begin`; returns what it said."""
    rng = random.Random(seed)
    assert process.stderr
    said = []
    for line in process.stderr:
        said.append(line)
        if begin in line:
            break
    for number in signals:
        try:
            process.wait(rng.uniform(0.0, 0.3))
        except subprocess.TimeoutExpired:
            process.send_signal(number)
    out, err = process.communicate(timeout=120)
    err = "".join(said) + err
    assert "Traceback" not in err, err
    assert "Exception" not in err, err
    return out, err


def fits(device: DeviceReport, before: str, after: str, now: str) -> bool:
    """Whether what a report says of a device is what it runs."""
    if device.outcome in (Outcome.COMMITTED, Outcome.UNCHANGED):
        return now == after
    if device.outcome is Outcome.FAILED and device.reason == "left":
        return now in (before, after)
    return now == before


def all_good(report: FleetReport) -> bool:
    """Whether each device was confirmed in time, which a slow machine may miss."""
    return all(device.good for device in report.devices)


@pytest.mark.parametrize(
    ("begin", "signals"),
    [
        ("d0: activate", [signal.SIGTERM]),
        ("d0: activate", [signal.SIGHUP] * 3),
        ("d1: connect", [signal.SIGINT] * 2),
        ("d0: activate", [signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGINT]),
        ("d0: confirm", [*STORM] * 8),
    ],
    ids=["once", "hung up", "twice at first", "four times", "a storm at the end"],
)
def test_each_device_is_on_one_release_and_the_report_says_which(
    begin: str, signals: list[int], fleet: Fleet, releases: Releases, tmp_path: Path
) -> None:
    version, sequence = f"2.0.{begin[-3:]}{len(signals)}", 1000 + fleet.floor()
    release = releases.variant("iris", tmp_path / "release", sequence=sequence, version=version)
    before = [fleet.settled(number) for number in range(COUNT)]
    with fleet.deploy(release, "--json", "--wait", "20s") as process:
        out, err = storm(process, begin, signals, seed=len(signals))
    report = json_codec.loads(FleetReport, out)
    assert process.returncode == report.exit_code, err
    assert report.exit_code == (EXIT_INTERRUPTED if report.interrupted else int(not all_good(report))), err
    for number, device in enumerate(report.devices):
        assert fits(device, before[number], version, fleet.settled(number)), device


def test_a_person_hears_of_every_device_and_the_next_run_finishes(
    fleet: Fleet, releases: Releases, tmp_path: Path
) -> None:
    release = releases.variant("iris", tmp_path / "release", sequence=9000, version="3.0.0")
    with fleet.deploy(release, "--wait", "20s") as process:
        out, _ = storm(process, "d0: activate", [signal.SIGINT, signal.SIGINT], 1)
    assert process.returncode == EXIT_INTERRUPTED
    assert all(f"\nd{number} " in out for number in range(COUNT))
    with fleet.deploy(release, *PATIENT) as again:  # one that was left is held for as long as it waits
        again.communicate(timeout=120)
    assert again.returncode == 0
    assert [fleet.settled(number) for number in range(COUNT)] == ["3.0.0"] * COUNT
    # What another test left of another release's upload may lie there for a week.
    digest = str(fleet.agent(0, "status")["answering"])
    assert [list((root / "incoming").glob(f"{digest}*")) for root in fleet.roots] == [[]] * COUNT


def test_answers_on_the_host_are_whole_or_not_there(fleet: Fleet, tmp_path: Path) -> None:
    rows, answers = tmp_path / "rows.csv", tmp_path / "answers.csv"
    classify = [sys.executable, "-m", "knnkit", "classify", "-c", str(fleet.config), "--input", str(rows)]
    answers.write_text("older answers\n")
    for text, code, left in (
        ("5.1,3.5,1.4,0.2\n" * 2000 + "5.1,x,1.4,0.2\n", 2, "older answers\n"),
        ("5.1,3.5,1.4,0.2\n" * 3, 0, "setosa\n" * 3),
    ):
        rows.write_text(text)
        argv = [*classify, "--target", "d0", "--output", str(answers)]
        done = subprocess.run(argv, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
        assert done.returncode == code, done.stderr
        assert answers.read_text() == left
        assert {path.name for path in tmp_path.iterdir()} == {"rows.csv", "answers.csv"}
    argv = [*classify, "--target", "d0", "--output", str(rows)]
    done = subprocess.run(argv, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 2
    assert "is the file with the rows" in done.stderr
    assert rows.read_text() == "5.1,3.5,1.4,0.2\n" * 3

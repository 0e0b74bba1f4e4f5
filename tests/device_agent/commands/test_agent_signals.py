"""Storms of signals into the agent, at any moment: one release answers, nothing is half-written, nobody sees Python."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from support.device import Device
from support.releases import Releases

from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants, json_codec, reports

STORM = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: What a command may end with: its work was done, or it was interrupted.
CODES = (0, 130)


def rains_on(process: subprocess.Popen[bytes], seed: int, *, count: int = 12, within: float = 0.5) -> None:
    """Waits until the process takes signals, then sends it some, at moments that a seed chooses."""
    rng = random.Random(seed)
    while process.poll() is None and not takes_signals(process.pid):
        time.sleep(0.001)
    for pause in sorted(rng.uniform(0.0, within) for _ in range(count)):
        try:
            process.wait(pause / count)
        except subprocess.TimeoutExpired:
            process.send_signal(rng.choice(STORM))


def takes_signals(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return False
    caught = int(next(line for line in text.splitlines() if line.startswith("SigCgt")).split()[1], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def storm(device: Device, seed: int, *arguments: str | Path, **more: Any) -> tuple[int, bytes, bytes]:
    """Runs a command in a storm; returns its exit code and what it said."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
    with device.popen(*arguments, **streams) as process:
        rains_on(process, seed)
        out, err = process.communicate(timeout=60)
    assert b"Traceback" not in err, err.decode()
    assert b"Exception" not in err, err.decode()
    return process.returncode, out or b"", err or b""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, releases: Releases) -> tuple[Device, str, str]:
    """A device with a committed release and a newer one that is staged."""
    device = Device(tmp_path_factory.mktemp("two") / "root", releases)
    return device, device.install(releases["iris"]), device.stage(releases["iris-next"])


@pytest.mark.parametrize("seed", range(4))
def test_a_deployment_in_a_storm_is_on_the_one_release_or_on_the_other(
    seed: int, two: tuple[Device, str, str], releases: Releases
) -> None:
    device, old, new = two
    trial = ("--deadline", "600")
    steps = (
        ("stage", releases["iris-next"]),
        ("activate", new, *trial),
        ("rollback",),
        ("install", releases["iris-next"], *trial),
        ("confirm", new),
        ("rollback",),
    )
    for number, words in enumerate(steps):
        code, _, err = storm(device, 10 * seed + number, *words)
        assert code in (*CODES, constants.EXIT_FAILED), err.decode()
        assert code != 130 or b"interrupted" in err
        assert (b"to see which release answers" in err) == (code == 130 and words[0] != "stage")
        assert device.answering() in (old, new)
    if device.ask("status")["pending"]:
        device.ask("rollback")
    status = device.ask("status")
    assert status["lock"] is None
    assert {path.name for path in (device.root / constants.INCOMING_DIR).iterdir()} == set()
    serials = [entry["serial"] for entry in device.ask("history")["entries"] if entry["serial"]]
    assert serials == list(range(1, len(serials) + 1))


@pytest.mark.parametrize("seed", range(4))
def test_answers_in_a_file_are_whole_or_not_there(
    seed: int, two: tuple[Device, str, str], releases: Releases, tmp_path: Path
) -> None:
    device = two[0]
    rows = Golden.from_bytes((releases["iris"] / constants.GOLDEN_FILE).read_bytes()).rows
    text = "".join(",".join(map(str, row)) + "\n" for row in rows.tolist()) * 4000
    (tmp_path / "rows.csv").write_text(text)
    out = tmp_path / "labels.csv"
    code, _, _ = storm(device, seed, "classify", "--input", tmp_path / "rows.csv", "--output", out)
    assert code in CODES
    assert {path.name for path in tmp_path.iterdir()} <= {"rows.csv", "labels.csv"}
    assert out.exists() == (code == 0)
    assert code or out.read_text().count("\n") == text.count("\n")


@pytest.mark.parametrize("number", STORM)
def test_whatever_the_signal_a_command_ends_with_130_and_one_json_document(
    number: int, two: tuple[Device, str, str]
) -> None:
    device = two[0]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with device.popen("classify", "--json", **streams) as process:
        while not takes_signals(process.pid):
            time.sleep(0.001)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json_codec.loads(reports.Problem, out).reason == "interrupted"
    assert err.decode().splitlines()[0] == "device_agent: interrupted"


def test_a_storm_over_a_stream_loses_no_answer_to_what_was_read(two: tuple[Device, str, str]) -> None:
    device = two[0]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    for seed in range(3):
        rng = random.Random(seed)
        with device.popen("classify", "--stream", **streams) as process:
            assert process.stdin
            assert process.stdout
            process.stdin.write(b"5.1,3.5,1.4,0.2\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"setosa\n"
            for _ in range(rng.randrange(1, 40)):
                process.send_signal(signal.SIGHUP)  # loads the release again
            process.stdin.write(b"6.7,3.0,5.2,2.3\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"virginica\n"
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, b"", b"")


def test_a_signal_that_was_ignored_from_outside_stays_so(two: tuple[Device, str, str]) -> None:
    device = two[0]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    argv = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *device.argv("classify")]
    with subprocess.Popen(argv, env=device.env(), **streams) as process:
        while not takes_signals(process.pid):
            time.sleep(0.001)
        process.send_signal(signal.SIGHUP)
        out, err = process.communicate(b"5.1,3.5,1.4,0.2\n", timeout=60)
    assert (process.returncode, out, err) == (0, b"setosa\n", b"")


def test_no_process_of_the_agent_outlives_a_storm(device: Device, releases: Releases) -> None:
    """But the one that waits for a confirmation, which ends with the activation."""
    device.install(releases["iris"])
    new = device.stage(releases["iris-next"])
    for seed in range(3):
        storm(device, seed, "activate", new, "--deadline", "600")
        device.run("rollback")
        give_up = time.monotonic() + 60.0
        while living(device):
            assert time.monotonic() < give_up, living(device)
            time.sleep(0.05)


def living(device: Device) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"device_agent" in words and os.fsencode(device.root) in words:
            found.append(path.parent.name)
    return found

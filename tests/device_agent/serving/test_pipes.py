"""The pipelines of docs/streams.md, with the real clients: MQTT through a broker, and a serial line."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import shutil
import socket
import subprocess
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.device import ROOT, Device
from support.releases import Releases

from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants

DOC = (ROOT / "docs" / "streams.md").read_text()
WAIT = 60.0
#: An address from which nothing connects: a port that was free a moment ago is so still.
BROKER = "127.0.0.77"


def documented(program: str) -> list[str]:
    """The commands in docs/streams.md that use `program`."""
    blocks = DOC.split("```sh\n")[1:]
    return [block.split("```")[0] for block in blocks if program in block.split("```")[0]]


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [name for name in programs if not shutil.which(name) and not Path("/usr/sbin", name).exists()]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@pytest.fixture
def rows(device: Device, releases: Releases) -> list[str]:
    device.install(releases["iris"])
    golden = Golden.from_bytes((releases["iris"] / constants.GOLDEN_FILE).read_bytes())
    return [",".join(map(str, row)) for row in golden.rows.tolist()]


def expected(device: Device, rows: list[str], *more: str) -> list[str]:
    return device.run("classify", *more, input="".join(row + "\n" for row in rows)).out.splitlines()


def as_shell(device: Device, command: str) -> str:
    """A documented command, with this device's agent in the place of `agent` and a program in that of python."""
    agent = " ".join(map(shlex.quote, device.argv()))
    return command.replace("agent classify", f"{agent} classify")


@contextlib.contextmanager
def broker(folder: Path) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind((BROKER, 0))
        port = probe.getsockname()[1]
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} {BROKER}\nallow_anonymous true\npersistence false\nlog_dest stderr\n")
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    process = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.PIPE)
    try:
        assert process.stderr
        assert any(b"running" in line for line in process.stderr), "it did not start"
        yield port
    finally:
        process.terminate()
        process.communicate(timeout=WAIT)


@needs("mosquitto", "mosquitto_sub", "mosquitto_pub")
def test_rows_from_an_mqtt_topic_are_answered_on_another(device: Device, rows: list[str], tmp_path: Path) -> None:
    (command,) = documented("mosquitto_sub")
    with broker(tmp_path) as port:
        command = as_shell(device, command).replace("broker.example", f"{BROKER} -p {port}")
        pipeline = subprocess.Popen(["bash", "-c", command], env=device.env(), start_new_session=True)
        listener = subprocess.Popen(
            ["mosquitto_sub", "-h", BROKER, "-p", str(port), "-t", "greenhouse/labels", "-q", "1"],
            stdout=subprocess.PIPE,
        )
        assert listener.stdout
        try:
            knocks = knock_until_answered(port, rows[0], listener.stdout.fileno())
            # Every row once: the broker keeps the order of one publisher.
            publish(port, *rows, "the end")
            answers = read_until_the_end(listener.stdout.fileno())
        finally:
            os.killpg(pipeline.pid, 15)
            listener.terminate()
            pipeline.wait(WAIT)
            listener.communicate(timeout=WAIT)
    assert len(rows) < len(answers) <= len(rows) + knocks
    assert answers[-len(rows) :] == expected(device, rows, "--output-format", "jsonl", "--digest")


@needs("mosquitto", "mosquitto_sub", "mosquitto_pub", "setpriv")
@pytest.mark.parametrize("ending", [9, 15])
def test_when_the_agent_ends_all_of_the_command_ends_and_no_later_message_is_lost(
    device: Device, rows: list[str], tmp_path: Path, ending: int
) -> None:
    (command,) = documented("mosquitto_sub")
    with broker(tmp_path) as port:
        command = as_shell(device, command).replace("broker.example", f"{BROKER} -p {port}")
        listener = subprocess.Popen(
            ["mosquitto_sub", "-h", BROKER, "-p", str(port), "-t", "greenhouse/labels", "-q", "1"],
            stdout=subprocess.PIPE,
        )
        assert listener.stdout
        started = []
        try:
            started.append(subprocess.Popen(["bash", "-c", command], env=device.env(), start_new_session=True))
            knock_until_answered(port, rows[0], listener.stdout.fileno())
            publish(port, "the end")
            read_until_the_end(listener.stdout.fileno())
            os.kill(started[0].pid, ending)  # the agent itself: it took the place of the shell
            assert started[0].wait(WAIT) == (-9 if ending == 9 else 0)
            wait_until_gone(started[0].pid)
            publish(port, *rows, "the end")
            started.append(subprocess.Popen(["bash", "-c", command], env=device.env(), start_new_session=True))
            answers = read_until_the_end(listener.stdout.fileno())
        finally:
            for process in started:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, 15)
                process.wait(WAIT)
            listener.terminate()
            listener.communicate(timeout=WAIT)
    assert answers == expected(device, rows, "--output-format", "jsonl", "--digest")


def wait_until_gone(group: int) -> None:
    """Waits until no process of a group is left, without a message that would make one notice."""
    give_up = time.monotonic() + WAIT
    while time.monotonic() < give_up:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("a program of the command goes on without the agent")


def publish(port: int, *rows: str) -> None:
    argv = ["mosquitto_pub", "-h", BROKER, "-p", str(port), "-t", "greenhouse/rows", "-q", "1", "-l"]
    subprocess.run(argv, input="".join(row + "\n" for row in rows).encode(), check=True, timeout=WAIT)


def knock_until_answered(port: int, row: str, descriptor: int) -> int:
    """Sends a row until the pipeline has subscribed and answers; returns how often: each may be answered."""
    sent = 0
    give_up = time.monotonic() + WAIT
    while time.monotonic() < give_up:
        publish(port, row)
        sent += 1
        ready, _, _ = select.select([descriptor], [], [], 0.5)
        if ready:
            return sent
    raise AssertionError("the pipeline never answered")


def read_until_the_end(descriptor: int) -> list[str]:
    """Returns the answers before that to a line which is no row."""
    lines: list[str] = []
    while '"error"' not in (line := read_line(descriptor)):
        lines.append(line)
    return lines


@needs("socat")
def test_rows_from_a_serial_line_are_answered_on_it(device: Device, rows: list[str]) -> None:
    command = documented("socat")[1]
    assert "EXEC:" in command
    controller, port = os.openpty()
    tty.setraw(controller)
    argv = shlex.split(command)
    address = argv[1].replace("/dev/ttyUSB0,b115200", os.ttyname(port))
    agent = " ".join(device.argv("classify", "--stream"))
    assert argv[2].endswith("python -m device_agent classify --stream")
    process = subprocess.Popen(["socat", address, f"EXEC:{agent}"], env=device.env())
    try:
        answers = []
        for row in ["half a l", *rows[:20]]:
            os.write(controller, row.encode() + b"\n")
            answers.append(read_line(controller))
    finally:
        process.terminate()
        process.wait(WAIT)
        os.close(controller)
        os.close(port)
    assert answers == ["", *expected(device, rows[:20])]


@needs("socat", "setpriv")
def test_a_serial_line_is_left_when_the_agent_ends(device: Device, rows: list[str]) -> None:
    controller, port = os.openpty()
    tty.setraw(controller)
    command = as_shell(device, documented("socat")[0]).replace("/dev/ttyUSB0,b115200", os.ttyname(port))
    process = subprocess.Popen(
        ["bash", "-c", command], env=device.env(), start_new_session=True, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout
        os.write(controller, b"half a l\n" + rows[0].encode() + b"\n")
        assert [read_line(process.stdout.fileno()) for _ in range(2)] == ["", *expected(device, rows[:1])]
        process.kill()
        assert process.wait(WAIT) == -9
        wait_until_gone(process.pid)
    finally:
        process.kill()
        process.communicate(timeout=WAIT)
        os.close(controller)
        os.close(port)


def read_line(descriptor: int) -> str:
    data = b""
    while not data.endswith(b"\n"):
        ready, _, _ = select.select([descriptor], [], [], WAIT)
        assert ready, "no answer came"
        data += os.read(descriptor, 1)
    return data.decode().rstrip("\r\n")

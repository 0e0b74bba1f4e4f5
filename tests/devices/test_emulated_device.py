"""The emulated boards keep their promises: bare, apart from this machine, and gone when they are gone."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from support.boards import SCRIPT, board, run_knnkit, write_ssh_config


def _commands() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it ended meanwhile
    return found


def test_pulling_the_plug_ends_every_process_of_the_board() -> None:
    mark = f"9{os.getpid()}.25"
    with board("plug", "x86_64", "bookworm") as one:
        one.ssh(f"nohup sleep {mark} >/dev/null 2>&1 </dev/null & until grep -q sleep /proc/$!/comm; do :; done")
        assert any(f"sleep {mark}" in command for command in _commands())
    assert not any(mark in command for command in _commands())
    with socket.socket() as probe:
        assert probe.connect_ex((one.said["address"], one.said["port"])) != 0
    assert not Path(one.said["ssh_config"]).exists()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_board_goes_with_the_process_that_runs_it(how: signal.Signals) -> None:
    command = [str(SCRIPT), "x86_64", "bookworm", "run", "--json", "--name", f"killed-{os.getpid()}"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        said = json.loads(process.stdout.readline())  # type: ignore[union-attr]
        first = os.pidfd_open(said["first"])
        try:
            process.send_signal(how)
            ended, _, _ = select.select([first], [], [], 60)
            assert ended, "the board's first process is still there"
        finally:
            os.close(first)
    subprocess.run([*command[:3], "remove", *command[5:]], check=True, capture_output=True)


def test_the_board_cannot_write_this_machine_s_files_or_its_own_system() -> None:
    before = _users()
    with board("apart", "x86_64", "bookworm") as one:
        assert "cannot" in one.ssh("touch /usr/x /etc/x 2>&1; true")
        one.ssh("echo hello > ~/note")
        assert one.ssh("id", "-un").strip() == "pi"
        assert _users() == before
        assert not any(Path(home, "note").exists() for home in ("/home/pi", Path.home()))


def _users() -> list[str]:
    """What this machine knows of the board's user."""
    return [line for line in Path("/etc/passwd").read_text().splitlines() if line.startswith("pi:")]


def test_what_a_board_wrote_outlives_a_stop_and_not_a_remove() -> None:
    name = f"keeps-{os.getpid()}"

    def act(action: str) -> str:
        command = [str(SCRIPT), "x86_64", "bookworm", action, "--name", name]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout

    try:
        login = act("start").split(None, 1)[1].split()
        assert act("start").split(None, 1)[1].split() == login  # it runs already
        subprocess.run([*login, "echo kept > note"], check=True, timeout=60)
        act("stop")
        assert (
            subprocess.run([*act("start").split(None, 1)[1].split(), "cat", "note"], capture_output=True).stdout
            == b"kept\n"
        )
        act("remove")
        assert subprocess.run([*act("start").split(None, 1)[1].split(), "ls"], capture_output=True).stdout == b""
    finally:
        act("remove")


@pytest.mark.parametrize("size", ["8M", "60M"])
def test_a_board_without_room_is_refused_before_anything_is_written(size: str, tmp_path: Path) -> None:
    with board("small", "x86_64", "bookworm", "--disk", size) as one:
        config = write_ssh_config(tmp_path / "ssh_config", {"small": one})
        done = run_knnkit("provision", "--offline", "--target", "small", "--ssh-config", str(config))
        assert done.returncode == 1
        assert "MiB free; the environment needs" in done.stdout + done.stderr
        assert one.ssh("ls", "-A").strip() == ""

"""Other login shells than bash, and Dropbear instead of OpenSSH: the whole life of a device over each of them."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import sshd
from support.board_roots import copy_board
from support.releases import Releases
from support.tiny import make_tiny_wheels, want_tiny_wheels

from knnkit.cli import main
from knnkit.transport.ssh.login import Between, Marks

#: Shell -> the program that it is, and the file that it reads at every login command.
SHELLS = {
    "bash": ("bash", ".bashrc"),
    "dash": ("dash", ".profile"),
    "ash": ("busybox", ".profile"),
    "mksh": ("mksh", ".mkshrc"),
    "zsh": ("zsh", ".zshenv"),
    "fish": ("fish", ".config/fish/config.fish"),
    "tcsh": ("tcsh", ".tcshrc"),
    "csh": ("tcsh", ".cshrc"),
}
#: Each shell with one server, and with the other. Both servers run `SHELL -c COMMAND`. So a whole life with one of
#: them, and a deploy and rows with the other, show what a whole life with both does.
LIVES = list(zip(SHELLS, itertools.cycle(("openssh", "dropbear"))))
OTHERS = list(zip(SHELLS, itertools.cycle(("dropbear", "openssh"))))
ROWS = "5.1,3.5,1.4,0.2\n6.7,3.0,5.2,2.3\n"
Run = Callable[..., Any]

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root, to give an account another login shell"
)


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sshd.Sshd]:
    """The server that the test names, whose account has the shell that it names, which greets at every command."""
    name, program = request.param
    binary, startup = SHELLS[name]
    if program == "dropbear" and shutil.which("dropbear") is None:
        pytest.skip("needs dropbear-bin")
    if (found := shutil.which(binary)) is None:
        pytest.skip(f"needs {binary}")
    folder = tmp_path / "server"
    folder.mkdir()
    shell = folder / name
    shell.symlink_to(found)
    login = sshd.own_login(folder, str(shell))
    greeting = folder / "home" / startup
    greeting.parent.mkdir(parents=True, exist_ok=True)
    greeting.write_text("echo 'disk 0'\n")
    running = sshd.start(folder, login=login) if program == "openssh" else sshd.start_dropbear(folder, login)
    yield running
    running.stop()


@pytest.fixture
def run(server: sshd.Sshd, no_ssh_config: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command; returns what it reports of the device, or what it printed."""
    where = ["--target", f"{server.user}@{server.host}:{server.port}", "-i", server.identity]
    where += ["--known-hosts", server.known_hosts, "--ssh-config", no_ssh_config]

    def knnkit(root: Path, *words: object) -> Any:
        capsys.readouterr()
        report = [] if words[0] == "classify" else ["--json"]
        code = main([*map(str, [*words, *where, "--root", root, *report])])
        out, err = capsys.readouterr()
        assert code == 0, (out[-3000:], err[-3000:])
        assert "disk 0" not in out + err
        return json.loads(out)["devices"][0] if report else out

    return knnkit


def answer_rows(run: Run, root: Path, folder: Path) -> None:
    """Answers a file and a stream."""
    rows, answers = folder / "my rows.csv", folder / "answers"
    rows.write_text(ROWS)
    assert run(root, "classify", "--input", rows).split() == ["setosa", "virginica"]
    run(root, "classify", "--input", rows, "--stream", "--output", answers)
    assert answers.read_text().split() == ["setosa", "virginica"]


@needs_root
@pytest.mark.parametrize("server", OTHERS, indirect=True, ids=" ".join)
def test_a_device_is_used_behind_any_login_shell_and_server(
    server: sshd.Sshd, run: Run, prepared: Path, releases: Releases, tmp_path: Path
) -> None:
    root = copy_board(prepared, tmp_path / "it's $HOME; a root!")
    assert run(root, "deploy", "--release", releases["iris"])["outcome"] == "committed"
    answer_rows(run, root, tmp_path)


@needs_root
@pytest.mark.parametrize("server", LIVES, indirect=True, ids=" ".join)
def test_a_device_lives_behind_any_login_shell(
    server: sshd.Sshd, run: Run, prepared: Path, releases: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = copy_board(prepared, tmp_path / "it's $HOME; a root!")
    for name in ("iris", "iris-next"):
        assert run(root, "deploy", "--release", releases[name])["outcome"] == "committed"
    answer_rows(run, root, tmp_path)
    assert run(root, "status")["release"]["version"] == "1.1.0"
    assert run(root, "rollback")["release"]["version"] == "1.0.0"
    for words in ("doctor", "logs", "bench", "parity", "trust --keys", "provision --offline"):
        run(root, *words.split())
    run(root, "provision", "--remove")
    assert not root.exists()
    wheels = make_tiny_wheels(tmp_path / "wheels")
    want_tiny_wheels(monkeypatch, wheels)
    run(tmp_path / "bare", "provision", "--offline", "--wheels", wheels)
    assert (tmp_path / "bare" / "venv").exists()


def test_a_login_that_exports_its_trace_adds_nothing_to_an_answer(tmp_path: Path) -> None:
    """`export SHELLOPTS; set -x` in .bashrc, where sh is bash, and both streams are one."""
    (tmp_path / "sh").symlink_to(shutil.which("bash") or "/bin/bash")
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SHELLOPTS": "xtrace:verbose"}
    marks = Marks.new()
    line = f"exec 2>&1; {marks.around(['sh', '-c', 'echo setosa; echo virginica'])}"
    done = subprocess.run(["bash", "-c", line], stdout=subprocess.PIPE, env=env, check=True)
    answer = bytearray()
    between = Between(marks, answer.extend)
    between.write(done.stdout)
    between.finish()
    merged = marks.on_stderr.begin.decode()
    assert answer.decode().replace(merged, "") == "setosa\nvirginica\n"
    assert between.exit_code == 0


@pytest.mark.parametrize("shell", SHELLS)
def test_every_word_reaches_its_command_through_any_login_shell(shell: str, tmp_path: Path) -> None:
    if (found := shutil.which(SHELLS[shell][0])) is None:
        pytest.skip(f"needs {SHELLS[shell][0]}")
    (tmp_path / shell).symlink_to(found)
    chosen = random.Random(115)  # the same words in each run
    pieces = [
        "!",
        "!!",
        "!x",
        "\\",
        "\\\\",
        "\n",
        "'",
        '"',
        "$x",
        "$(x)",
        "`x`",
        "%b",
        "\\041",
        "é",
        "\t",
        "~",
        "-n",
        " ",
    ]
    words = ["", *pieces, *("".join(chosen.choices(pieces, k=4)) for _ in range(100))]
    marks = Marks.new()
    line = marks.around(["printf", "[%s]", *words])
    done = subprocess.run([str(tmp_path / shell), "-c", line], capture_output=True, env={"HOME": str(tmp_path)})
    printed = "".join(f"[{word}]" for word in words).encode()
    assert done.stdout == marks.begin + printed + marks.end + b"0:", done.stderr

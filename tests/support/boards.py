"""Emulated boards for tests: started by scripts/emulated-device, ended with the block or with the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "emulated-device"
KINDS = {
    "x86-64-bookworm": ("x86_64", "bookworm"),
    "aarch64-bookworm": ("aarch64", "bookworm"),
    "armv7l-bookworm": ("armv7l", "bookworm"),
    "aarch64-trixie": ("aarch64", "trixie"),
    "armv7l-trixie": ("armv7l", "trixie"),
}


@dataclass(frozen=True)
class Board:
    """A board that is switched on; `login` is what ssh needs to get there."""

    name: str
    arch: str
    dist: str
    said: dict[str, Any]

    def ssh(self, *command: str, input: str | None = None, check: bool = True) -> str:
        """Runs a command on the board as its user; returns the text that it printed."""
        argv = ["ssh", "-F", self.said["ssh_config"], self.said["name"], *command]
        done = subprocess.run(argv, input=input, capture_output=True, text=True, timeout=300, check=False)
        assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout


@contextmanager
def board(name: str, arch: str, dist: str, *options: str) -> Iterator[Board]:
    """Starts a board; it stops with the block, or when this process dies, because its standard input ends."""
    own = f"{name}-{os.getpid()}"
    command = [str(SCRIPT), arch, dist, "run", "--json", "--name", own, *options]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, f"{name} did not start"
        yield Board(name, arch, dist, json.loads(line))
    finally:
        process.stdin.close()
        process.stdout.close()
        assert process.wait(timeout=120) == 0


@dataclass(frozen=True)
class Fleet:
    """The boards, and an ssh_config that names them."""

    boards: dict[str, Board]
    ssh_config: Path

    def knnkit(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Runs knnkit as a user would, on all boards."""
        targets = [word for name in self.boards for word in ("--target", name)]
        return run_knnkit(*words, *targets, "--ssh-config", str(self.ssh_config), **options)


def run_knnkit(*words: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "knnkit", *words],
        input=input,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def write_ssh_config(path: Path, boards: dict[str, Board]) -> Path:
    """Writes an ssh_config that gives each board its plain name."""
    texts = [
        Path(one.said["ssh_config"]).read_text().replace(one.said["name"], name, 1) for name, one in boards.items()
    ]
    path.write_text("".join(texts))
    return path

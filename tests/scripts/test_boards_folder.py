"""Where emulated boards lie: with the person who typed the command, also under sudo."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


def folder(**env: str) -> str:
    program = "import emulated_device\nprint(emulated_device.boards_folder())"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SUDO_", "KNNKIT_BOARDS"))}
    argv = [sys.executable, "-c", program]
    return subprocess.check_output(argv, text=True, cwd=SCRIPTS, env=clean | env).strip()


def test_it_is_under_the_home_of_who_typed_the_command() -> None:
    assert folder(HOME="/nowhere") == "/nowhere/.cache/knnkit/boards"
    assert folder(KNNKIT_BOARDS="/elsewhere") == "/elsewhere"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as sudo gives it")
def test_under_sudo_it_is_not_under_the_home_of_root() -> None:
    home = Path(pwd.getpwnam("nobody").pw_dir)
    assert folder(SUDO_USER="nobody") == str((home / ".cache/knnkit/boards").resolve())

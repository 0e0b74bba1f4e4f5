"""paramiko, loaded without `invoke`, which is 80 of 220 ms of loading and runs `Match exec` of ssh_config alone.

The rooms beside this one take paramiko from here. What runs those commands here, unlike `invoke`, leaves our standard
input to us and ends after a while.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

_MATCH_SECONDS = 10.0


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


with _hidden("invoke"):
    import paramiko
    from paramiko.agent import AgentSSH

__all__ = ["AgentSSH", "paramiko"]


def _run(command: str, **_: object) -> SimpleNamespace:
    quiet = subprocess.DEVNULL
    try:
        # The shell and the command are the user's own, as in ssh.
        done = subprocess.run(command, shell=True, stdin=quiet, stdout=quiet, timeout=_MATCH_SECONDS)  # noqa: S602
    except subprocess.TimeoutExpired:
        return SimpleNamespace(ok=False)
    return SimpleNamespace(ok=done.returncode == 0)


paramiko.config.invoke = SimpleNamespace(run=_run)  # type: ignore[attr-defined]

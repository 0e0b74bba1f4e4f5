"""paramiko, loaded without `invoke`, which is 80 of 220 ms of loading and serves its own reader of ssh_config alone.

The rooms beside this one take paramiko from here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


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

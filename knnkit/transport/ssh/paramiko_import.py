"""Imports paramiko without `invoke`, for all modules here.

`invoke` takes 80 of 220 ms, and only paramiko's own reader of ssh_config needs it.
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

"""Imports paramiko without `invoke`, for all modules here.

`invoke` takes 80 of 220 ms, and only paramiko's own reader of ssh_config needs it.
"""

from __future__ import annotations

import sys

sys.modules.setdefault("invoke", None)  # type: ignore[arg-type]
try:
    import paramiko
    from paramiko.agent import AgentSSH
finally:
    if sys.modules["invoke"] is None:
        del sys.modules["invoke"]

__all__ = ["AgentSSH", "paramiko"]

"""The agent's commands: what each takes, and which room does it. Parsing and printing only.

A room is imported when its command runs.
"""

from __future__ import annotations

from device_agent.commands import classify, diagnostics, lifecycle, trust
from device_agent.commands.options import Command

COMMANDS: dict[str, Command] = {
    "classify": classify.CLASSIFY,
    "check": diagnostics.CHECK,
    "status": diagnostics.STATUS,
    "history": diagnostics.HISTORY,
    "bench": diagnostics.BENCH,
    "doctor": diagnostics.DOCTOR,
    "verify": lifecycle.VERIFY,
    "stage": lifecycle.STAGE,
    "activate": lifecycle.ACTIVATE,
    "install": lifecycle.INSTALL,
    "confirm": lifecycle.CONFIRM,
    "rollback": lifecycle.ROLLBACK,
    "prune": lifecycle.PRUNE,
    "lock": lifecycle.LOCK,
    "unlock": lifecycle.UNLOCK,
    "trust": trust.TRUST,
}

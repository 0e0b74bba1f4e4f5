"""The agent's commands: what each takes, and which room does it. Parsing and printing only.

A room is imported when its command runs.
"""

from __future__ import annotations

from device_agent.commands import classifying, keeping, releases, reports
from device_agent.commands.shared import Command

COMMANDS: dict[str, Command] = {
    "classify": classifying.CLASSIFY,
    "check": reports.CHECK,
    "status": reports.STATUS,
    "history": reports.HISTORY,
    "bench": reports.BENCH,
    "doctor": reports.DOCTOR,
    "verify": releases.VERIFY,
    "stage": releases.STAGE,
    "activate": releases.ACTIVATE,
    "install": releases.INSTALL,
    "confirm": releases.CONFIRM,
    "rollback": keeping.ROLLBACK,
    "prune": keeping.PRUNE,
    "lock": keeping.LOCK,
    "unlock": keeping.UNLOCK,
    "trust": reports.TRUST,
}

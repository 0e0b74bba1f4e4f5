"""The agent's commands: parses their options, prints results.

The packages that do the work are imported only when a command runs.
"""

from __future__ import annotations

from device_agent.commands import classify, diagnostics, enrolment, lifecycle, ring, trust
from device_agent.commands.options import Command

COMMANDS: dict[str, Command] = {
    "classify": classify.CLASSIFY,
    "enrol": enrolment.ENROL,
    "forget": enrolment.FORGET,
    "undo": enrolment.UNDO,
    "enrolled": enrolment.ENROLLED,
    "check": diagnostics.CHECK,
    "compare": diagnostics.COMPARE,
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
    "trust": trust.TRUST,
    "ring": ring.RING,
}

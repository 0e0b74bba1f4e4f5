"""The agent's command line: parses, calls one command, prints its report; the only place of the agent that exits."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code (see `device_agent.contract`)."""
    raise NotImplementedError

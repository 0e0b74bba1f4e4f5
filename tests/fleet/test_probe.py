"""The probe, run by a real shell on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from knnkit.errors import DeviceFailed
from knnkit.fleet.facts import probe
from knnkit.transport.local import LocalTransport


def with_agent(root: Path, script: str) -> Path:
    python = root / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    return root


def test_an_agent_that_never_stops_talking_is_cut_short(tmp_path: Path) -> None:
    """The shell on the device keeps the answer in memory: it must stop listening."""
    with pytest.raises(DeviceFailed, match=r"the probe answered '\{\}'"):
        probe(LocalTransport(), str(with_agent(tmp_path, "exec yes '{}'")), timeout=60.0)


def test_an_agent_that_fails_is_told_with_its_code(tmp_path: Path) -> None:
    facts = probe(LocalTransport(), str(with_agent(tmp_path, "echo '{}'; exit 7")), timeout=60.0)
    assert facts.agent is None
    assert "ended with 7" in str(facts.agent_problem)

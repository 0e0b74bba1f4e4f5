"""The probe, run by a real shell on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from support.simulation import Board

from device_agent.shared.protocol import json_codec
from knnkit.errors import DeviceFailed
from knnkit.fleet.device.probe import probe
from knnkit.transport.base import Completed
from knnkit.transport.local import LocalTransport

BOARD = Board("greenhouse", free=123_000_000)


def with_agent(root: Path, script: str) -> Path:
    python = root / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    return root


def test_an_agent_that_never_stops_talking_is_cut_short(tmp_path: Path) -> None:
    """Neither the shell on the device nor the host may keep it all."""
    with pytest.raises(DeviceFailed, match=r"sent more than 1,048,576 bytes"):
        probe(LocalTransport(), str(with_agent(tmp_path, "exec yes '{}'")), timeout=60.0)


def test_an_agent_that_fails_is_told_with_its_code(tmp_path: Path) -> None:
    facts = probe(LocalTransport(), str(with_agent(tmp_path, "echo '{}'; exit 7")), timeout=60.0)
    assert facts.agent is None
    assert "ended with 7" in str(facts.agent_problem)


class Counting(LocalTransport):
    """Counts the commands that it runs."""

    commands = 0

    def run(self, *arguments: Any, **options: Any) -> Completed:
        self.commands += 1
        return super().run(*arguments, **options)


def test_a_device_with_an_agent_is_asked_once_and_nothing_but_its_agent(tmp_path: Path) -> None:
    transport = Counting()
    status = json_codec.dumps(BOARD.status())
    facts = probe(transport, str(with_agent(tmp_path, f"cat <<'END'\n{status}\nEND")), timeout=60.0)
    assert facts.agent == BOARD.status()
    assert facts.disk_free_bytes == BOARD.free
    assert (facts.system, facts.machine) == ("Linux", BOARD.status().device.machine)
    assert facts.writable
    assert facts.python is None
    assert transport.commands == 1


def test_a_device_whose_agent_fails_is_asked_what_mends_it(tmp_path: Path) -> None:
    transport = Counting()
    facts = probe(transport, str(with_agent(tmp_path, "exit 1")), timeout=60.0)
    assert facts.agent is None
    assert (facts.system, facts.machine) == (os.uname().sysname, os.uname().machine)
    assert facts.python is not None
    assert facts.disk_free_bytes > 0
    assert transport.commands == 2


def test_a_bare_device_is_asked_once(tmp_path: Path) -> None:
    transport = Counting()
    facts = probe(transport, str(tmp_path / "nowhere" / "yet"), timeout=60.0)
    assert (facts.system, facts.machine) == (os.uname().sysname, os.uname().machine)
    assert facts.python is not None
    assert facts.disk_free_bytes > 0
    assert facts.writable
    assert transport.commands == 1


def test_a_root_is_the_folder_that_was_named(tmp_path: Path) -> None:
    for name in ("a blank at the end ", "back\\slash\\n", "%s"):
        assert probe(LocalTransport(), str(tmp_path / name), timeout=60.0).root == str(tmp_path / name)

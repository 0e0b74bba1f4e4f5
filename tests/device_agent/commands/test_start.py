"""What the agent's commands load: a fleet with nothing to do waits for little else than `status` to start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.device import ROOT, Device
from support.releases import Releases

_PROGRAM = """
import json, sys
from device_agent import cli
code = cli.main(sys.argv[1:])
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
sys.exit(code)
"""
#: Each takes 1 to 100 ms, and none does anything for a status or a confirmation.
NOT_TO_START = {
    "cryptography", "numpy", "tflite_runtime", "ai_edge_litert", "dataclasses", "inspect", "shutil", "secrets",
    "hashlib", "zipfile", "threading", "device_agent.shared.protocol.reports",
}  # fmt: skip


#: What argparse loads by itself: from Python 3.14 on, for its colours.
OF_PYTHON = {"dataclasses", "inspect"} if sys.version_info >= (3, 14) else set()


def loaded_by(device: Device, *words: str) -> set[str]:
    argv = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{_PROGRAM}"]
    command = [*argv, "--root", str(device.root), *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stderr.splitlines()[-1])
    return set(found) - OF_PYTHON


def test_status_loads_nothing_that_it_does_not_need(device: Device, releases: Releases) -> None:
    device.install(releases["iris"])
    assert loaded_by(device, "status") & NOT_TO_START == set()


def test_a_confirmation_loads_nothing_that_it_does_not_need(device: Device, releases: Releases) -> None:
    digest = device.stage(releases["iris"])
    device.ask("activate", digest)
    assert loaded_by(device, "confirm", digest) & NOT_TO_START == set()


def test_taking_back_loads_nothing_that_it_does_not_need(device: Device, releases: Releases) -> None:
    device.ask("activate", device.stage(releases["iris"]), "--holder", "ann 1")
    found = loaded_by(device, "rollback", "--own", "--holder", "ann 1")
    assert found & (NOT_TO_START - {"device_agent.shared.protocol.reports"}) == set()


def test_installing_loads_cryptography_in_the_agent_and_numpy_in_the_child_alone(
    device: Device, releases: Releases
) -> None:
    found = loaded_by(device, "install", str(releases["iris"]))
    assert "cryptography" in found
    assert found & {"numpy", "tflite_runtime", "ai_edge_litert"} == set()


def test_one_row_loads_nothing_for_float64_or_a_golden_check(
    device: Device, releases: Releases, tmp_path: Path
) -> None:
    device.install(releases["iris"])
    (tmp_path / "one.csv").write_text("6.02,2.93,4.44,1.37\n")
    found = loaded_by(device, "classify", "--input", str(tmp_path / "one.csv"))
    assert "numpy" in found
    assert found & {
        "device_agent.inference.exact", "device_agent.shared.golden.judge", "device_agent.shared.golden.golden_set",
        "cryptography.hazmat.primitives.serialization",
    } == set()  # fmt: skip


@pytest.mark.parametrize("words", [["--help"], ["-h", "status"]])
def test_the_agents_own_help_names_every_command(device: Device, words: list[str]) -> None:
    from device_agent.commands import COMMANDS

    out = device.run(*words).out
    assert all(f"    {name} " in out for name in COMMANDS)

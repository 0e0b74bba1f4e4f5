"""The commands of a host of today, on an embedded device whose real agent is of another version than it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.documents import MORE, ROOT
from support.releases import Releases

from device_agent.shared.protocol import constants

#: The agent of today, made another: each is given the documents that it writes, and what they are made of.
AGENT = """\
import json, sys
sys.path[:0] = [{root!r}, {root!r} + "/tests"]
from device_agent import cli
from device_agent.commands import options
from device_agent.shared.console import program
from device_agent.shared.protocol import json_codec
from support.documents import grown, shrunk

class Codec:
    def __getattr__(self, name):
        return getattr(json_codec, name)

    def dumps(self, value):
        return json.dumps({change}, sort_keys=True)

    def dump_file(self, value, **_):
        return json.dumps({change}).encode()

program.json_codec = options.json_codec = Codec()
if {writes}:
    from device_agent.store import history, json_file
    history.json_codec = json_file.json_codec = options.json_codec
sys.exit(cli.main(sys.argv[4:]))
"""
NEWER = "grown(value) | ({'agent': '9.0.0'} if 'agent' in grown(value) else {})"
OLDER = "shrunk(value)"


class Operator:
    """Somebody at the command line of today's knnkit."""

    def __init__(self, folder: Path, releases: Releases) -> None:
        self.folder, self.releases = folder, releases
        self.root = folder / "root"
        self.config = folder / "deploy.yaml"
        self.config.write_text(f"fleet: {{targets: [{{host: local, name: board, root: '{self.root}'}}]}}\n")
        (self.root / constants.TRUST_DIR).mkdir(parents=True, mode=0o700)
        self.root.chmod(0o700)
        shutil.copy(releases.public_key, self.root / constants.TRUST_DIR / "signing.pem")

    def has(self, change: str, *, writes: bool = False, more: str = "") -> None:
        """Puts an agent onto the device; `writes`: the files of the device are that version's too."""
        program = self.folder / "agent.py"
        program.write_text(AGENT.format(root=str(ROOT), change=f"{change}{more}", writes=writes))
        python = self.root / "venv" / "bin" / "python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text(f'#!/bin/sh\nexec {sys.executable} {program} "$@"\n')
        python.chmod(0o755)

    def types(self, *words: str, code: int = 0) -> str:
        argv = [sys.executable, "-m", "knnkit", *words, "-c", str(self.config)]
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(argv, capture_output=True, text=True, timeout=300, env=env, check=False)
        assert done.returncode == code, done.stdout[-2000:] + done.stderr[-2000:]
        self.said = done.stderr
        return done.stdout

    def asks(self, *words: str, code: int = 0) -> dict[str, Any]:
        """Returns what a command reports of the device."""
        (device,) = json.loads(self.types(*words, "--json", code=code))["devices"]
        return dict(device)

    def deploys(self, name: str) -> dict[str, Any]:
        return self.asks("deploy", "--release", str(self.releases[name]), "--key", str(self.releases.public_key))


@pytest.fixture
def operator(tmp_path: Path, releases: Releases) -> Operator:
    return Operator(tmp_path, releases)


@pytest.mark.parametrize(("change", "writes"), [(NEWER, True), (OLDER, False)], ids=["newer", "older"])
def test_a_host_of_today_gets_every_command_through(change: str, writes: bool, operator: Operator) -> None:
    operator.has(change, writes=writes)
    python = (operator.root / "venv" / "bin" / "python").read_bytes()
    first = operator.deploys("iris")
    assert (first["outcome"], first["release"]["version"]) == ("committed", "1.0.0")
    assert operator.deploys("iris")["outcome"] == "unchanged"
    second = operator.deploys("iris-next")
    assert (second["outcome"], second["release"]["version"]) == ("committed", "1.1.0")
    assert operator.asks("status")["status"]["committed"]["version"] == "1.1.0"
    proof = operator.asks("parity")["certificate"]
    assert (proof["version"], proof["different"], proof["failures"]) == ("1.1.0", 0, [])
    rows = operator.folder / "rows.csv"
    rows.write_text("5.1,3.5,1.4,0.2\n6.7,3.0,5.2,2.3\n")
    assert operator.types("classify", "--input", str(rows)).split()[-2:] == ["setosa", "virginica"]
    assert operator.asks("logs")["outcome"] == "answered"
    assert operator.asks("doctor")["outcome"] == "answered"
    assert operator.asks("rollback")["release"]["version"] == "1.0.0"
    assert operator.asks("status")["status"]["committed"]["version"] == "1.0.0"
    assert (operator.root / "venv" / "bin" / "python").read_bytes() == python, "no other agent was put there"


def test_an_agent_of_today_that_comes_back_loses_nothing_of_a_newer_ones_state(operator: Operator) -> None:
    operator.has(NEWER, writes=True)
    operator.deploys("iris")
    operator.has("json_codec.to_plain(value)", writes=True)
    assert operator.deploys("iris-next")["outcome"] == "committed"
    found = json.loads((operator.root / constants.STATE_FILE).read_bytes())
    assert found.items() >= MORE.items()
    assert found["previous"].items() >= MORE.items()
    assert found["committed"]["version"] == "1.1.0"


@pytest.mark.parametrize("command", ["status", "parity", "rollback", "provision", "doctor"])
def test_a_host_that_is_too_old_says_so_and_leaves_the_agent_alone(command: str, operator: Operator) -> None:
    operator.has(NEWER, more=" | {'protocol': 9, 'oldest_protocol': 7, 'staged': 'in another shape'}")
    python = (operator.root / "venv" / "bin" / "python").read_bytes()
    device = operator.asks(command, code=1)
    assert device["reason"] == "knnkit-too-old"
    assert device["message"] == "board: agent 9.0.0 needs protocol 7 or later; this knnkit 0.1.0 speaks 1"
    assert device["hint"] == "in a clone of knnkit 9.0.0 or later: pip install ."
    assert (operator.root / "venv" / "bin" / "python").read_bytes() == python


def test_an_agent_that_is_too_old_is_to_be_provisioned(operator: Operator) -> None:
    operator.has("json_codec.to_plain(value)", more=" | {'protocol': 0, 'oldest_protocol': 0, 'agent': '0.0.1'}")
    device = operator.asks("parity", code=1)
    assert device["message"] == "board: version 0.0.1 speaks protocol 0; this knnkit needs 1 or later"
    assert device["hint"].startswith("knnkit provision --target board -c "), "as the file was named"
    release = ("--release", str(operator.releases["iris"]), "--key", str(operator.releases.public_key))
    plan = json.loads(operator.types("deploy", *release, "--dry-run", "--json"))["plans"][0]
    assert plan["steps"][0]["action"] == "provision"

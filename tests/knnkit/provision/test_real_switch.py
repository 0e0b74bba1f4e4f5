"""An embedded device goes from one real runtime to the other and back, as an operator does it: the release stays, and
the device proves it anew with each."""

from __future__ import annotations

import json
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from support.boards import ROOT, run_knnkit

from device_agent.shared.protocol import constants
from knnkit.provision.requirements import WHEELS

OLD, NEW, NUMPY = constants.RUNTIMES
BOTH = (OLD, NEW)
HAVE = WHEELS[platform.machine()][sys.version_info[0], sys.version_info[1]]
pytestmark = pytest.mark.skipif(OLD not in HAVE, reason="for this Python there is but one runtime")

#: Follows a runtime's own code: the nearest training rows are those before the nearest.
WRONG = """

class _Wrong:
    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def Invoke(self, subgraph):
        self._inner.Invoke(subgraph)
        for name, signature in self.GetSignatureDefs().items():
            if self.GetSubgraphIndexFromSignature(name) == subgraph:
                self.tensor(self._inner, signature["outputs"]["indices"], subgraph)[...] -= 1


_made = Interpreter.__init__


def _make(self, *arguments, **options):
    _made(self, *arguments, **options)
    self._interpreter = _Wrong(self._interpreter)


Interpreter.__init__ = _make
"""

#: Follows the agent's own code: the same.
WRONG_AGENT = """

_right = GraphRunner.run


def _run(self, queries, parts):
    _right(self, queries, parts)
    parts["indices"] -= 1


GraphRunner.run = _run
"""


class Operator:
    """Somebody at the command line, with a deploy.yaml for one device."""

    def __init__(self, folder: Path, releases: Any) -> None:
        self.folder, self.releases = folder, releases
        self.root = folder / "root"
        self.config = folder / "deploy.yaml"
        self.choose("auto")

    def choose(self, runtime: str) -> None:
        """Writes it into deploy.yaml."""
        self.config.write_text(f"fleet: {{targets: [{{host: local, root: '{self.root}', runtime: {runtime}}}]}}\n")

    def says(self, *words: str, code: int = 0) -> dict[str, Any]:
        """Returns what a command says of the device."""
        done = run_knnkit(*words, "-c", str(self.config), "--json")
        assert done.returncode == code, done.stdout[-2000:] + done.stderr[-2000:]
        document = json.loads(done.stdout)
        (device,) = document["plans" if "--dry-run" in words else "devices"]
        return dict(device)

    def deploy(self, *words: str, code: int = 0) -> dict[str, Any]:
        release = ("--release", str(self.releases["spectra"]), "--key", str(self.releases.public_key))
        return self.says("deploy", "--offline", *release, *words, code=code)

    def assert_answers_with(self, runtime: str) -> None:
        """Status and a fresh certificate name this runtime, and the answers are the reference's."""
        version = HAVE[runtime][0].partition("==")[2]
        assert self.says("status")["status"]["runtime"] == f"{runtime} {version}"
        proof = self.says("parity")["certificate"]
        assert (proof["runtime"]["name"], proof["runtime"]["version"]) == (runtime, version)
        assert proof["different"] == 0
        assert proof["identical"] + proof["equivalent"] > 100

    def assert_nothing_is_wrong(self, runtime: str, other: str) -> None:
        """The doctor finds the runtime and its NumPy well, and a bench measures it and finds no other on the disk."""
        findings = {found["name"]: found for found in json.loads(self.says("doctor")["details"])["findings"]}
        assert {name: findings[name]["level"] for name in ("numpy", "runtime")} == {"numpy": "ok", "runtime": "ok"}
        assert findings["runtime"]["message"].startswith(f"{runtime} ")
        measured = json.loads(self.says("bench")["details"])
        numpy = HAVE[runtime][1].partition("==")[2]
        assert (measured["runtime"]["name"], measured["runtime"]["numpy"]) == (runtime, numpy)
        assert runtime in measured["installed_bytes"]
        assert other not in measured["installed_bytes"]


@pytest.fixture
def operator(tmp_path: Path, releases: Any) -> Operator:
    return Operator(tmp_path, releases)


def test_a_choice_in_deploy_yaml_is_carried_out_by_the_next_deploy_and_stays(operator: Operator) -> None:
    assert operator.deploy()["certificate"]["runtime"]["name"] == OLD
    operator.choose(NEW)
    plan = operator.deploy("--dry-run")
    assert [(step["action"], step["why"]) for step in plan["steps"]] == [
        ("provision", f"the runtime is {OLD} 2.14.0, and {NEW} was chosen, after a golden check on it")
    ]
    switched = operator.deploy()
    assert (switched["outcome"], "provision" in [step["name"] for step in switched["steps"]]) == ("unchanged", True)
    assert switched["warnings"] == [f"{NEW} replaces {OLD}"]
    assert switched["certificate"]["runtime"]["name"] == NEW
    operator.assert_answers_with(NEW)
    operator.assert_nothing_is_wrong(NEW, other=OLD)
    for runtime in (NEW, "auto"):  # said again, or left to the device
        operator.choose(runtime)
        again = operator.deploy()
        assert (again["outcome"], again["sent_bytes"], again["warnings"]) == ("unchanged", 0, [])
        assert "provision" not in [step["name"] for step in again["steps"]]
        assert operator.says("provision", "--offline")["outcome"] == "unchanged"
    returned = operator.says("provision", "--offline", "--runtime", OLD)
    assert returned["certificate"]["runtime"]["name"] == OLD
    back = json.loads(returned["details"])
    assert (back["changed"], back["sent"], back["runtime"]) == (True, 0, HAVE[OLD][0])
    operator.assert_answers_with(OLD)
    assert len(list((operator.root / "venvs").iterdir())) == 2


def test_a_runtime_that_answers_wrongly_on_the_device_does_not_come_into_use(operator: Operator) -> None:
    operator.deploy("--runtime", NEW)
    operator.deploy("--runtime", OLD)
    in_use = (operator.root / "venv").readlink()
    beside = next(path for path in (operator.root / "venvs").iterdir() if path.name != in_use.name)
    with next(beside.glob(f"lib/python3*/site-packages/{NEW}/interpreter.py")).open("a") as file:
        file.write(WRONG)
    for command in (operator.deploy, lambda *words, code: operator.says("provision", "--offline", *words, code=code)):
        refused = command("--runtime", NEW, code=4)
        assert (refused["outcome"], refused["reason"]) == ("failed", "gate-failed")
        assert f"fails the golden check on {NEW}; the device keeps its old environment" in refused["message"]
        assert refused["certificate"]["runtime"]["name"] == NEW
        assert refused["certificate"]["different"] > 0
        assert (operator.root / "venv").readlink() == in_use
    operator.assert_answers_with(OLD)


def test_an_agent_that_answers_wrongly_on_the_device_does_not_come_into_use(
    operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host has another version of this code, which the device is to get."""
    operator.deploy()
    in_use = (operator.root / "venv").readlink()
    other = tmp_path / "other"
    for package in ("knnkit", "device_agent"):
        shutil.copytree(ROOT / package, other / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (other / "device_agent" / "inference" / "graph_runner.py").open("a") as file:
        file.write(WRONG_AGENT)
    with (other / "device_agent" / "__init__.py").open("a") as file:
        file.write('__version__ = "9.0.0"\n')
    monkeypatch.setattr("support.boards.ROOT", other)
    for command in (operator.deploy, lambda code: operator.says("provision", "--offline", code=code)):
        refused = command(code=4)
        assert (refused["outcome"], refused["reason"]) == ("failed", "gate-failed")
        assert "fails the golden check on the environment of knnkit" in refused["message"]
        assert refused["certificate"]["different"] > 0
        assert (operator.root / "venv").readlink() == in_use
    monkeypatch.undo()
    assert operator.says("parity")["certificate"]["different"] == 0

"""A second project meets the device of the first: each message and doctor lead out of it, and what they say works."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.board_roots import copy_board
from support.releases import Releases

from knnkit import cli
from knnkit.release import keys
from knnkit.render.sanitize import clean


class Project:
    """A folder with a key of its own and a release that it signed; the device is this machine, under one root."""

    def __init__(self, folder: Path, root: Path, release: Path, capture: pytest.CaptureFixture[str]) -> None:
        folder.mkdir()
        self.folder, self.capture = folder, capture
        self.key = keys.generate(folder / "signing")
        self.release = shutil.copytree(release, folder / "dist")
        name = json.loads((release / "release.json").read_bytes())["name"]
        (folder / "deploy.yaml").write_text(
            f"model: {{name: {name}, data: {{sklearn: iris}}}}\nsigning: {{key: signing.pem}}\n"
            f"fleet: {{targets: [{{host: local, root: '{root}'}}]}}\n"
        )
        self.run("sign", self.release, "--key", self.key.private)

    def run(self, *words: object) -> tuple[int, str]:
        self.capture.readouterr()
        code = cli.main([*map(str, words)])
        return code, self.capture.readouterr().out

    def device(self, *words: object) -> dict[str, Any]:
        (found,) = json.loads(self.run(*words, "--json")[1])["devices"]
        return dict(found)

    def deploy(self, *more: object) -> dict[str, Any]:
        return self.device("deploy", "--release", self.release, "--offline", *more)


def commands(hint: str) -> list[list[str]]:
    """The knnkit commands in a hint, as a shell would split them."""
    return [shlex.split(found)[1:] for found in re.findall(r"`(knnkit [^`]+)`", hint)]


@pytest.fixture
def second(
    prepared: Path,
    releases: Releases,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Project:
    """The device runs `iris` of the first project, which is another than the one whose folder we are in."""
    root = copy_board(prepared, tmp_path / "root")
    project = Project(tmp_path / "second", root, releases["wine"], capsys)
    monkeypatch.chdir(project.folder)
    first = ["deploy", "--release", releases["iris"], "--key", releases.public_key, "--target", "local"]
    assert project.run(*first)[0] == 0
    return project


def test_a_device_of_another_model_names_both_ways_out_at_once(second: Project) -> None:
    refused = second.deploy()
    assert (refused["reason"], refused["exit_code"]) == ("wrong-name", 4)
    assert "is for the model 'iris', not 'wine'" in refused["message"]
    assert refused["hint"].startswith("`root: ~/.knnkit-wine` in deploy.yaml"), "what harms nobody is first"
    assert refused["hint"].endswith(" deletes 'iris'"), "and what deletes is last, and says so"
    assert clean(refused["hint"]) == refused["hint"], "it is shown whole"
    (remove,) = commands(refused["hint"])
    assert second.run(*remove)[0] == 0
    assert second.deploy()["outcome"] == "committed"


def test_a_device_that_trusts_other_keys_alone_leads_out(second: Project, prepared: Path, tmp_path: Path) -> None:
    root = copy_board(prepared, tmp_path / "bare")
    refused = second.deploy("--root", root)
    assert (refused["reason"], refused["exit_code"]) == ("untrusted-key", 4)
    assert clean(refused["hint"]) == refused["hint"]
    remove, rotate = commands(refused["hint"])
    assert rotate[:2] == ["trust", "--rotate"]
    assert second.run(*remove)[0] == 0
    assert second.deploy("--root", root)["outcome"] == "committed"


def test_another_root_is_a_device_of_its_own(second: Project, tmp_path: Path) -> None:
    assert second.deploy("--root", tmp_path / "own")["outcome"] == "committed"


def test_doctor_compares_the_device_with_deploy_yaml(second: Project) -> None:
    code, shown = second.run("doctor", "--json")
    (device,) = json.loads(shown)["devices"]
    found = [each for each in json.loads(device["details"])["findings"] if each["name"] == "project"]
    assert code == 1
    assert [each["level"] for each in found] == ["error", "error"]
    assert "is for the model 'iris'; deploy.yaml builds 'wine'" in found[0]["message"]
    assert "trusts none of the keys that deploy.yaml names" in found[1]["message"]
    second.run(*commands(found[0]["mend"])[-1])
    second.deploy()
    assert second.run("doctor")[0] == 0


@pytest.mark.parametrize("command", ["classify", "parity", "status"])
def test_an_answer_of_another_model_than_deploy_yaml_s_says_so(second: Project, command: str) -> None:
    rows = Path("rows.csv")
    rows.write_text("5.1,3.5,1.4,0.2\n")
    words = ["--input", rows] if command == "classify" else []
    second.capture.readouterr()
    assert cli.main([command, *map(str, words)]) == 0
    shown = second.capture.readouterr()
    said = "the device is for the model 'iris'; deploy.yaml builds 'wine'"
    assert said in (shown.out if command == "status" else shown.err)
    Path("deploy.yaml").write_text(Path("deploy.yaml").read_text().replace("wine", "iris"))
    assert cli.main([command, *map(str, words)]) == 0
    assert said.partition(";")[0] not in "".join(second.capture.readouterr())


def test_init_gives_each_project_a_root_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from knnkit.config import load
    from knnkit.fleet.targets import targets_of

    roots = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert cli.main(["init"]) == 0
        (local,) = targets_of(load.load("deploy.yaml"))
        roots.add(local.root)
    assert len(roots) == 2
    assert all(root.startswith("~/.knnkit-iris-") for root in roots)

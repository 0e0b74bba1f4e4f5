"""What people read of a fleet names its releases: rollbacks by version, mixed fleets, refused candidates, reports."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from support.board_roots import copy_board
from support.releases import Releases

from device_agent.shared.protocol.model_info import Gates
from knnkit import cli


class Site:
    """A folder with the key of the test releases; the device is this machine, under one root."""

    def __init__(self, root: Path, releases: Releases, capture: pytest.CaptureFixture[str]) -> None:
        self.root, self.releases, self.capture = root, releases, capture
        Path("deploy.yaml").write_text(
            f"signing: {{key: '{releases.private_key}'}}\nfleet: {{targets: [{{host: local, root: '{root}'}}]}}\n"
        )

    def run(self, *words: object, code: int = 0) -> str:
        """Runs a command, expects its exit code, and returns what it printed."""
        self.capture.readouterr()
        found = cli.main([*map(str, words)])
        printed = self.capture.readouterr()
        assert found == code, (found, printed.out, printed.err)
        return printed.out if code != 2 else printed.err

    def deploy(self, release: Path, code: int = 0) -> str:
        return self.run("deploy", "--release", release, "--offline", code=code)


@pytest.fixture
def site(
    running: Path,
    releases: Releases,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Site:
    monkeypatch.chdir(tmp_path)
    return Site(copy_board(running, tmp_path / "root"), releases, capsys)


def runs(site: Site) -> str:
    (device,) = json.loads(site.run("status", "--json"))["devices"]
    return str(device["release"]["version"])


def test_a_rollback_says_what_it_went_back_to(site: Site) -> None:
    said = site.run("rollback")
    assert "rolled back to iris 1.0.0" in said
    assert "committed" not in said


def test_a_rollback_between_equal_versions_names_the_digests(site: Site, tmp_path: Path) -> None:
    site.deploy(site.releases.variant("iris", tmp_path / "same", sequence=12, version="1.1.0"))
    found = re.search(r"rolled back to iris 1\.1\.0 \((\w{8})\), from 1\.1\.0 \((\w{8})\)", site.run("rollback"))
    assert found
    assert found[1] != found[2]


def test_rollback_takes_a_version_that_one_release_has(site: Site, tmp_path: Path) -> None:
    assert "rolled back to iris 1.0.0" in site.run("rollback", "--to", "1.0.0")
    assert runs(site) == "1.0.0"
    assert "rolled back to iris 1.1.0" in site.run("rollback", "--to", "1.1.0")


def test_rollback_names_the_digests_where_two_releases_share_a_version(site: Site, tmp_path: Path) -> None:
    site.deploy(site.releases.variant("iris", tmp_path / "again", sequence=12))
    site.deploy(site.releases.variant("iris-next", tmp_path / "last", sequence=13, version="2.0.0"))
    said = site.run("rollback", "--to", "1.0.0", code=2)
    assert "stores 2 releases of version 1.0.0" in said
    hint = said.partition("try: ")[2].split()
    assert site.run("rollback", "--to", hint[1])


def test_rollback_to_a_version_that_the_device_lacks_lists_what_is_there(site: Site) -> None:
    said = site.run("rollback", "--to", "7.0.0", code=2)
    assert "stores no release of version 7.0.0" in said
    assert "(1.0.0)" in said
    assert "(1.1.0)" not in said, "that runs"


def test_a_refused_candidate_stands_beside_what_runs(site: Site, tmp_path: Path) -> None:
    strict = site.releases.variant("iris", tmp_path / "strict", version="3.0.0", sequence=20, gates=Gates(accuracy=1.0))
    said = site.deploy(strict, code=4)
    head, row = said.splitlines()[:2]
    assert head.split()[:4] == ["device", "outcome", "runs", "checked"]
    assert "iris 1.1.0" in row
    assert "iris 3.0.0 (" in row


@pytest.mark.parametrize(
    ("command", "held"),
    [
        ("status", ["iris 1.1.0", "iris 1.0.0", "tflite_runtime"]),
        ("bench", ["rows/s", "installed"]),
        ("logs", ["confirmed", "activated"]),
        ("doctor", ["verifies and loads", "cryptography"]),
        ("trust --keys", ["trusted", "sha256:"]),
    ],
)
def test_a_report_holds_what_the_command_shows(site: Site, command: str, held: list[str]) -> None:
    shown = site.run(*command.split(), "--report", "r.html")
    page = Path("r.html").read_text()
    for text in held:
        assert text in shown
        assert text in page


def test_every_word_of_the_doctor_is_in_its_report(site: Site) -> None:
    (device,) = json.loads(site.run("doctor", "--json", "--report", "r.html"))["devices"]
    findings: list[dict[str, Any]] = json.loads(device["details"])["findings"]
    page = Path("r.html").read_text()
    assert len(findings) > 5
    assert all(found["name"] in page for found in findings)


def test_the_hint_of_a_refused_older_release_brings_it_back(site: Site) -> None:
    said = site.deploy(site.releases["iris"], code=4)
    hint = re.search(r"try: knnkit (rollback --to \w+ --target local), or", said)
    assert hint, said
    assert "rolled back to iris 1.0.0" in site.run(*shlex.split(hint[1]))
    assert runs(site) == "1.0.0"


def test_a_missed_latency_gate_says_nothing_of_parity(site: Site, tmp_path: Path) -> None:
    slow = site.releases.variant("iris", tmp_path / "slow", version="3.0.0", sequence=20, gates=Gates(latency_ms=1e-9))
    said = site.deploy(slow, code=4)
    assert "knnkit parity" not in said
    assert "latency_ms: ..." in said

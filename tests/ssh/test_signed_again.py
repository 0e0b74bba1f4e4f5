"""After a stolen or a rotated key: what is said, what is refused, and what mends it, over a real sshd."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import sshd
from support.board_roots import copy_board
from support.releases import Releases

from device_agent.shared.protocol import constants
from knnkit.release import keys

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def device(self) -> dict[str, Any]:
        """The only device of the report on standard output."""
        (found,) = json.loads(self.out)["devices"]
        return dict(found)


@dataclass(frozen=True)
class Site:
    """A folder with deploy.yaml, two keys and one board behind sshd; the board trusts the first key."""

    folder: Path
    root: Path
    releases: Releases
    other: keys.KeyPair

    def run(self, *words: object, code: int | None = 0, text: str | None = None) -> Said:
        done = subprocess.run(
            [sys.executable, "-m", "knnkit", *map(str, words)],
            cwd=self.folder,
            input=text,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            timeout=280,
        )
        assert code is None or done.returncode == code, (done.returncode, done.stdout[-3000:], done.stderr[-3000:])
        return Said(done.returncode, done.stdout, done.stderr)

    def deploy(self, release: Path, code: int = 0) -> dict[str, Any]:
        return self.run("deploy", "--release", release, "--json", code=code).device

    def status(self) -> dict[str, Any]:
        return self.run("status", "--json").device

    def by_other(self, name: str, release: Path) -> Path:
        """Returns a copy of a release that the other key signed: `knnkit sign`."""
        copy = Path(shutil.copytree(release, self.folder / name))
        self.run("sign", copy, "--key", self.other.private)
        return copy

    def trust(self, key: keys.KeyPair) -> None:
        """As `knnkit provision --key` does it."""
        shutil.copy(key.public, self.root / constants.TRUST_DIR / f"{key.public.stem}.pem")


@pytest.fixture
def site(prepared: Path, server: sshd.Sshd, releases: Releases, tmp_path: Path, no_ssh_config: Path) -> Site:
    root, folder = copy_board(prepared, tmp_path / "root"), tmp_path / "site"
    folder.mkdir()
    other = keys.generate(folder / "other")
    where = f"host: {server.host}, port: {server.port}, user: {server.user}, identity: '{server.identity}'"
    (folder / "deploy.yaml").write_text(
        "model: {name: iris, data: {sklearn: iris}}\n"
        f"signing: {{key: '{releases.private_key}', trusted: ['{releases.public_key}', '{other.public}']}}\n"
        f"fleet:\n  known_hosts: '{server.known_hosts}'\n  ssh_config: '{no_ssh_config}'\n"
        f"  targets: [{{name: board, {where}, root: '{root}'}}]\n"
    )
    return Site(folder, root, releases, other)


def steps(device: dict[str, Any]) -> list[str]:
    return [step["name"] for step in device["steps"]]


def test_a_revoked_key_is_named_everywhere_and_signing_again_mends_it(site: Site) -> None:
    owner = site.releases.public_key
    site.deploy(site.releases["iris"])
    site.trust(site.other)
    site.run("trust", "--revoke", owner, "--signing-key", site.other.private, "--target", "board")
    assert "revoked-key" in site.run("status").out
    assert [text.partition(":")[0] for text in site.status()["warnings"]] == ["revoked-key"]
    page = site.folder / "report.html"
    missed = site.run("parity", "--json", "--report", page, code=constants.EXIT_REFUSED).device
    assert (missed["exit_code"], missed["reason"]) == (constants.EXIT_REFUSED, "revoked-key")
    assert missed["certificate"]["different"] == 0
    assert "revoked-key" in page.read_text()
    assert "revoked-key" in site.run("parity", code=constants.EXIT_REFUSED).out
    assert "revoked-key" in site.run("doctor").out
    assert "revoked-key" in site.run("bench").err
    for words in ([], ["--stream"]):
        said = site.run("classify", "--format", "csv", *words, text="5.1,3.5,1.4,0.2\n")
        assert said.out == "setosa\n"
        assert said.err.count("revoked-key") == 1
    dry = site.run("deploy", "--release", site.by_other("dry", site.releases["iris-next"]), "--dry-run")
    assert "revoked-key" in dry.out
    dry = site.run("deploy", "--release", site.releases["iris-next"], "--dry-run", code=constants.EXIT_REFUSED)
    assert "knnkit deploy --target board" in dry.out
    assert "HOST" not in dry.out

    fresh = site.deploy(site.by_other("fresh", site.releases["iris-next"]))
    assert (fresh["outcome"], fresh["warnings"]) == ("committed", [])
    refused = site.run("rollback", "--json", code=constants.EXIT_REFUSED).device
    assert refused["reason"] == "revoked-key"
    assert site.status()["release"]["version"] == "1.1.0"

    again = site.by_other("again", site.releases["iris"])
    older = site.deploy(again, code=constants.EXIT_REFUSED)
    assert (older["reason"], older["sent_bytes"], "sign" in steps(older)) == ("older", 0, True)
    back = site.run("rollback", "--json").device
    assert (back["outcome"], back["release"]["version"], back["warnings"]) == ("committed", "1.0.0", [])
    assert site.run("parity", "--json").device["certificate"]["signed_by"] == site.other.fingerprint


def test_a_rollback_takes_a_revoked_key_where_that_is_asked_for(site: Site) -> None:
    site.deploy(site.releases["iris"])
    site.trust(site.other)
    site.run("trust", "--revoke", site.releases.public_key, "--signing-key", site.other.private, "--target", "board")
    site.deploy(site.by_other("fresh", site.releases["iris-next"]))
    back = site.run("rollback", "--allow-revoked", "--json").device
    assert (back["outcome"], back["release"]["version"]) == ("committed", "1.0.0")
    assert [text.partition(":")[0] for text in back["warnings"]] == ["revoked-key"]


def test_after_a_rotation_releases_are_signed_again_activated_and_gone_back_to(site: Site) -> None:
    old, new = site.releases["iris"], site.releases["iris-next"]
    site.deploy(old)
    site.deploy(new)
    staged = site.releases.variant("iris-next", site.folder / "staged", sequence=12, version="1.2.0")
    agent = [site.root / "venv/bin/python", "-m", "device_agent", "--root", site.root]
    subprocess.run([*map(str, agent), "stage", str(staged)], check=True, capture_output=True)
    first = json.loads(site.run("status", "--json").out)["devices"][0]["status"]["previous"]["digest"]
    site.run(
        *("trust", "--rotate", site.other.private, "--signing-key", site.releases.private_key, "--target", "board")
    )
    config = site.folder / "deploy.yaml"
    config.write_text(config.read_text().replace(f"key: '{site.releases.private_key}'", f"key: '{site.other.private}'"))

    again = site.by_other("again", new)
    dry = site.run("deploy", "--release", again, "--dry-run").out
    assert "  sign " in dry
    for outcome, expected in (("unchanged", True), ("unchanged", False)):
        done = site.deploy(again)
        assert (done["outcome"], done["sent_bytes"], "sign" in steps(done)) == (outcome, 0, expected), done
        assert [text.partition(":")[0] for text in done["warnings"]] == ["previous-revoked"]
    assert site.status()["status"]["signed_by"] == site.other.fingerprint

    assert site.run("rollback", "--to", first, "--json", code=constants.EXIT_REFUSED).device["reason"] == "revoked-key"
    refused = site.deploy(site.by_other("old", old), code=constants.EXIT_REFUSED)
    assert refused["reason"] == "older"
    assert f"knnkit rollback --to {first[:12]}" in refused["hint"]
    back = site.run("rollback", "--to", first, "--json").device
    assert (back["outcome"], back["release"]["digest"], back["warnings"]) == ("committed", first, [])

    last = site.deploy(site.by_other("third", staged))
    assert (last["outcome"], last["sent_bytes"], "upload" in steps(last)) == ("committed", 0, False)
    assert last["release"]["version"] == "1.2.0"
    assert site.run("parity", "--json").device["certificate"]["signed_by"] == site.other.fingerprint


def test_a_key_that_nobody_named_and_a_folder_that_others_write_are_told(site: Site) -> None:
    site.deploy(site.releases["iris"])
    assert site.status()["warnings"] == []
    thief = keys.generate(site.folder / "thief")
    site.trust(thief)
    (site.root / constants.TRUST_DIR).chmod(0o777)
    said = {
        "status": site.run("status").out,
        "doctor": site.run("doctor").out,
        "dry run": site.run("deploy", "--release", site.releases["iris-next"], "--dry-run").out,
        "plan": site.run("deploy", "--release", site.releases["iris-next"], "--dry-run", "--json").out,
        "deploy": site.run("deploy", "--release", site.releases["iris-next"]).out,
    }
    for command, text in said.items():
        flat = "".join(text.split())
        assert thief.fingerprint in flat, command
        assert ("otheruserscanchange" if command == "doctor" else "changedbyothers") in flat, command
    site.run("trust", "--revoke", thief.fingerprint, "--target", "board")
    (site.root / constants.TRUST_DIR).chmod(0o700)
    assert site.status()["warnings"] == []


def test_a_sequence_that_jumped_ahead_is_got_over_by_number_or_by_order(site: Site) -> None:
    site.deploy(site.releases["iris"])
    jumped = site.releases.variant("iris-next", site.folder / "jumped", sequence=2_026_112_901)
    site.deploy(jumped)
    today = site.releases.variant("iris-next", site.folder / "today", sequence=int(time.time()) + 60, version="1.2.0")
    refused = site.deploy(today, code=constants.EXIT_REFUSED)
    assert "release.sequence: 2026112902" in refused["hint"]
    assert site.run("rollback", "--reset-floor", "--json").device["outcome"] == "answered"
    assert site.status()["status"]["floor"] <= time.time()
    assert site.deploy(today)["outcome"] == "committed"
    low = site.run("rollback", "--reset-floor", 10**12, "--json").device
    assert (low["outcome"], low["message"]) == ("unchanged", "the device accepts older releases already")

"""`knnkit trust` for signing keys: fingerprints, signed orders in files, and orders sent to a device."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
from support import ROOT

from device_agent.shared.protocol import constants
from device_agent.shared.trust import dsse, orders
from device_agent.store import trust_store
from knnkit.cli import main
from knnkit.release import keys

CLONE = ROOT


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No deploy.yaml of the clone, no passphrase of the caller."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(keys.PASSPHRASE_VARIABLE, raising=False)


@pytest.fixture
def old(tmp_path: Path) -> keys.KeyPair:
    return keys.generate(tmp_path / "old")


@pytest.fixture
def new(tmp_path: Path) -> keys.KeyPair:
    return keys.generate(tmp_path / "new")


@pytest.fixture
def root(tmp_path: Path, old: keys.KeyPair) -> Path:
    """An embedded device whose agent is this clone's."""
    root = tmp_path / "device"
    (root / "venv" / "bin").mkdir(parents=True)
    python = root / "venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(CLONE))} exec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    folder = root / constants.TRUST_DIR
    folder.mkdir(mode=0o700)
    (folder / trust_store.key_file_name(old.fingerprint)).write_bytes(old.public.read_bytes())
    return root


def run(*words: object) -> int:
    return main(["trust", *map(str, words)])


def test_fingerprints_are_shown_for_programs_and_for_people(
    old: keys.KeyPair, new: keys.KeyPair, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--show", old.public, new.public) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{old.fingerprint}  {old.public}\n{new.fingerprint}  {new.public}\n"
    assert keys.show_fingerprint(old.fingerprint) in captured.err


def test_fingerprints_as_json(old: keys.KeyPair, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--show", old.public, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {str(old.public): old.fingerprint}


def test_a_rotation_is_written_to_a_file_that_a_device_takes(old: keys.KeyPair, new: keys.KeyPair, root: Path) -> None:
    assert run("--rotate", new.private, "--signing-key", old.private, "--out", "rotation.json") == 0
    after = trust_store.apply_order(root / constants.TRUST_DIR, Path("rotation.json").read_bytes())
    assert after.sets.trusted == (new.fingerprint,)


def test_a_rotation_is_sent_to_a_device(
    old: keys.KeyPair, new: keys.KeyPair, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--rotate", new.private, "--signing-key", old.private, "--target", "local", "--root", root]
    assert run(*words) == 0
    out = capsys.readouterr().out
    assert f"{new.fingerprint}  trusted" in out
    assert f"{old.fingerprint}  revoked" in out
    assert trust_store.read(root / constants.TRUST_DIR).sets.trusted == (new.fingerprint,)
    assert run("--keys", "--target", "local", "--root", root, "--json") == 0
    device = json.loads(capsys.readouterr().out)["devices"][0]
    assert json.loads(device["details"])["trusted"] == [new.fingerprint]


def test_an_order_that_a_device_refuses_is_exit_code_4_and_says_why(
    old: keys.KeyPair, new: keys.KeyPair, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run("--revoke", old.fingerprint, "--signing-key", old.private, "--out", "order.json", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"order": "order.json"}
    code = run("--apply", "order.json", "--target", "local", "--root", root, "--json")
    device = json.loads(capsys.readouterr().out)["devices"][0]
    assert (code, device["reason"]) == (constants.EXIT_REFUSED, "last-key")
    assert trust_store.read(root / constants.TRUST_DIR).sets.trusted == (old.fingerprint,)


@pytest.mark.parametrize("by", ["fingerprint", "digits", "groups", "public"])
def test_a_key_is_revoked_by_fingerprint_or_file(by: str, old: keys.KeyPair, new: keys.KeyPair, root: Path) -> None:
    folder = root / constants.TRUST_DIR
    (folder / "new.pem").write_bytes(new.public.read_bytes())
    digits = new.fingerprint.removeprefix("sha256:")  # as sha256sum prints them
    named = {"digits": digits, "groups": keys.show_fingerprint(new.fingerprint)}.get(by) or getattr(new, by)
    words = ["--revoke", named, "--signing-key", old.private, "--target", "local", "--root", root]
    assert run(*words) == 0
    assert trust_store.read(folder).sets.revoked == {new.fingerprint}


def test_an_order_holds_no_secret(old: keys.KeyPair, new: keys.KeyPair) -> None:
    assert run("--rotate", new.private, "--signing-key", old.private, "--out", "rotation.json") == 0
    envelope = dsse.read_envelope(json.loads(Path("rotation.json").read_bytes()))
    assert envelope.payload_type == orders.ROTATION_TYPE
    assert b"PRIVATE" not in envelope.payload


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name a HOST"),
        (("pi@board", "--keys"), "HOST is only for host keys"),
        (("--rotate", "new.pem"), "nobody receives this order"),
        (("--apply", "order.json"), "nobody receives this order"),
        (("--rotate", "new.pem", "--out", "x"), "deploy.yaml here\n  try: --signing-key PEM"),
        (("--apply", "nowhere.json", "--target", "local"), "cannot read the signed order in nowhere.json"),
        (("--show", "nowhere.pub"), "cannot read the key nowhere.pub"),
        (("--revoke", "nowhere", "--signing-key", "old.pem", "--out", "x"), "cannot read the key nowhere"),
    ],
)
def test_a_mistake_is_said_and_writes_nothing(
    words: tuple[str, ...], said: str, old: keys.KeyPair, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(Path().iterdir())
    assert run(*words) == constants.EXIT_USAGE
    assert said in capsys.readouterr().err
    assert sorted(Path().iterdir()) == before

"""keygen, sign and verify on the command line: keys that stay private, fingerprints that people can compare."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from support import ROOT, forge

from device_agent.shared.protocol import constants
from device_agent.shared.trust import dsse
from knnkit.cli import main
from knnkit.errors import SigningKeyError
from knnkit.release import keys, signing
from knnkit.release.package import read_package
from knnkit.release.signing import FileSigner, sign_release


@pytest.fixture(autouse=True)
def _no_passphrase_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(keys.PASSPHRASE_VARIABLE, raising=False)


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "signing"


@pytest.fixture
def private(prefix: Path) -> Path:
    return keys.generate(prefix).private


def failure(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    assert main([str(word) for word in argv]) == constants.EXIT_USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


# --- keygen -------------------------------------------------------------------------------------------------------
def test_a_new_key_is_p256_and_its_owners_alone(prefix: Path) -> None:
    previous = os.umask(0)
    try:
        pair = keys.generate(prefix)
    finally:
        os.umask(previous)
    assert pair.private.stat().st_mode & 0o777 == 0o600
    assert pair.public.stat().st_mode & 0o777 == 0o644
    assert pair.private.parent.stat().st_mode & 0o777 == 0o700
    assert keys.load_private_key(pair.private).curve.name == "secp256r1"


def test_keygen_prints_the_fingerprint_on_stdout_and_for_people_on_stderr(
    prefix: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keygen", "--out", str(prefix)]) == 0
    captured = capsys.readouterr()
    fingerprint = dsse.fingerprint(prefix.with_suffix(".pub").read_bytes())
    assert captured.out == fingerprint + "\n"
    grouped = fingerprint.removeprefix("sha256:")
    assert " ".join(grouped[i : i + 4] for i in range(0, 64, 4)) in captured.err
    assert "PRIVATE" not in captured.out + captured.err


def test_keygen_json_is_one_document(prefix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keygen", "--out", str(prefix), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["private"] == f"{prefix}.pem"
    assert document["public"] == f"{prefix}.pub"
    assert document["fingerprint"].startswith("sha256:")


@pytest.mark.parametrize("suffix", [".pem", ".pub"])
def test_keygen_never_overwrites(prefix: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    prefix.parent.mkdir()
    Path(f"{prefix}{suffix}").write_text("mine")
    assert f"{prefix}{suffix} exists" in failure(capsys, "keygen", "--out", prefix)
    assert [path.name for path in prefix.parent.iterdir()] == [f"signing{suffix}"]


def test_keygen_does_not_write_through_a_link(prefix: Path, tmp_path: Path) -> None:
    prefix.parent.mkdir()
    Path(f"{prefix}.pem").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SigningKeyError):
        keys.generate(prefix)
    assert not (tmp_path / "elsewhere").exists()


def test_a_failed_keygen_leaves_nothing(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keys.os, "fsync", full)
    with pytest.raises(SigningKeyError, match="No space left"):
        keys.generate(prefix)
    assert not prefix.parent.exists()


def test_a_dot_in_the_prefix_is_kept(tmp_path: Path) -> None:
    pair = keys.generate(tmp_path / "release.v1")
    assert (pair.private.name, pair.public.name) == ("release.v1.pem", "release.v1.pub")


# --- passphrases --------------------------------------------------------------------------------------------------
def test_a_passphrase_protects_the_key(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(keys.PASSPHRASE_VARIABLE, "correct horse")
    assert main(["keygen", "--out", str(prefix), "--passphrase"]) == 0
    private = prefix.with_suffix(".pem")
    assert b"ENCRYPTED" in private.read_bytes()
    assert signing.load_signer(private).public_pem == prefix.with_suffix(".pub").read_bytes()
    monkeypatch.setenv(keys.PASSPHRASE_VARIABLE, "wrong")
    with pytest.raises(SigningKeyError, match=r"passphrase of .* is wrong"):
        signing.load_signer(private)


def test_a_protected_key_without_terminal_names_the_variable(prefix: Path) -> None:
    private = keys.generate(prefix, b"secret").private
    with pytest.raises(SigningKeyError) as caught:
        signing.load_signer(private)
    assert keys.PASSPHRASE_VARIABLE in caught.value.hint
    with pytest.raises(SigningKeyError, match="protected by a passphrase"):
        keys.load_private_key(private)


def test_a_key_without_passphrase_asks_for_none(private: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(keys.PASSPHRASE_VARIABLE, "for another key")
    assert signing.load_signer(private)
    assert keys.load_private_key(private, b"for another key")


def test_two_different_passphrases_make_no_key(
    prefix: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = iter(["one", "two"])
    monkeypatch.setattr(signing.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(signing.getpass, "getpass", lambda _: next(answers))
    assert "differ" in failure(capsys, "keygen", "--out", prefix, "--passphrase")
    assert not prefix.parent.exists()


def test_an_empty_passphrase_makes_no_key(
    prefix: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(signing.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(signing.getpass, "getpass", lambda _: "")
    assert "empty passphrase" in failure(capsys, "keygen", "--out", prefix, "--passphrase")


# --- private key files --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o666, 0o700 | 0o010])
def test_a_key_that_others_can_read_is_not_used_and_chmod_is_named(
    private: Path, mode: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release = forge.write(tmp_path / "release")
    before = (release / constants.SIGNATURE_FILE).read_bytes()
    private.chmod(mode)
    text = failure(capsys, "sign", release, "--key", private)
    assert f"can be read by other users (mode {mode:04o})" in text
    assert f"chmod 600 {private}" in text
    assert (release / constants.SIGNATURE_FILE).read_bytes() == before


def test_a_release_of_today_is_signed_without_a_word_about_the_clock(
    private: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release = forge.write(tmp_path / "release", created=int(time.time()))
    assert main(["sign", str(release), "--key", str(private), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["warnings"] == []


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_public_key_cannot_sign_and_the_private_one_is_named(
    private: Path, mode: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    public = private.with_suffix(".pub")
    public.chmod(mode)
    text = failure(capsys, "sign", forge.write(tmp_path / "release"), "--key", public)
    assert f"{public} is a public key" in text
    assert f"use {private}" in text


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_key_of_its_owner_alone_is_used(private: Path, mode: int, tmp_path: Path) -> None:
    private.chmod(mode)
    assert main(["sign", str(forge.write(tmp_path / "release")), "--key", str(private)]) == 0


def test_a_missing_key_is_a_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = failure(capsys, "sign", forge.write(tmp_path / "release"), "--key", tmp_path / "none.pem")
    assert "No such file" in text
    assert "knnkit keygen" in text


@pytest.mark.parametrize("suffix", ["", ".key"])
def test_a_key_of_another_suffix_leads_to_the_file(suffix: str, private: Path) -> None:
    """`keygen --out keys/signing` takes the name that `signing: {key: keys/signing}` then repeats."""
    for read in (keys.load_private_key, lambda path: keys.load_public_keys([path])):
        with pytest.raises(SigningKeyError) as caught:
            read(private.with_suffix(suffix))
        name = private.stem + (".pem" if read is keys.load_private_key else ".pub")
        assert caught.value.hint == f"did you mean {name}?"


def write_key(path: Path, key: object) -> Path:
    path.write_bytes(
        key.private_bytes(  # type: ignore[attr-defined]
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    "make",
    [
        ed25519.Ed25519PrivateKey.generate,
        lambda: rsa.generate_private_key(65537, 2048),
        lambda: ec.generate_private_key(ec.SECP256K1()),
    ],
    ids=["ed25519", "rsa", "secp256k1"],
)
def test_a_key_that_the_format_does_not_know_is_refused(tmp_path: Path, make: object) -> None:
    with pytest.raises(SigningKeyError) as caught:
        keys.load_private_key(write_key(tmp_path / "key.pem", make()))  # type: ignore[operator]
    assert "knnkit keygen" in caught.value.hint


@pytest.mark.parametrize("data", [b"", b"hello", b"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key_is_a_clear_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(SigningKeyError, match="not a private key"):
        keys.load_private_key(path)
    with pytest.raises(SigningKeyError, match=r"the text has no line -----BEGIN PUBLIC KEY-----|is a private key"):
        keys.load_public_keys([path])


def test_a_private_key_is_not_taken_for_a_public_one(
    private: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = failure(capsys, "verify", forge.write(tmp_path / "release"), "--key", private)
    assert "is a private key" in text
    assert str(private.with_suffix(".pub")) in text


def test_a_private_key_never_travels_in_a_public_api(private: Path) -> None:
    assert b"PRIVATE" not in FileSigner.load(private).public_pem


# --- sign and verify ----------------------------------------------------------------------------------------------
def test_sign_then_verify(private: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release = forge.write(tmp_path / "release")
    assert main(["sign", str(release), "--key", str(private)]) == 0
    digest = capsys.readouterr().out.strip()
    assert constants.is_digest(digest)
    assert main(["verify", str(release), "--key", str(private.with_suffix(".pub"))]) == 0
    captured = capsys.readouterr()
    assert captured.out.strip() == digest
    assert "fruit 1.0.0" in captured.err


def test_without_a_key_sign_and_verify_take_those_of_deploy_yaml(
    private: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forge.write(tmp_path / "release")
    monkeypatch.chdir(tmp_path)
    assert "verify release --key keys/signing.pub" in failure(capsys, "verify", "release")
    config = tmp_path / "fleet.yaml"
    config.write_text(f"fleet: {{targets: [local]}}\nsigning: {{key: {private}}}\n")
    for command in ("sign", "verify"):
        assert main([command, "release", "-c", "fleet.yaml"]) == 0
    config.rename("deploy.yaml")
    for command in ("sign", "verify"):
        assert main([command, "release"]) == 0
    (tmp_path / "deploy.yaml").write_text("model: [\n")
    assert main(["verify", "release", "--key", str(private.with_suffix(".pub"))]) == 0, "it is not asked then"


@pytest.mark.parametrize("command", ["sign", "verify"])
def test_json_is_one_document(command: str, private: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release = forge.write(tmp_path / "release")
    sign_release(release, FileSigner.load(private))
    key = private if command == "sign" else private.with_suffix(".pub")
    assert main([command, str(release), "--key", str(key), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["release"]["name"] == "fruit"
    assert document["signed_by"] == dsse.fingerprint(private.with_suffix(".pub").read_bytes())


def test_verify_takes_several_keys(private: Path, tmp_path: Path) -> None:
    release = forge.write(tmp_path / "release")
    sign_release(release, FileSigner.load(private))
    other = keys.generate(tmp_path / "other").public
    assert main(["verify", str(release), "--key", str(other), "--key", str(private.with_suffix(".pub"))]) == 0


def test_verify_and_deploy_follow_a_link_that_the_user_names(private: Path, tmp_path: Path) -> None:
    release = forge.write(tmp_path / "release")
    sign_release(release, FileSigner.load(private))
    (tmp_path / "latest").symlink_to(release)
    assert main(["verify", str(tmp_path / "latest"), "--key", str(private.with_suffix(".pub"))]) == 0
    assert read_package(tmp_path / "latest", {}).directory == str(release)  # if the link is set anew meanwhile


def test_a_signature_is_replaced_whole_and_leaves_nothing_else(private: Path, tmp_path: Path) -> None:
    release = forge.write(tmp_path / "release")
    (release / constants.SIGNATURE_FILE).write_bytes(b"an old one")
    sign_release(release, FileSigner.load(private))
    assert sorted(path.name for path in release.iterdir()) == sorted(constants.RELEASE_FILES)


@pytest.mark.parametrize("damage", ["unlisted", "manifest", "missing", "link"])
def test_what_no_device_would_accept_is_not_signed(
    damage: str, private: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release = forge.write(tmp_path / "release")
    (release / constants.SIGNATURE_FILE).unlink()
    if damage == "unlisted":
        (release / "notes.txt").touch()
    elif damage == "manifest":
        (release / constants.MANIFEST_FILE).write_text("{}")
    else:
        (release / constants.MODEL_FILE).unlink()
        if damage == "link":
            (release / constants.MODEL_FILE).symlink_to("/dev/zero")
    assert main(["sign", str(release), "--key", str(private)]) == constants.EXIT_REFUSED
    assert not (release / constants.SIGNATURE_FILE).exists()


def test_a_signer_whose_signature_does_not_fit_its_key_writes_nothing(tmp_path: Path) -> None:
    class Broken:
        public_pem = forge.signer("owner").public_pem

        def sign(self, message: bytes) -> bytes:
            return forge.signer("stranger").sign(message)

    release = forge.write(tmp_path / "release")
    before = (release / constants.SIGNATURE_FILE).read_bytes()
    with pytest.raises(SigningKeyError, match="does not match its public key"):
        sign_release(release, Broken())
    assert (release / constants.SIGNATURE_FILE).read_bytes() == before


def test_signing_fails_whole_when_the_disk_is_full(
    private: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    release = forge.write(tmp_path / "release")
    before = (release / constants.SIGNATURE_FILE).read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SigningKeyError, match="No space left"):
        sign_release(release, FileSigner.load(private))
    assert (release / constants.SIGNATURE_FILE).read_bytes() == before
    assert sorted(path.name for path in release.iterdir()) == sorted(constants.RELEASE_FILES)


def test_a_release_that_no_named_key_signed_is_not_deployed(
    tmp_path: Path, private: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    release = forge.write(tmp_path / "release")
    words = ["deploy", "--target", "local", "--root", "device", "--release", str(release), "--dry-run"]
    assert main([*words, "--key", str(private.with_suffix(".pub"))]) == 4
    assert "which --key does not name" in capsys.readouterr().err
    assert not (tmp_path / "device").exists()


def test_verifying_something_else_is_a_usage_error(
    tmp_path: Path, private: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = failure(capsys, "verify", tmp_path / "nowhere", "--key", private.with_suffix(".pub"))
    assert "there is no such directory" in text


def test_sign_and_verify_load_nothing_heavy(private: Path, tmp_path: Path) -> None:
    release = forge.write(tmp_path / "release")
    code = (
        "import sys; from knnkit.cli import main; main(sys.argv[1:]); "
        "heavy = {'tensorflow', 'sklearn', 'numpy', 'paramiko', 'pydantic', 'tflite_runtime'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    argv = [sys.executable, "-c", code, "sign", str(release), "--key", str(private)]
    subprocess.run(argv, check=True, capture_output=True, cwd=ROOT)

"""Against `model-signing` 1.1.1, the field's own tool: what we sign it verifies, what it signs we verify, and what it
wrongly lets through we refuse."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support import forge

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import Refused
from device_agent.shared.trust import dsse, oms, rules
from device_agent.shared.trust.reasons import Reason
from knnkit.release import keys
from knnkit.release.signing import FileSigner, sign_release
from knnkit.release.verify import verify_release

ROOT = Path(__file__).parents[2]
ENVIRONMENT = Path(os.environ.get("KNNKIT_TEST_CACHE") or ROOT / ".cache" / "tests") / "model-signing"


class Reference:
    """The reference implementation, behind its own command line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def __call__(self, *arguments: object) -> tuple[bool, str]:
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps([str(word) for word in arguments]), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        return answer["code"] == 0, answer["output"]

    def accepts(self, release: Path, public: Path, *options: str) -> bool:
        signature = release / constants.SIGNATURE_FILE
        accepted, output = self("verify", "key", release, "--signature", signature, "--public_key", public, *options)
        assert ("Verification succeeded" in output) == accepted
        return accepted

    def sign(self, release: Path, private: Path) -> None:
        signature = release / constants.SIGNATURE_FILE
        signature.unlink(missing_ok=True)
        signed, output = self("sign", "key", release, "--signature", signature, "--private_key", private)
        assert signed, output


@pytest.fixture(scope="session")
def reference() -> Iterator[Reference]:
    if not (ENVIRONMENT / "stamp").exists():
        pytest.skip("model-signing is not installed: scripts/test interop does it")
    argv = [ENVIRONMENT / "bin" / "python", Path(__file__).with_name("reference.py")]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        yield Reference(process)
        assert process.stdin
        process.stdin.close()


@pytest.fixture
def public(tmp_path: Path) -> Path:
    path = tmp_path / "owner.pub"
    path.write_bytes(forge.signer().public_pem)
    return path


@pytest.fixture
def release(tmp_path: Path) -> Path:
    directory = forge.write(tmp_path / "release", model=b"a model" * 10)
    sign_release(directory, forge.signer())
    return directory


def test_the_installed_tool_itself_accepts_a_release_we_signed(
    reference: Reference, release: Path, public: Path
) -> None:
    argv = [ENVIRONMENT / "bin" / "model_signing", "verify", "key", release, "--signature"]
    argv += [release / constants.SIGNATURE_FILE, "--public_key", public]
    result = subprocess.run(argv, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "Verification succeeded\n"), result.stderr


@pytest.mark.parametrize("curve", list(forge.CURVES))
def test_it_accepts_what_we_sign(reference: Reference, release: Path, tmp_path: Path, curve: str) -> None:
    signer = forge.signer(curve, curve)
    (tmp_path / "key.pub").write_bytes(signer.public_pem)
    sign_release(release, signer)
    assert reference.accepts(release, tmp_path / "key.pub")


@pytest.mark.parametrize("curve", list(forge.CURVES))
def test_we_accept_what_it_signs(reference: Reference, release: Path, tmp_path: Path, curve: str) -> None:
    key = ec.generate_private_key(forge.CURVES[curve])
    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    secret = serialization.NoEncryption()
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret))
    private.chmod(0o600)
    public.write_bytes(dsse.public_pem(key.public_key()))
    ours = sign_release(release, FileSigner.load(private))
    reference.sign(release, private)
    verdict = verify_release(release, [public], now=forge.NOW)
    assert verdict.digest == ours.digest  # the same release, whoever signed
    assert verdict.signed_by == next(iter(keys.load_public_keys([public])))


def test_it_refuses_any_single_flipped_byte_of_our_signed_files(
    reference: Reference, release: Path, public: Path
) -> None:
    for name in constants.SIGNED_FILES:
        honest = (release / name).read_bytes()
        for position in range(len(honest)):
            forge.flip(release / name, position)
            assert not reference.accepts(release, public), (name, position)
            (release / name).write_bytes(honest)
    assert reference.accepts(release, public)


def test_any_single_flipped_byte_of_the_bundle_is_refused(reference: Reference, release: Path, public: Path) -> None:
    path = release / constants.SIGNATURE_FILE
    honest = path.read_bytes()
    for position in range(len(honest)):
        forge.flip(path, position)
        with pytest.raises(Refused):
            forge.verify(release)
        # Theirs reads base64 leniently: the spare bits of a last character are the one thing it does not see.
        assert not reference.accepts(release, public) or _signed(path.read_bytes()) == _signed(honest), position
        path.write_bytes(honest)
    assert reference.accepts(release, public)


def _signed(bundle: bytes) -> tuple[bytes, bytes]:
    envelope = json.loads(bundle)["dsseEnvelope"]
    return base64.b64decode(envelope["payload"]), base64.b64decode(envelope["signatures"][0]["sig"])


@pytest.mark.parametrize("part", ["payload", "sig"])
def test_both_refuse_any_flipped_byte_under_the_signature(
    reference: Reference, release: Path, public: Path, part: str
) -> None:
    path = release / constants.SIGNATURE_FILE
    bundle = json.loads(path.read_bytes())
    text = bundle["dsseEnvelope"]["payload"] if part == "payload" else bundle["dsseEnvelope"]["signatures"][0]["sig"]
    for position in range(len(text) * 3 // 4 - 2):
        broken = json.loads(json.dumps(bundle))
        holder = broken["dsseEnvelope"] if part == "payload" else broken["dsseEnvelope"]["signatures"][0]
        holder[part] = forge.flip_base64(text, position)
        path.write_text(json.dumps(broken))
        assert not reference.accepts(release, public), position
        assert _refusal(release) == Reason.BAD_SIGNATURE


def _refusal(release: Path) -> Reason:
    with pytest.raises(Refused) as caught:
        forge.verify(release)
    return Reason(caught.value.reason)


# --- what the reference lets through ------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [".gitattributes", ".gitignore", ".github", ".git"])
def test_a_file_under_an_ignored_name_is_refused(reference: Reference, release: Path, public: Path, name: str) -> None:
    (release / name).write_text("unsigned")
    assert reference.accepts(release, public)
    assert _refusal(release) == Reason.FILE_HIDDEN


def test_a_file_that_the_signature_itself_ignores_is_refused(reference: Reference, release: Path, public: Path) -> None:
    forge.sign(
        release,
        statement=lambda data: data["predicate"]["serialization"]["ignore_paths"].append("weights.bin"),
    )
    (release / "weights.bin").write_text("unsigned")
    assert reference.accepts(release, public)
    assert _refusal(release) == Reason.FILE_UNLISTED


def test_a_model_that_the_signature_leaves_out_is_refused(reference: Reference, release: Path, public: Path) -> None:
    def leave_out(data: dict[str, Any]) -> None:
        resources = data["predicate"]["resources"]
        resources[:] = [entry for entry in resources if entry["name"] != constants.MODEL_FILE]
        data["subject"][0]["digest"]["sha256"] = forge.root_of(resources)
        data["predicate"]["serialization"]["ignore_paths"].append(constants.MODEL_FILE)

    forge.sign(release, statement=leave_out)
    forge.flip(release / constants.MODEL_FILE, 0)
    assert reference.accepts(release, public)
    assert _refusal(release) == Reason.FILE_UNLISTED


def test_a_path_that_leaves_the_directory_is_refused(reference: Reference, release: Path, public: Path) -> None:
    outside = release.parent / "outside"
    outside.write_bytes(b"anything")
    digest = forge.statement_of(release)["predicate"]["resources"][0]["digest"]
    outside.write_bytes((release / constants.GOLDEN_FILE).read_bytes())
    entry = {"name": "../outside", "digest": digest, "algorithm": "sha256"}
    forge.sign_resources(release, lambda files: files.insert(0, entry))
    assert reference.accepts(release, public, "--ignore_unsigned_files")
    assert _refusal(release) == Reason.UNSAFE_NAME


def test_an_absent_key_hint_is_refused(reference: Reference, release: Path, public: Path) -> None:
    forge.edit_bundle(release, lambda data: data["verificationMaterial"].update(publicKey={}))
    assert reference.accepts(release, public)
    assert _refusal(release) == Reason.NO_KEY_HINT


def test_a_second_signature_that_nobody_checked_is_refused(reference: Reference, release: Path, public: Path) -> None:
    forge.edit_bundle(
        release, lambda data: data["dsseEnvelope"]["signatures"].append({"sig": "bm9uc2Vuc2U=", "keyid": ""})
    )
    assert reference.accepts(release, public)
    assert _refusal(release) == Reason.MANY_SIGNATURES


def test_no_signature_at_all_is_refused_by_name(reference: Reference, release: Path, public: Path) -> None:
    forge.edit_bundle(release, lambda data: data["dsseEnvelope"].update(signatures=[]))
    signature = release / constants.SIGNATURE_FILE
    accepted, output = reference("verify", "key", release, "--signature", signature, "--public_key", public)
    assert not accepted
    assert "index out of range" in output  # it falls over where we say what is wrong
    assert _refusal(release) == Reason.NO_SIGNATURE


def test_the_encoding_of_an_old_bug_is_refused(reference: Reference, release: Path, public: Path) -> None:
    """The reference still accepts signatures over version 0.2's encoding, which is not DSSE."""
    payload = json.dumps(forge.statement_of(release)).encode()
    old = f"DSSEV1 {len(oms.PAYLOAD_TYPE)} {oms.PAYLOAD_TYPE} {len(payload)} {payload!r}".encode()
    signature = dsse.Signature("", forge.signer().sign(old))
    forge.write_bundle(release, dsse.dump_envelope(dsse.Envelope(oms.PAYLOAD_TYPE, payload, (signature,))))
    assert reference.accepts(release, public)
    assert _refusal(release) == Reason.BAD_SIGNATURE


def test_a_symbolic_link_is_refused_whatever_the_options(reference: Reference, release: Path, public: Path) -> None:
    (release / constants.MODEL_FILE).rename(release.parent / "elsewhere")
    (release / constants.MODEL_FILE).symlink_to(release.parent / "elsewhere")
    assert reference.accepts(release, public, "--allow_symlinks")
    assert _refusal(release) == Reason.FILE_SYMLINK


def test_the_root_digest_is_the_releases_identity(release: Path) -> None:
    assert forge.verify(release, rules.TrustState(keys=forge.keys())).digest == oms.root_digest(
        entry["digest"] for entry in forge.statement_of(release)["predicate"]["resources"]
    )

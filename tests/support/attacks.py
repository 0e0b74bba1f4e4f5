"""The catalogue of attacks on a release directory, each with the reason word with which a device must refuse it.

One entry per line of the checklist; `test_trust_signature` runs each against the rules, `test_trust_device` against a
device whose model must go on answering.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from device_agent.shared.protocol import constants
from device_agent.shared.trust.reasons import Reason
from support import forge


@dataclass(frozen=True)
class Attack:
    """`damage` turns an acceptable release into one that must be refused for `reason`."""

    name: str
    reason: Reason
    damage: Callable[[Path], object]


ATTACKS: list[Attack] = []


def attack(reason: Reason) -> Callable[[Callable[[Path], object]], Callable[[Path], object]]:
    def register(function: Callable[[Path], object]) -> Callable[[Path], object]:
        ATTACKS.append(Attack(function.__name__, reason, function))
        return function

    return register


# --- a flipped byte -----------------------------------------------------------------------------------------------
@attack(Reason.FILE_CHANGED)
def flipped_byte_in_the_model(release: Path) -> None:
    forge.flip(release / constants.MODEL_FILE, 40)


@attack(Reason.FILE_CHANGED)
def flipped_byte_in_the_golden_set(release: Path) -> None:
    forge.flip(release / constants.GOLDEN_FILE, -1)


@attack(Reason.FILE_CHANGED)
def flipped_byte_in_the_manifest(release: Path) -> None:
    forge.flip(release / constants.MANIFEST_FILE, 20)


@attack(Reason.BAD_SIGNATURE)
def flipped_byte_in_the_payload(release: Path) -> None:
    def edit(bundle: dict) -> None:
        bundle["dsseEnvelope"]["payload"] = forge.flip_base64(bundle["dsseEnvelope"]["payload"], 100)

    forge.edit_bundle(release, edit)


@attack(Reason.BAD_SIGNATURE)
def flipped_byte_in_the_signature(release: Path) -> None:
    def edit(bundle: dict) -> None:
        entry = bundle["dsseEnvelope"]["signatures"][0]
        entry["sig"] = forge.flip_base64(entry["sig"], -1)

    forge.edit_bundle(release, edit)


@attack(Reason.WRONG_ROOT)
def flipped_digit_in_the_signed_root(release: Path) -> None:
    def edit(statement: dict) -> None:
        digest = statement["subject"][0]["digest"]
        digest["sha256"] = ("1" if digest["sha256"][0] == "0" else "0") + digest["sha256"][1:]

    forge.sign(release, statement=edit)


@attack(Reason.FILE_CHANGED)
def model_of_another_signed_release(release: Path) -> None:
    (release / constants.MODEL_FILE).write_bytes(b"an old model" * 100)


@attack(Reason.FILE_CHANGED)
def new_golden_set_beside_an_old_model(release: Path) -> None:
    (release / constants.GOLDEN_FILE).write_bytes(b"a golden set that the old model passes" * 10)


@attack(Reason.FILE_CHANGED)
def truncated_model(release: Path) -> None:
    path = release / constants.MODEL_FILE
    path.write_bytes(path.read_bytes()[:-1])


# --- the key ------------------------------------------------------------------------------------------------------
@attack(Reason.UNKNOWN_KEY)
def signed_by_a_stranger(release: Path) -> None:
    forge.sign(release, by="stranger")


@attack(Reason.BAD_SIGNATURE)
def signed_by_a_stranger_in_the_owners_name(release: Path) -> None:
    owner = forge.fingerprint("owner").removeprefix("sha256:")
    forge.sign(release, by="stranger", bundle=lambda data: data["verificationMaterial"]["publicKey"].update(hint=owner))


@attack(Reason.NO_KEY_HINT)
def no_word_about_the_key(release: Path) -> None:
    forge.edit_bundle(release, lambda data: data["verificationMaterial"].update(publicKey={}))


@attack(Reason.SIGNATURE_MALFORMED)
def hint_that_is_a_path(release: Path) -> None:
    forge.edit_bundle(release, lambda data: data["verificationMaterial"].update(publicKey={"hint": "../../owner"}))


@attack(Reason.SIGNATURE_MALFORMED)
def certificate_instead_of_a_key(release: Path) -> None:
    material = {"x509CertificateChain": {"certificates": []}, "tlogEntries": []}
    forge.edit_bundle(release, lambda data: data.update(verificationMaterial=material))


# --- the directory ------------------------------------------------------------------------------------------------
def _missing(name: str) -> None:
    def missing(release: Path) -> None:
        (release / name).unlink()

    missing.__name__ = f"missing_{name}"
    attack(Reason.FILE_MISSING)(missing)


for _name in constants.RELEASE_FILES:
    _missing(_name)


@attack(Reason.FILE_UNLISTED)
def unlisted_file(release: Path) -> None:
    (release / "extra.py").write_text("print('hello')")


@attack(Reason.FILE_UNLISTED)
def signed_file_that_no_release_has(release: Path) -> None:
    (release / "extra.py").write_text("print('hello')")
    digest = hashlib.sha256((release / "extra.py").read_bytes()).hexdigest()
    forge.sign_resources(
        release, lambda files: files.insert(0, {"name": "extra.py", "digest": digest, "algorithm": "sha256"})
    )


@attack(Reason.FILE_UNLISTED)
def signature_over_a_file_that_is_not_there(release: Path) -> None:
    forge.sign_resources(
        release, lambda files: files.append({"name": "weights.bin", "digest": "0" * 64, "algorithm": "sha256"})
    )


@attack(Reason.FILE_UNLISTED)
def signature_that_leaves_the_golden_set_out(release: Path) -> None:
    forge.sign_resources(release, lambda files: files.pop(0))


@attack(Reason.FILE_SYMLINK)
def symlinked_model(release: Path) -> None:
    outside = release.parent / "outside.tflite"
    shutil.copyfile(release / constants.MODEL_FILE, outside)
    (release / constants.MODEL_FILE).unlink()
    (release / constants.MODEL_FILE).symlink_to(outside)


@attack(Reason.FILE_SYMLINK)
def symlinked_signature(release: Path) -> None:
    (release / constants.SIGNATURE_FILE).rename(release.parent / "outside.sig")
    (release / constants.SIGNATURE_FILE).symlink_to(release.parent / "outside.sig")


@attack(Reason.FILE_SPECIAL)
def named_pipe_for_a_model(release: Path) -> None:
    (release / constants.MODEL_FILE).unlink()
    os.mkfifo(release / constants.MODEL_FILE)


@attack(Reason.FILE_SPECIAL)
def directory_for_a_model(release: Path) -> None:
    (release / constants.MODEL_FILE).unlink()
    (release / constants.MODEL_FILE).mkdir()


@attack(Reason.FILE_HIDDEN)
def dot_file_that_the_reference_ignores(release: Path) -> None:
    (release / ".gitattributes").write_text("unsigned")


@attack(Reason.FILE_HIDDEN)
def dot_directory_that_the_reference_ignores(release: Path) -> None:
    (release / ".git").mkdir()
    (release / ".git" / "payload").write_text("unsigned")


# --- names inside the signature -----------------------------------------------------------------------------------
def _named(label: str, name: str) -> None:
    def named(release: Path) -> None:
        entry = {"name": name, "digest": "0" * 64, "algorithm": "sha256"}
        forge.sign_resources(release, lambda files: files.insert(0, entry))

    named.__name__ = f"signed_name_{label}"
    attack(Reason.UNSAFE_NAME)(named)


for _label, _text in {
    "parent": "../model.tflite",
    "dotdot": "..",
    "dot": ".",
    "inner_parent": "a/../../model.tflite",
    "absolute": "/etc/passwd",
    "folder": "a/model.tflite",
    "backslash": "a\\model.tflite",
    "hidden": ".model.tflite",
    "empty": "",
    "null": "model.tflite\0",
    "newline": "model\n.tflite",
}.items():
    _named(_label, _text)


@attack(Reason.DUPLICATE_NAME)
def duplicate_name(release: Path) -> None:
    forge.sign_resources(release, lambda files: files.insert(1, dict(files[0])))


@attack(Reason.EMPTY_RESOURCES)
def no_files_signed(release: Path) -> None:
    forge.sign_resources(release, lambda files: files.clear())


@attack(Reason.WRONG_ORDER)
def files_not_sorted(release: Path) -> None:
    forge.sign_resources(release, lambda files: files.reverse())


# --- the form of the bundle ---------------------------------------------------------------------------------------
@attack(Reason.WRONG_MEDIA_TYPE)
def wrong_media_type(release: Path) -> None:
    forge.edit_bundle(
        release, lambda data: data.update(mediaType="application/vnd.dev.sigstore.bundle+json;version=0.3")
    )


@attack(Reason.WRONG_PAYLOAD_TYPE)
def wrong_payload_type(release: Path) -> None:
    forge.sign(release, payload_type="application/json")


@attack(Reason.WRONG_STATEMENT_TYPE)
def wrong_statement_type(release: Path) -> None:
    forge.sign(release, statement=lambda data: data.update(_type="https://in-toto.io/Statement/v0.1"))


@attack(Reason.WRONG_PREDICATE_TYPE)
def wrong_predicate_type(release: Path) -> None:
    forge.sign(release, statement=lambda data: data.update(predicateType="https://model_signing/signature/v0.1"))


@attack(Reason.NO_SIGNATURE)
def no_signatures(release: Path) -> None:
    forge.edit_bundle(release, lambda data: data["dsseEnvelope"].update(signatures=[]))


@attack(Reason.MANY_SIGNATURES)
def second_signature(release: Path) -> None:
    forge.edit_bundle(release, lambda data: data["dsseEnvelope"]["signatures"].append({"sig": "AAAA", "keyid": ""}))


@attack(Reason.SIGNATURE_MALFORMED)
def signed_statement_that_allows_symlinks(release: Path) -> None:
    forge.sign(release, statement=lambda data: data["predicate"]["serialization"].update(allow_symlinks=True))


@attack(Reason.SIGNATURE_MALFORMED)
def signed_statement_that_forbids_symlinks_by_a_number(release: Path) -> None:
    forge.sign(release, statement=lambda data: data["predicate"]["serialization"].update(allow_symlinks=0))


@attack(Reason.SIGNATURE_MALFORMED)
def other_hash(release: Path) -> None:
    forge.sign(release, statement=lambda data: data["predicate"]["resources"][0].update(algorithm="blake2b"))


@attack(Reason.SIGNATURE_MALFORMED)
def two_subjects(release: Path) -> None:
    forge.sign(release, statement=lambda data: data["subject"].append(data["subject"][0]))


@attack(Reason.SIGNATURE_MALFORMED)
def unknown_field_in_the_bundle(release: Path) -> None:
    forge.edit_bundle(release, lambda data: data.update(note="hello"))


@attack(Reason.SIGNATURE_MALFORMED)
def unknown_field_in_the_predicate(release: Path) -> None:
    forge.sign(release, statement=lambda data: data["predicate"].update(sequence=10**9))


@attack(Reason.SIGNATURE_MALFORMED)
def base64_with_noise(release: Path) -> None:
    forge.edit_bundle(release, lambda data: data["dsseEnvelope"].update(payload="\n" + data["dsseEnvelope"]["payload"]))


@attack(Reason.SIGNATURE_MALFORMED)
def base64_with_spare_bits(release: Path) -> None:
    statement = json.dumps(forge.statement_of(release)).encode()
    signed = forge.envelope(statement + b" " * ((1 - len(statement)) % 3))
    text = signed["payload"]
    assert text.endswith("=="), "the last letter has bits that mean nothing"
    signed["payload"] = text[:-3] + chr(ord(text[-3]) + 1) + "=="
    forge.write_bundle(release, signed)


@attack(Reason.SIGNATURE_MALFORMED)
def key_that_stands_twice(release: Path) -> None:
    path = release / constants.SIGNATURE_FILE
    path.write_text(path.read_text().replace('{"mediaType"', '{"mediaType": "x", "mediaType"', 1))


@attack(Reason.SIGNATURE_MALFORMED)
def deeply_nested_signature(release: Path) -> None:
    (release / constants.SIGNATURE_FILE).write_text("[" * 30_000 + "]" * 30_000)


@attack(Reason.SIGNATURE_MALFORMED)
def deeply_nested_signed_payload(release: Path) -> None:
    forge.write_bundle(release, forge.envelope(b"[" * 20_000 + b"]" * 20_000))


@attack(Reason.SIGNATURE_MALFORMED)
def empty_signature_file(release: Path) -> None:
    (release / constants.SIGNATURE_FILE).write_bytes(b"")


@attack(Reason.SIGNATURE_MALFORMED)
def truncated_signature_file(release: Path) -> None:
    path = release / constants.SIGNATURE_FILE
    path.write_bytes(path.read_bytes()[:-20])


@attack(Reason.FILE_TOO_LARGE)
def oversized_signature(release: Path) -> None:
    path = release / constants.SIGNATURE_FILE
    path.write_bytes(path.read_bytes() + b" " * constants.MAX_SIGNATURE)


@attack(Reason.FILE_TOO_LARGE)
def oversized_manifest(release: Path) -> None:
    path = release / constants.MANIFEST_FILE
    path.write_bytes(path.read_bytes() + b" " * constants.MAX_MANIFEST)
    forge.sign(release)


@attack(Reason.FILE_TOO_LARGE)
def oversized_golden_set(release: Path) -> None:
    os.truncate(release / constants.GOLDEN_FILE, constants.MAX_GOLDEN + 1)


@attack(Reason.FILE_TOO_LARGE)
def oversized_model(release: Path) -> None:
    os.truncate(release / constants.MODEL_FILE, constants.MAX_MODEL + 1)


# --- release.json, validly signed ---------------------------------------------------------------------------------
def _signed_manifest(label: str, text: str) -> None:
    def damage(release: Path) -> None:
        (release / constants.MANIFEST_FILE).write_text(text)
        forge.sign(release)

    damage.__name__ = f"signed_manifest_{label}"
    attack(Reason.MANIFEST_MALFORMED)(damage)


for _label, _text in {
    "deeply_nested": "[" * 30_000 + "]" * 30_000,
    "empty": "",
    "list": "[]",
    "no_keys": "{}",
    "not_json": "name: fruit",
    "nan": json.dumps({"name": float("nan")}),
    "surrogate": '{"name": "\\ud800"}',
}.items():
    _signed_manifest(_label, _text)


def _signed_value(label: str, **values: object) -> None:
    def damage(release: Path) -> None:
        forge.edit_manifest(release, lambda data: data.update(values))
        forge.sign(release)

    damage.__name__ = f"signed_manifest_{label}"
    attack(Reason.MANIFEST_MALFORMED)(damage)


_signed_value("unknown_key", colour="red")
_signed_value("name_is_a_path", name="../fruit")
_signed_value("version_with_a_slash", version="1/2")
_signed_value("sequence_is_text", sequence="5")
_signed_value("sequence_is_true", sequence=True)
_signed_value("sequence_is_a_fraction", sequence=1.5)
_signed_value("sequence_zero", sequence=0)
_signed_value("sequence_beyond_64_bits", sequence=2**63)
_signed_value("expires_before_creation", expires=5)
_signed_value("minimum_agent_is_no_version", minimum_agent="newest")
_signed_value("k_zero", k=0)
_signed_value("n_features_zero", n_features=0)
_signed_value("created_before_1970", created=-1)
_signed_value("device_class_is_a_path", device_class="../any")
_signed_value("minimum_runtime_is_no_version", minimum_runtime="newest")
_signed_value("accuracy_over_one", gates={"accuracy": 1.5})
_signed_value("accuracy_under_nothing", gates={"accuracy": -0.1})
_signed_value("margin_over_one", gates={"margin": 1.5})
_signed_value("margin_under_nothing", gates={"margin": -1e-9})
_signed_value("latency_of_nothing", gates={"latency_ms": 0.0})
_signed_value("labels_digest_is_none", labels_sha256="abc")


@attack(Reason.AGENT_TOO_OLD)
def manifest_of_a_later_schema(release: Path) -> None:
    forge.edit_manifest(release, lambda data: data.update(schema=constants.SCHEMA + 1, new_key=1))
    forge.sign(release)

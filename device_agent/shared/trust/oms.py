"""Reads `model.sig`, an OpenSSF Model Signing v1.0 bundle.

The bundle must have one signature by a plain key (not a certificate), a key hint, the files in sorted order and no
unknown field. Does no I/O. Returns what the signature claims; `rules` compares that with the directory and decides.
Format: https://github.com/ossf/model-signing-spec
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.record import record
from device_agent.shared.trust import dsse
from device_agent.shared.trust.reasons import Reason, refused

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
#: Names that the reference verifier (model_signing) skips. This one skips none: a release has only the signature.
IGNORED = (".git", ".gitattributes", ".github", ".gitignore", constants.SIGNATURE_FILE)

_RESIGN = "knnkit sign DIRECTORY"


@record
class Bundle:
    """The content of a well-formed `model.sig`: who claims to have signed, and the envelope; not verified yet."""

    hint: str  # SHA-256 of the signer's public key, hex
    envelope: dsse.Envelope

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the key that the bundle names as its signer; not verified."""
        return dsse.FINGERPRINT_PREFIX + self.hint


@record
class Statement:
    """What a signature signs: the digest of each file, and `root`, a digest over these digests."""

    root: str  # SHA-256 over the files' digests: the release's identity
    resources: Mapping[str, str]  # file name -> SHA-256, hex


def root_digest(digests: Iterable[str]) -> str:
    """Returns the root digest over hexadecimal SHA-256 `digests`, given in the order of their files' names."""
    root = hashlib.sha256()
    for digest in digests:
        root.update(bytes.fromhex(digest))
    return root.hexdigest()


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    """Turns a MalformedDocument that the decorated function raises into a Refused."""
    try:
        yield
    except json_codec.MalformedDocument as error:
        raise _bad(Reason.SIGNATURE_MALFORMED, str(error)) from None


def _bad(reason: Reason, what: str) -> Exception:
    return refused(reason, f"{constants.SIGNATURE_FILE}: {what}", _RESIGN)


@_refused()
def read_bundle(data: bytes) -> Bundle:
    """Reads the bytes of `model.sig`.

    Raises:
        Refused: the bundle is malformed, is of another type, names no key, or has not exactly one signature.
    """
    parsed = json_codec.parse(data, limit=constants.MAX_SIGNATURE)
    found = dsse.expect_object(parsed, "$", ("mediaType", "verificationMaterial", "dsseEnvelope"))
    if found["mediaType"] != MEDIA_TYPE:
        raise _bad(Reason.WRONG_MEDIA_TYPE, f"its mediaType is not {MEDIA_TYPE}")
    hint = _read_hint(found["verificationMaterial"])
    envelope = dsse.read_envelope(found["dsseEnvelope"], "$.dsseEnvelope")
    if envelope.payload_type != PAYLOAD_TYPE:
        raise _bad(Reason.WRONG_PAYLOAD_TYPE, f"its payloadType is not {PAYLOAD_TYPE}")
    if not envelope.signatures:
        raise _bad(Reason.NO_SIGNATURE, "it contains no signature")
    if len(envelope.signatures) > 1:
        raise _bad(Reason.MANY_SIGNATURES, "it contains more than one signature")
    return Bundle(hint, envelope)


def _read_hint(data: Any) -> str:
    where = "$.verificationMaterial"
    material = dsse.expect_object(data, where, ("publicKey",), ("tlogEntries",))
    if dsse.expect(list, material.get("tlogEntries", []), f"{where}.tlogEntries"):
        raise json_codec.MalformedDocument(f"{where}.tlogEntries: a release is signed with a key, not with a log entry")
    key = dsse.expect_object(material["publicKey"], f"{where}.publicKey", (), ("hint",))
    hint = dsse.expect(str, key.get("hint", ""), f"{where}.publicKey.hint")
    if not hint:
        raise _bad(Reason.NO_KEY_HINT, "it does not say which key signed it")
    if not constants.is_digest(hint):
        raise json_codec.MalformedDocument(f"{where}.publicKey.hint: not a SHA-256")
    return hint


@_refused()
def read_statement(payload: bytes) -> Statement:
    """Reads the payload of an envelope whose signature has been verified.

    Raises:
        Refused: the payload is malformed or of another type; it names no file, a file twice, an unsafe file name or
            files out of order; or its root digest is wrong.
    """
    parsed = json_codec.parse(payload, limit=constants.MAX_SIGNATURE)
    found = dsse.expect_object(parsed, "payload", ("_type", "subject", "predicateType", "predicate"))
    if found["_type"] != STATEMENT_TYPE:
        raise _bad(Reason.WRONG_STATEMENT_TYPE, f"the _type of its payload is not {STATEMENT_TYPE}")
    if found["predicateType"] != PREDICATE_TYPE:
        raise _bad(Reason.WRONG_PREDICATE_TYPE, f"the predicateType of its payload is not {PREDICATE_TYPE}")
    root = _read_subject(found["subject"])
    predicate = dsse.expect_object(found["predicate"], "payload.predicate", ("resources", "serialization"))
    _check_serialization(predicate["serialization"])
    resources = _read_resources(predicate["resources"])
    if root_digest(resources.values()) != root:
        raise _bad(Reason.WRONG_ROOT, "its digest of the whole release does not match its digests of the files")
    return Statement(root, resources)


def _read_subject(data: Any) -> str:
    subjects = dsse.expect(list, data, "payload.subject")
    if len(subjects) != 1:
        raise json_codec.MalformedDocument("payload.subject: expected one entry")
    subject = dsse.expect_object(subjects[0], "payload.subject[0]", ("digest",), ("name",))
    digest = dsse.expect_object(subject["digest"], "payload.subject[0].digest", ("sha256",))
    dsse.expect(str, subject.get("name", ""), "payload.subject[0].name")  # of the directory; not used
    return _digest(digest["sha256"], "payload.subject[0].digest.sha256")


def _digest(data: Any, where: str) -> str:
    text = dsse.expect(str, data, where)
    if not constants.is_digest(text):
        raise json_codec.MalformedDocument(f"{where}: not a SHA-256 in lowercase hexadecimal")
    return text


def _check_serialization(data: Any) -> None:
    where = "payload.predicate.serialization"
    found = dsse.expect_object(data, where, ("method", "hash_type"), ("allow_symlinks", "ignore_paths"))
    if found["method"] != "files" or found["hash_type"] != "sha256" or found.get("allow_symlinks", False) is not False:
        raise json_codec.MalformedDocument(f"{where}: expected whole files, sha256 and no symlinks")
    # Only its form is checked: no file of a release is ignored.
    for index, path in enumerate(dsse.expect(list, found.get("ignore_paths", []), f"{where}.ignore_paths")):
        dsse.expect(str, path, f"{where}.ignore_paths[{index}]")


def _read_resources(data: Any) -> dict[str, str]:
    resources: dict[str, str] = {}
    for index, entry in enumerate(dsse.expect(list, data, "payload.predicate.resources")):
        where = f"payload.predicate.resources[{index}]"
        fields = dsse.expect_object(entry, where, ("name", "digest", "algorithm"))
        name = dsse.expect(str, fields["name"], f"{where}.name")
        if name.startswith((".", "/")) or "/" in name or "\\" in name or not name.isprintable() or not name:
            raise refused(Reason.UNSAFE_NAME, f"the signature names the file {name!r}; a release is a flat directory")
        if name in resources:
            raise refused(Reason.DUPLICATE_NAME, f"the signature names the file {name!r} twice")
        if fields["algorithm"] != "sha256":
            raise json_codec.MalformedDocument(f"{where}.algorithm: expected sha256")
        resources[name] = _digest(fields["digest"], f"{where}.digest")
    if not resources:
        raise _bad(Reason.EMPTY_RESOURCES, "it names no file")
    if list(resources) != sorted(resources):
        raise _bad(Reason.WRONG_ORDER, "the files in it are not sorted by name")
    return resources

"""DSSE envelopes and ECDSA keys: reads and verifies them.

A DSSE envelope is JSON with a payload and its signatures. Supports the curves P-256, P-384 and P-521, each with its own
hash. A fingerprint is `sha256:` and the SHA-256 of the public key's PEM text, as `sha256sum` prints it for the file.
Does no I/O, and does not decide which key is trusted. Format:
https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING, Any, TypeVar

from device_agent.shared.protocol import json_codec
from device_agent.shared.protocol.record import record
from device_agent.shared.trust import fingerprints
from device_agent.shared.trust.reasons import Reason, refused

if TYPE_CHECKING:  # takes 45 ms to load, and some commands (`confirm`) verify nothing
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

T = TypeVar("T")
FINGERPRINT_PREFIX = fingerprints.PREFIX

#: Curve -> the name of the hash that goes with it.
_HASHES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}


@record
class Signature:
    """One signature of an envelope; `keyid` names a key to try, but is not signed."""

    keyid: str
    sig: bytes


@record
class Envelope:
    """A payload and its signatures, not yet verified."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]


def pae(payload_type: str, payload: bytes) -> bytes:
    """Returns the bytes that a signature covers (DSSE's pre-authentication encoding)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def expect_object(data: Any, where: str, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """Returns `data`, a JSON value, if it is an object with all `required` keys, and no others except `optional` ones.

    Raises:
        MalformedDocument: `data` is not such an object; the message names the place `where`.
    """
    if not isinstance(data, dict):
        raise json_codec.MalformedDocument(f"{where}: expected an object, found {json_codec.kind_of(data)}")
    for key in required:
        if key not in data:
            raise json_codec.MalformedDocument(f"{where}: the key {key!r} is missing")
    for key in data:
        if key not in required and key not in optional:
            raise json_codec.MalformedDocument(f"{where}: unknown key {key!r}")
    return data


def expect(kind: type[T], data: Any, where: str) -> T:
    """Returns `data`, a JSON value, if it has the type `kind`: `str` or `list`.

    Raises:
        MalformedDocument: `data` has another type; the message names the place `where`.
    """
    if not isinstance(data, kind):
        expected = "a string" if kind is str else "an array"
        raise json_codec.MalformedDocument(f"{where}: expected {expected}, found {json_codec.kind_of(data)}")
    return data


def read_envelope(data: Any, where: str = "$") -> Envelope:
    """Reads a parsed envelope strictly: no unknown key, canonical base64 only.

    Raises:
        MalformedDocument: `data` is malformed; the message names the place, which begins with `where`.
    """
    found = expect_object(data, where, ("payload", "payloadType", "signatures"))
    signatures = []
    for index, entry in enumerate(expect(list, found["signatures"], f"{where}.signatures")):
        place = f"{where}.signatures[{index}]"
        fields = expect_object(entry, place, ("sig",), ("keyid",))
        keyid = expect(str, fields.get("keyid", ""), f"{place}.keyid")
        signatures.append(Signature(keyid, _base64(fields["sig"], f"{place}.sig")))
    payload_type = expect(str, found["payloadType"], f"{where}.payloadType")
    return Envelope(payload_type, _base64(found["payload"], f"{where}.payload"), tuple(signatures))


def dump_envelope(envelope: Envelope) -> dict[str, Any]:
    """Returns key -> value of an envelope, as the JSON object that `read_envelope` reads."""
    signatures = [{"sig": base64.b64encode(entry.sig).decode(), "keyid": entry.keyid} for entry in envelope.signatures]
    payload = base64.b64encode(envelope.payload).decode()
    return {"payload": payload, "payloadType": envelope.payload_type, "signatures": signatures}


def _base64(data: Any, where: str) -> bytes:
    text = expect(str, data, where)
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        raise json_codec.MalformedDocument(f"{where}: not base64") from None
    # Spare bits and missing padding would let two texts mean the same bytes.
    if base64.b64encode(raw).decode() != text:
        raise json_codec.MalformedDocument(f"{where}: not canonical base64")
    return raw


def load_public_key(pem: bytes) -> ec.EllipticCurvePublicKey:
    """Loads a PEM public key.

    Raises:
        Refused: KEY_MALFORMED: `pem` has over 4,096 bytes, is not a public key, or its curve is not supported.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        if len(pem) > fingerprints.MAX_PUBLIC_KEY:
            raise ValueError
        if (point := fingerprints.point_of(pem)) is not None:
            return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        from cryptography.hazmat.primitives import serialization  # takes longer to load than all else here

        key = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        first = "-----BEGIN PUBLIC KEY-----"
        why = "it is damaged" if first.encode() in pem else f"the text has no line {first}"
        raise refused(Reason.KEY_MALFORMED, f"not a public key in PEM form: {why}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
        raise refused(Reason.KEY_MALFORMED, "the key is not on the curve P-256, P-384 or P-521", "knnkit keygen")
    return key


def public_pem(key: ec.EllipticCurvePublicKey) -> bytes:
    """Returns the PEM text of `key` in the exact form that fingerprints are computed from."""
    from cryptography.hazmat.primitives import serialization

    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def fingerprint(pem: bytes) -> str:
    """Returns `sha256:<64 hex digits>` of a public key, whatever the line breaks of its PEM text.

    Raises:
        Refused: KEY_MALFORMED: `pem` is not a supported public key.
    """
    key = load_public_key(pem)
    return fingerprints.at_sight(pem) or FINGERPRINT_PREFIX + hashlib.sha256(public_pem(key)).hexdigest()


def hash_of(key: ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey) -> hashes.HashAlgorithm:
    """Returns the hash algorithm for the key's curve."""
    from cryptography.hazmat.primitives import hashes

    algorithm: hashes.HashAlgorithm = getattr(hashes, _HASHES[key.curve.name])()
    return algorithm


def is_signed_by(pem: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the key `pem` made the DER-encoded ECDSA `signature` over `message`.

    Raises:
        Refused: KEY_MALFORMED: `pem` is not a supported public key.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec

    key = load_public_key(pem)
    try:
        key.verify(signature, message, ec.ECDSA(hash_of(key)))
    except (InvalidSignature, ValueError):
        return False
    return True

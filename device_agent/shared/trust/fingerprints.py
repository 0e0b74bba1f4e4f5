"""Fingerprints of public keys, from their PEM text alone.

Does not load cryptography, and does not check that the key is valid: code that verifies parses the key and computes
its fingerprint again (`dsse.fingerprint`).
"""

from __future__ import annotations

import binascii
import contextlib
import importlib
import re

PREFIX = "sha256:"
#: Largest public key file that is read, in bytes (a P-521 key has 268).
MAX_PUBLIC_KEY = 4096
#: A P-256 key as `public_pem` writes it: a 27-byte header of an uncompressed point, then the 64 bytes of the point.
_P256 = re.compile(
    rb"-----BEGIN PUBLIC KEY-----\n"
    rb"(MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE[A-Za-z0-9+/]{28}\n[A-Za-z0-9+/]{57}[AQgw]==)\n"
    rb"-----END PUBLIC KEY-----\n"
)


def at_sight(pem: bytes) -> str | None:
    """Returns the fingerprint of a P-256 key in PEM text as knnkit writes it; None for any other text."""
    return PREFIX + _sha256(pem) if _P256.fullmatch(pem) else None


def point_of(pem: bytes) -> bytes | None:
    """Returns the 65-byte point, perhaps not on the curve, of a P-256 key as knnkit writes it; None for other text."""
    found = _P256.fullmatch(pem)
    return binascii.a2b_base64(found[1])[26:] if found else None


def _sha256(data: bytes) -> str:
    """Returns a SHA-256 in hexadecimal.

    Imports `hashlib` only if Python lacks the smaller modules: it loads OpenSSL, which takes 3 ms.
    """
    for name in ("_sha2", "_sha256"):  # since Python 3.12, and before
        with contextlib.suppress(ImportError):
            return str(importlib.import_module(name).sha256(data).hexdigest())
    return importlib.import_module("hashlib").sha256(data).hexdigest()  # type: ignore[no-any-return]

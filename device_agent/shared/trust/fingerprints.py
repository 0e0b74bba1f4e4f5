"""What public keys are called, told from their text alone. Loads no cryptography, and says nothing of their worth.

A fingerprint is `sha256:` and the SHA-256 of the key's PEM text as `public_pem` writes it,
which is what `sha256sum` prints for the file. Who verifies with a key parses it, and asks anew what it is called.
"""

from __future__ import annotations

import contextlib
import importlib
import re

PREFIX = "sha256:"
#: Largest public key file that is read, in bytes (a P-521 key has 268).
MAX_PUBLIC_KEY = 4096
#: A P-256 key in that one form: 27 bytes that say so and begin an uncompressed point, then 64 bytes of the point.
_P256 = re.compile(
    rb"-----BEGIN PUBLIC KEY-----\n"
    rb"MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE[A-Za-z0-9+/]{28}\n[A-Za-z0-9+/]{57}[AQgw]==\n"
    rb"-----END PUBLIC KEY-----\n"
)


def at_sight(pem: bytes) -> str | None:
    """Returns the fingerprint of a P-256 key as knnkit writes it, None for any other text, which has to be parsed."""
    return PREFIX + _sha256(pem) if _P256.fullmatch(pem) else None


def _sha256(data: bytes) -> str:
    """As `hashlib` has it, which loads OpenSSL first: 3 ms. The standard library's `random` goes round it likewise."""
    for name in ("_sha2", "_sha256"):  # since Python 3.12, and before
        with contextlib.suppress(ImportError):
            return str(importlib.import_module(name).sha256(data).hexdigest())
    return importlib.import_module("hashlib").sha256(data).hexdigest()  # type: ignore[no-any-return]

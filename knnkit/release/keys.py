"""Makes and loads signing keys on the host.

A private key is a PKCS#8 PEM file that only its owner can read; the public key beside it ends in `.pub`. Never prints
or copies a private key.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from device_agent.shared.safe_files import folder_for, write_new
from device_agent.shared.trust import dsse
from knnkit.data.patterns import nearest
from knnkit.errors import SigningKeyError, raised_as, unwritten

PUBLIC_SUFFIX = ".pub"
PRIVATE_SUFFIX = ".pem"
PASSPHRASE_VARIABLE = "KNNKIT_KEY_PASSPHRASE"  # noqa: S105 - the name of a variable, not a secret
MAX_KEY_FILE = 16 * 1024
_OTHER_WORDS = f"type it again; if {PASSPHRASE_VARIABLE} is set, it is the passphrase: correct or unset it"
_PUBLIC_FROM = f"check the path; a public key is the file NAME{PUBLIC_SUFFIX} beside the signer's private key"


@dataclass(frozen=True)
class KeyPair:
    """Paths of the two files of a new key, and the fingerprint of its public key."""

    private: Path
    public: Path
    fingerprint: str


def generate(prefix: Path, passphrase: bytes | None = None) -> KeyPair:
    """Makes a P-256 key: `prefix.pem` (mode 0600, encrypted unless `passphrase` is None) and `prefix.pub`.

    Raises:
        SigningKeyError: one of the files exists, or cannot be written; no file is left behind.
    """
    private, public = Path(f"{prefix}{PRIVATE_SUFFIX}"), Path(f"{prefix}{PUBLIC_SUFFIX}")
    for path in (private, public):
        if path.exists() or path.is_symlink():
            other = shlex.quote(f"{prefix}-2")
            hint = f"use this key, or make another one: knnkit keygen --out {other}"
            raise SigningKeyError(f"{path} exists; a key is never overwritten", hint=hint)
    key = ec.generate_private_key(ec.SECP256R1())
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase)
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    pem = dsse.public_pem(key.public_key())
    try:
        with folder_for(prefix.parent, 0o700):
            write_new(private, secret, 0o600)
            try:
                write_new(public, pem, 0o644)
            except BaseException:
                private.unlink()
                raise
    except OSError as error:
        raise unwritten(f"cannot write the key {prefix}", error, SigningKeyError, "choose another --out") from None
    return KeyPair(private, public, dsse.fingerprint(pem))


def load_private_key(path: Path, passphrase: bytes | None = None) -> ec.EllipticCurvePrivateKey:
    """Loads a private key that only its owner can read.

    Raises:
        SigningKeyError: the file is missing, readable by others or not a key, the curve is not supported, or the
            passphrase is wrong or missing.
    """
    data = _read(path, private=True)
    try:
        key = serialization.load_pem_private_key(data, passphrase)
    except TypeError:
        if passphrase is None:
            raise SigningKeyError(
                f"{path} is protected by a passphrase", hint=f"set {PASSPHRASE_VARIABLE}, or use a terminal"
            ) from None
        return load_private_key(path)  # the key has no passphrase: none is needed
    except (ValueError, UnsupportedAlgorithm):
        if passphrase is not None and b"ENCRYPTED" in data:
            raise SigningKeyError(f"the passphrase of {path} is wrong", hint=_OTHER_WORDS) from None
        _require_not_public(path, data)
        raise SigningKeyError(f"{path} is not a private key in PEM form", hint="knnkit keygen") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SigningKeyError(f"{path} is not an ECDSA key", hint="knnkit keygen")
    with raised_as(SigningKeyError, path, _PUBLIC_FROM):
        dsse.load_public_key(dsse.public_pem(key.public_key()))
    return key


def is_encrypted(path: Path) -> bool:
    """Whether the private key in `path` needs a passphrase.

    Raises:
        SigningKeyError: the file cannot be read, or other users can read it.
    """
    return b"ENCRYPTED" in _read(path, private=True)


def load_public_keys(paths: Iterable[Path]) -> dict[str, bytes]:
    """Returns fingerprint -> PEM text of public key files.

    Raises:
        SigningKeyError: a file is missing or does not hold a public key.
    """
    keys = {}
    for path in paths:
        data = _read(path, private=False)
        if b"PRIVATE KEY" in data:
            raise SigningKeyError(
                f"{path} is a private key; it must stay on this machine", hint=f"use {path.with_suffix(PUBLIC_SUFFIX)}"
            )
        with raised_as(SigningKeyError, path, _PUBLIC_FROM):
            pem = dsse.public_pem(dsse.load_public_key(data))
        keys[dsse.fingerprint(pem)] = pem
    return keys


def _require_not_public(path: Path, data: bytes) -> None:
    if b"BEGIN PUBLIC KEY" in data:
        hint = f"use {path.with_suffix(PRIVATE_SUFFIX)}"
        raise SigningKeyError(f"{path} is a public key; signing needs a private key", hint=hint)


def _read(path: Path, *, private: bool) -> bytes:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if private and found.st_mode & 0o077:
                _require_not_public(path, file.read(MAX_KEY_FILE))
                raise SigningKeyError(
                    f"{path} can be read by other users (mode {stat.S_IMODE(found.st_mode):04o}); it was not used",
                    hint=f"chmod 600 {shlex.quote(str(path))}",
                )
            return file.read(MAX_KEY_FILE)
    except FileNotFoundError as error:
        hint = f"knnkit keygen --out {shlex.quote(str(path.with_suffix('')))}" if private else _PUBLIC_FROM
        kinds = (path.suffix, PRIVATE_SUFFIX if private else PUBLIC_SUFFIX)  # `keys/signing`, as keygen takes it
        hint = nearest(path, kinds, hint) if path.parent.is_dir() else hint
        raise SigningKeyError(f"cannot read the key {path}: {error.strerror}", hint=hint) from None
    except OSError as error:
        hint = f"ls -l {shlex.quote(str(path))}"
        raise SigningKeyError(f"cannot read the key {path}: {error.strerror}", hint=hint) from None


def show_fingerprint(fingerprint: str) -> str:
    """Returns a fingerprint in groups of four digits, `1f3a 90c2 …`, for two people to compare by eye or telephone."""
    digits = fingerprint.removeprefix(dsse.FINGERPRINT_PREFIX)
    return " ".join(digits[start : start + 4] for start in range(0, len(digits), 4))

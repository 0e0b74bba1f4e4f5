"""Signs a release directory.

Writes `model.sig`, an OpenSSF Model Signing v1.0 bundle. `Signer` is the interface of a key, so that a hardware token
or a key service can be used; `FileSigner` is a PEM file. Refuses to sign a release that every device would refuse as
malformed. Format: https://github.com/ossf/model-signing-spec
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

from cryptography.hazmat.primitives.asymmetric import ec

from device_agent.shared.arguments import path_text
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import Refused
from device_agent.shared.release import directory as release_files
from device_agent.shared.safe_files import whole_file
from device_agent.shared.trust import dsse, oms, reasons, rules
from device_agent.shared.trust.manifest import read_manifest
from knnkit.errors import SigningKeyError, UsageError, VerificationFailed, raised_as, unwritten
from knnkit.release import keys


class Signer(Protocol):
    """Interface of a signing key on the curve P-256, P-384 or P-521."""

    @property
    def public_pem(self) -> bytes:
        """The public key in PEM form (SubjectPublicKeyInfo)."""

    def sign(self, message: bytes) -> bytes:
        """Returns a DER-encoded ECDSA signature over `message`, with the hash of the curve (`dsse.hash_of`)."""


class FileSigner:
    """Signs with a private key from a PEM file."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key

    @classmethod
    def load(cls, path: Path, passphrase: bytes | None = None) -> FileSigner:
        """Loads the key in `path`; its passphrase is None if it has none.

        Raises:
            SigningKeyError: the file is missing, readable by other users or not a key, the curve is not supported, or
                the passphrase is wrong or missing.
        """
        return cls(keys.load_private_key(path, passphrase))

    @property
    def public_pem(self) -> bytes:
        """The public key in PEM form (SubjectPublicKeyInfo)."""
        return dsse.public_pem(self._key.public_key())

    def sign(self, message: bytes) -> bytes:
        """Returns a DER-encoded ECDSA signature over `message`."""
        return self._key.sign(message, ec.ECDSA(dsse.hash_of(self._key)))


def sign_release(directory: Path, signer: Signer) -> rules.Verdict:
    """Signs the release in `directory`, replacing any signature, and verifies the result.

    Returns:
        The verdict of the device's rules on the signed release.

    Raises:
        VerificationFailed: the directory is not a release that a device could accept; nothing was written.
        SigningKeyError: the signature does not match the signer's public key, or cannot be written.
        UsageError: there is no such directory.
    """
    require_directory(directory)
    opened = release_files.open_release(directory.resolve(), signed=False)
    with raised_as(VerificationFailed, directory), opened as release:
        read_manifest(release.read(constants.MANIFEST_FILE))
        digests = {name: fact.sha256 for name, fact in release.files.items()}
        name = directory.resolve().name.encode("utf-8", "replace").decode()
        bundle = make_bundle(name, digests, signer)
        verdict = _check(bundle, release, signer)
    try:
        with whole_file(directory / constants.SIGNATURE_FILE) as file:
            file.write(bundle)
    except OSError as error:
        said = f"cannot write {directory / constants.SIGNATURE_FILE}"
        raise unwritten(said, error, SigningKeyError) from None
    return verdict


def require_directory(directory: Path) -> None:
    """Checks that `directory` is a directory.

    Raises:
        UsageError: it is missing, or is not a directory.
    """
    if not directory.exists():
        raise UsageError(f"{directory}: there is no such directory", hint="knnkit build makes it")
    if not directory.is_dir():
        raise UsageError(f"{directory} is not a release directory", hint="knnkit build makes one")


def _check(bundle: bytes, release: release_files.OpenRelease, signer: Signer) -> rules.Verdict:
    fingerprint = dsse.fingerprint(signer.public_pem)
    state = rules.TrustState(keys={fingerprint: signer.public_pem}, committed_digest=None)
    try:
        verdict = rules.verify_accepted(
            digest=oms.root_digest(fact.sha256 for _, fact in sorted(release.files.items())),
            bundle=bundle,
            manifest=release.read(constants.MANIFEST_FILE),
            files=release.files,
            state=state,
            now=rules.AGENT_EPOCH,
        )
        return replace(verdict, warnings=())  # `now` is not the real time, so warnings about it mean nothing
    except Refused as error:
        if error.reason == reasons.Reason.BAD_SIGNATURE.value:
            raise SigningKeyError("the signer's signature does not match its public key", reason=error.reason) from None
        raise


def make_bundle(subject: str, digests: dict[str, str], signer: Signer) -> bytes:
    """Returns the bytes of `model.sig` of the release called `subject`, with `digests`, file name -> SHA-256 (hex)."""
    names = sorted(digests)
    statement = {
        "_type": oms.STATEMENT_TYPE,
        "subject": [{"name": subject, "digest": {"sha256": oms.root_digest(digests[name] for name in names)}}],
        "predicateType": oms.PREDICATE_TYPE,
        "predicate": {
            "resources": [{"name": name, "digest": digests[name], "algorithm": "sha256"} for name in names],
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": list(oms.IGNORED),
            },
        },
    }
    payload = json.dumps(statement, sort_keys=True).encode()
    signature = dsse.Signature("", signer.sign(dsse.pae(oms.PAYLOAD_TYPE, payload)))
    envelope = dsse.Envelope(oms.PAYLOAD_TYPE, payload, (signature,))
    public = dsse.public_pem(dsse.load_public_key(signer.public_pem))
    bundle = {
        "mediaType": oms.MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": hashlib.sha256(public).hexdigest()}, "tlogEntries": []},
        "dsseEnvelope": dsse.dump_envelope(envelope),
    }
    return json.dumps(bundle).encode()


def load_signer(path: Path) -> FileSigner:
    """Returns the signer of the private key in `path`; asks for a passphrase only if the key has one.

    If $KNNKIT_KEY_PASSPHRASE is set, it is the passphrase, and nobody is asked.

    Raises:
        SigningKeyError: the file is missing, readable by other users or not a key, the curve is not supported, or the
            passphrase is wrong, or needed while there is no terminal.
    """
    return FileSigner.load(path, _ask(f"Passphrase of {path}: ") if keys.is_encrypted(path) else None)


def signer_of(given: Any) -> Signer:
    """Returns `given` if it is a signer, else the signer of the private key in the file `given`.

    Raises:
        SigningKeyError: `given` is neither a signer nor a path, or the key in the file cannot be loaded.
    """
    if hasattr(given, "sign") and hasattr(given, "public_pem"):
        return cast("Signer", given)
    return load_signer(Path(path_text(given, "signing_key", SigningKeyError)))


def choose() -> bytes:
    """Returns a new passphrase: $KNNKIT_KEY_PASSPHRASE, or else what the user types twice on the terminal.

    Raises:
        SigningKeyError: the passphrase is empty, the two inputs differ, or there is no terminal.
    """
    secret = _ask("New passphrase: ")
    if not os.environ.get(keys.PASSPHRASE_VARIABLE) and _ask("The same passphrase again: ") != secret:
        raise SigningKeyError("the two passphrases differ; no key was made", hint="knnkit keygen --passphrase")
    if not secret:
        raise SigningKeyError("an empty passphrase protects nothing; no key was made", hint="leave out --passphrase")
    return secret


def _ask(prompt: str) -> bytes:
    given = os.environ.get(keys.PASSPHRASE_VARIABLE)
    if given:
        return given.encode()
    if not sys.stdin.isatty():
        raise SigningKeyError(
            "a passphrase is needed, and there is no terminal to ask for it", hint=f"set {keys.PASSPHRASE_VARIABLE}"
        )
    return getpass.getpass(prompt).encode()

"""Makes releases, and breaks them: everything an attacker could do, with and without the signing key."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.model_info import Gates, Manifest
from device_agent.shared.release import directory as release_files
from device_agent.shared.trust import dsse, oms, rules
from device_agent.shared.trust.manifest import read_manifest
from knnkit.release.manifest import write_manifest
from knnkit.release.signing import FileSigner

#: The clock of the tests: 2027-01-15, after the agent's epoch.
NOW = 1_800_000_000
CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}

MANIFEST = Manifest(
    name="fruit",
    version="1.0.0",
    sequence=NOW - 1000,
    created=NOW - 1000,
    expires=None,
    device_class="any",
    minimum_agent="0.1.0",
    minimum_runtime="1.7.0",
    k=3,
    n_features=2,
    labels_sha256="0" * 64,
    gates=Gates(),
)


@cache
def _key(name: str, curve: str) -> FileSigner:
    return FileSigner(ec.generate_private_key(CURVES[curve]))


def signer(name: str = "owner", curve: str = "P-256") -> FileSigner:
    """Returns one key per name: the same one in every test."""
    return _key(name, curve)


def fingerprint(name: str = "owner", curve: str = "P-256") -> str:
    return dsse.fingerprint(signer(name, curve).public_pem)


def keys(*names: str) -> dict[str, bytes]:
    return {fingerprint(name): signer(name).public_pem for name in names or ("owner",)}


def state(**changes: Any) -> rules.TrustState:
    """The trust state of a device that committed another release of the same model long ago."""
    known = rules.TrustState(
        keys=keys(),
        floor=NOW - 2000,
        floor_digest="f" * 64,
        committed_digest="f" * 64,
        name="fruit",
        device_class="greenhouse",
        agent_version="0.1.0",
        runtime_version="tflite_runtime 2.14.0",
        time_floor=NOW - 2000,
        device_id="d" * 32,
    )
    return replace(known, **changes)


def write(directory: Path, model: bytes = b"a model" * 100, **changes: Any) -> Path:
    """Writes a release of made-up bytes and signs it; `changes` go into release.json."""
    directory.mkdir()
    (directory / constants.MODEL_FILE).write_bytes(model)
    (directory / constants.GOLDEN_FILE).write_bytes(b"a golden set" * 20)
    change_manifest(directory, MANIFEST, **changes)
    sign(directory)
    return directory


def change_manifest(directory: Path, manifest: Manifest | None = None, **changes: Any) -> None:
    path = directory / constants.MANIFEST_FILE
    manifest = manifest or read_manifest(path.read_bytes())
    path.write_bytes(write_manifest(replace(manifest, **changes)))


def edit_manifest(directory: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Changes release.json as text that need not be a manifest any more."""
    path = directory / constants.MANIFEST_FILE
    data = json.loads(path.read_bytes())
    edit(data)
    path.write_text(json.dumps(data))


def copy(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target))


def statement_of(directory: Path) -> dict[str, Any]:
    """Returns the statement that an honest signature covers, as the specification defines it."""
    resources = [
        {"name": name, "digest": hashlib.sha256((directory / name).read_bytes()).hexdigest(), "algorithm": "sha256"}
        for name in sorted(constants.SIGNED_FILES)
    ]
    return {
        "_type": oms.STATEMENT_TYPE,
        "subject": [{"name": directory.name, "digest": {"sha256": root_of(resources)}}],
        "predicateType": oms.PREDICATE_TYPE,
        "predicate": {
            "resources": resources,
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [constants.SIGNATURE_FILE],
            },
        },
    }


def root_of(resources: list[dict[str, str]]) -> str:
    return hashlib.sha256(b"".join(bytes.fromhex(entry["digest"]) for entry in resources)).hexdigest()


def sign(
    directory: Path,
    *,
    by: str = "owner",
    statement: Callable[[dict[str, Any]], object] = lambda data: None,
    bundle: Callable[[dict[str, Any]], object] = lambda data: None,
    payload_type: str = oms.PAYLOAD_TYPE,
) -> None:
    """Signs the statement as changed by `statement`; then `bundle` changes parts outside the signature."""
    claimed = statement_of(directory)
    statement(claimed)
    write_bundle(directory, envelope(json.dumps(claimed).encode(), by, payload_type), by, bundle)


def sign_resources(directory: Path, edit: Callable[[list[dict[str, str]]], object]) -> None:
    """Signs an edited list of files, with the root digest that goes with it."""

    def change(claimed: dict[str, Any]) -> None:
        resources = claimed["predicate"]["resources"]
        edit(resources)
        claimed["subject"][0]["digest"]["sha256"] = root_of(resources)

    sign(directory, statement=change)


def envelope(payload: bytes, by: str = "owner", payload_type: str = oms.PAYLOAD_TYPE) -> dict[str, Any]:
    signature = dsse.Signature("", signer(by).sign(dsse.pae(payload_type, payload)))
    return dsse.dump_envelope(dsse.Envelope(payload_type, payload, (signature,)))


def write_bundle(
    directory: Path,
    signed: dict[str, Any],
    by: str = "owner",
    edit: Callable[[dict[str, Any]], object] = lambda data: None,
) -> None:
    hint = fingerprint(by).removeprefix("sha256:")
    data = {
        "mediaType": oms.MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
        "dsseEnvelope": signed,
    }
    edit(data)
    (directory / constants.SIGNATURE_FILE).write_text(json.dumps(data))


def edit_bundle(directory: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Changes the bundle without the key."""
    path = directory / constants.SIGNATURE_FILE
    data = json.loads(path.read_bytes())
    edit(data)
    path.write_text(json.dumps(data))


def flip(path: Path, position: int) -> None:
    """Flips one bit of one byte; a negative position counts from the end."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))


def flip_base64(text: str, position: int) -> str:
    data = bytearray(base64.b64decode(text))
    data[position] ^= 1
    return base64.b64encode(bytes(data)).decode()


def verify(directory: Path, known: rules.TrustState | None = None, now: int = NOW, **options: Any) -> rules.Verdict:
    """Verifies a release as a device does, with the same code."""
    with release_files.open_release(directory) as release:
        return release.verify(known or state(), now=now, **options)

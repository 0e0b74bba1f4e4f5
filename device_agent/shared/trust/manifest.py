"""Reads release.json and checks its values; no I/O."""

from __future__ import annotations

from device_agent.shared.protocol import constants, json_codec, versions
from device_agent.shared.protocol.model_info import Manifest
from device_agent.shared.trust.reasons import Reason, refused


def read_manifest(data: bytes) -> Manifest:
    """Reads and checks the bytes of `release.json`.

    Raises:
        Refused: MANIFEST_MALFORMED, AGENT_TOO_OLD (its schema is newer than this agent).
    """
    try:
        manifest = json_codec.loads(Manifest, data, limit=constants.MAX_MANIFEST, extra="refuse")
    except json_codec.NewerDocument as error:
        raise refused(
            Reason.AGENT_TOO_OLD, f"{constants.MANIFEST_FILE}: {error}", "knnkit provision --target HOST"
        ) from None
    except json_codec.MalformedDocument as error:
        raise refused(Reason.MANIFEST_MALFORMED, f"{constants.MANIFEST_FILE}: {error}") from None
    check_manifest(manifest)
    return manifest


def check_manifest(manifest: Manifest) -> None:
    """Checks that every value of a manifest is in its valid range.

    Raises:
        Refused: MANIFEST_MALFORMED, naming the key.
    """
    gates = manifest.gates
    share, positive, name = "a number from 0 to 1", "1 or more", "letters, digits, `.`, `_` and `-`, at most 64"
    checks = {  # key -> whether its value is valid, and what is expected
        "schema": (manifest.schema == constants.SCHEMA, f"{constants.SCHEMA}"),
        "name": (constants.is_name(manifest.name), name),
        "version": (constants.is_version(manifest.version), "letters, digits, `.`, `+`, `_` and `-`, at most 64"),
        "sequence": (manifest.sequence >= 1, positive),
        "created": (manifest.created >= 0, "seconds since 1970"),
        "expires": (manifest.expires is None or manifest.expires > manifest.created, "a time after `created`"),
        "device_class": (constants.is_name(manifest.device_class), name),
        "minimum_agent": (versions.parse(manifest.minimum_agent) is not None, "a version"),
        "minimum_runtime": (versions.parse(manifest.minimum_runtime) is not None, "a version"),
        "k": (manifest.k >= 1, positive),
        "n_features": (manifest.n_features >= 1, positive),
        "labels_sha256": (constants.is_digest(manifest.labels_sha256), "a SHA-256 in hexadecimal"),
        "gates.margin": (0 <= gates.margin <= 1, share),
        "gates.accuracy": (gates.accuracy is None or 0 <= gates.accuracy <= 1, share),
        "gates.balanced_accuracy": (gates.balanced_accuracy is None or 0 <= gates.balanced_accuracy <= 1, share),
        "gates.min_recall": (gates.min_recall is None or 0 <= gates.min_recall <= 1, share),
        "gates.recall": (all(0 <= floor <= 1 for floor in (gates.recall or {}).values()), "numbers from 0 to 1"),
        "gates.column_accuracy": (
            all(0 <= floor <= 1 for floor in (gates.column_accuracy or {}).values()),
            "numbers from 0 to 1",
        ),
        "gates.rmse": (all(limit >= 0 for limit in (gates.rmse or {}).values()), "numbers from 0"),
        "gates.max_error": (all(limit >= 0 for limit in (gates.max_error or {}).values()), "numbers from 0"),
        "gates.by": (0 <= gates.by < 1, "a number from 0 to below 1"),
        "gates.latency_ms": (gates.latency_ms is None or gates.latency_ms > 0, "a number above 0"),
    }
    for key, (fits, expected) in checks.items():
        if not fits:
            value = json_codec.dumps(getattr(gates if "." in key else manifest, key.removeprefix("gates.")))[:80]
            said = f"{constants.MANIFEST_FILE}: {key} is {value}; expected {expected}"
            raise refused(Reason.MANIFEST_MALFORMED, said)

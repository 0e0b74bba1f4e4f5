"""Reads release.json and checks its values; no I/O."""

from __future__ import annotations

import math

from device_agent.shared.protocol import constants, json_codec, versions
from device_agent.shared.protocol.model_info import Manifest
from device_agent.shared.trust.reasons import Reason, refused


def read_manifest(data: bytes) -> Manifest:
    """Reads and checks the bytes of `release.json`.

    Raises:
        Refused: MANIFEST_MALFORMED: `data` is not a valid manifest. AGENT_TOO_OLD: this agent cannot read its schema.
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
        Refused: MANIFEST_MALFORMED: a value is out of range; the message names its key.
    """
    gates = manifest.gates

    def within(gate: str, most: float) -> bool:
        value = getattr(gates, gate)
        return all(0 <= each <= most for each in (value.values() if isinstance(value, dict) else [value or 0]))

    shares = ("margin", "accuracy", "balanced_accuracy", "min_recall", "recall", "column_accuracy")
    positive, name = "1 or more", "letters, digits, `.`, `_` and `-`, at most 64"
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
        **{f"gates.{gate}": (within(gate, 1.0), "0 to 1") for gate in shares},
        **{f"gates.{gate}": (within(gate, math.inf), "0 or more") for gate in ("rmse", "max_error")},
        "gates.by": (0 <= gates.by < 1, "a number from 0 to below 1"),
        "gates.latency_ms": (gates.latency_ms is None or gates.latency_ms > 0, "a number above 0"),
    }
    for key, (fits, expected) in checks.items():
        if not fits:
            value = json_codec.dumps(getattr(gates if "." in key else manifest, key.removeprefix("gates.")))[:80]
            said = f"{constants.MANIFEST_FILE}: {key} is {value}; expected {expected}"
            raise refused(Reason.MANIFEST_MALFORMED, said)

"""Makes, writes and reads release.json; no I/O.

The rules are the device's (`device_agent.shared.trust.manifest`)."""

from __future__ import annotations

import time

from device_agent import __version__
from device_agent.shared.protocol import json_codec
from device_agent.shared.protocol.constants import SCHEMA
from device_agent.shared.protocol.errors import Refused
from device_agent.shared.protocol.model_info import Gates, Manifest
from device_agent.shared.trust import manifest as rules
from knnkit.errors import VerificationFailed

#: Gates of the first version of release.json, which are always written.
_OLDEST = frozenset({"margin", "accuracy", "latency_ms"})
_NO_GATES = json_codec.to_plain(Gates())
#: The class of a release that any device may run.
ANY_DEVICE = "any"


def new_manifest(
    *,
    name: str,
    version: str,
    k: int,
    n_features: int,
    labels_sha256: str,
    minimum_runtime: str,
    gates: Gates,
    device_class: str = ANY_DEVICE,
    minimum_agent: str = __version__,
    sequence: int | None = None,
    created: int | None = None,
    expires: int | None = None,
    schema: int = SCHEMA,
) -> Manifest:
    """Returns a checked manifest; `sequence` and `created` default to the clock, in seconds since 1970.

    Raises:
        VerificationFailed: every device would refuse a value.
    """
    now = int(time.time())
    created = now if created is None else created
    manifest = Manifest(
        name=name,
        version=version,
        sequence=created if sequence is None else sequence,
        created=created,
        expires=expires,
        device_class=device_class,
        minimum_agent=minimum_agent,
        minimum_runtime=minimum_runtime,
        k=k,
        n_features=n_features,
        labels_sha256=labels_sha256,
        gates=gates,
        schema=schema,
    )
    return read_manifest(write_manifest(manifest))


def write_manifest(manifest: Manifest) -> bytes:
    """Returns the bytes of release.json; a gate that is not asked for is left out where older agents do not know it."""
    document = json_codec.to_plain(manifest)
    plain = {name: value for name, value in document["gates"].items() if name in _OLDEST or value != _NO_GATES[name]}
    return json_codec.dump_file({**document, "gates": plain})


def read_manifest(data: bytes) -> Manifest:
    """Returns the manifest in the bytes of release.json, checked by the device's rules.

    Raises:
        VerificationFailed: it is malformed.
    """
    try:
        return rules.read_manifest(data)
    except Refused as error:
        raise VerificationFailed(str(error), reason=error.reason, hint=error.hint) from None

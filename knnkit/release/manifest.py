"""The manifest, release.json, to and from bytes; no I/O.

The rules are those of devices (`device_agent.shared.trust.manifest`)."""

from __future__ import annotations

from device_agent.shared.protocol import json_codec
from device_agent.shared.protocol.model_info import Gates, Manifest
from device_agent.shared.trust import manifest as rules
from knnkit.errors import VerificationFailed, raised_as

#: Gates of the first version of release.json, which are always written.
_OLDEST = frozenset({"margin", "accuracy", "latency_ms"})
_NO_GATES = json_codec.to_plain(Gates())


def write_manifest(manifest: Manifest) -> bytes:
    """Returns the bytes of release.json. Leaves out unset gates of newer versions: older agents would refuse them."""
    document = json_codec.to_plain(manifest)
    plain = {name: value for name, value in document["gates"].items() if name in _OLDEST or value != _NO_GATES[name]}
    return json_codec.dump_file({**document, "gates": plain})


def read_manifest(data: bytes) -> Manifest:
    """Parses the bytes of release.json, and checks the manifest by the device's rules.

    Raises:
        VerificationFailed: the bytes are malformed.
    """
    with raised_as(VerificationFailed):
        return rules.read_manifest(data)

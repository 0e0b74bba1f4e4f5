"""Warnings about a running release that would now be refused.

A device does not stop a release whose key was revoked or that has expired: it warns, in `status`, `check`, `doctor` and
at the start of `classify`. The standing of a release is whether it would be refused today, and why. `rules` takes its
warnings from here. `look` finds the standing for `status` from the text of the files; it verifies nothing, so that
cryptography is not loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.record import record
from device_agent.shared.protocol.versions import utc
from device_agent.shared.trust.fingerprints import PREFIX

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

REVOKED_KEY = "revoked-key"
EXPIRED = "expired"
UNKNOWN_KEY = "unknown-key"
#: First word of the warning that a rollback would need --allow-revoked.
PREVIOUS_REVOKED = "previous-revoked"
#: First words of the warnings that make `knnkit parity` fail.
GATES = (REVOKED_KEY, EXPIRED, UNKNOWN_KEY)


@record
class Standing:
    """The fingerprint of the key that signed a release ("" if unknown), and why the release would be refused today."""

    signed_by: str = ""
    warnings: tuple[str, ...] = ()


def warnings_of(signed_by: str, expires: int | None, revoked: Container[str], now: int) -> tuple[str, ...]:
    """Returns why a device would refuse the running release if it arrived now: its key was revoked, or it has expired.

    Args:
        signed_by: fingerprint of the key that signed it.
        expires: Unix time; None: never.
        revoked: fingerprints of revoked keys.
        now: Unix time by the device's clock, or its time floor (the latest time that it has proof of) if that is later.
    """
    found = []
    if signed_by in revoked:
        found.append(f"{REVOKED_KEY}: the running release was signed by {signed_by}, which has been revoked")
    if expires is not None and now >= expires:
        found.append(f"{EXPIRED}: the running release expired at {utc(expires)}")
    return tuple(found)


def look(bundle: bytes, manifest: bytes, trusted: Container[str], revoked: Container[str], now: int) -> Standing:
    """Returns who signed a release, and why it would be refused, as its files say; verifies nothing, raises nothing.

    `bundle` and `manifest` are the bytes of `model.sig` and `release.json`, `trusted` and `revoked` fingerprints of
    keys; `now` is Unix time by the device's clock, or its time floor if that is later.
    """
    signed_by = _signer(_parse(bundle, constants.MAX_SIGNATURE))
    expires = _parse(manifest, constants.MAX_MANIFEST).get("expires")
    found = warnings_of(signed_by, expires if isinstance(expires, int) else None, revoked, now)
    if signed_by and signed_by not in trusted and signed_by not in revoked:
        found = (f"{UNKNOWN_KEY}: the running release was signed by {signed_by}, which is not trusted here", *found)
    return Standing(signed_by, found)


def gates_missed(warnings: Iterable[str]) -> list[str]:
    """Returns those `warnings` about a running release that make `knnkit parity` fail, each once."""
    return [text for text in dict.fromkeys(warnings) if text.partition(":")[0] in GATES]


def of_previous(warnings: Iterable[str]) -> list[str]:
    """Returns those of a device's `warnings` that are about the previous release, to which a rollback would return."""
    return [text for text in warnings if text.startswith(f"{PREVIOUS_REVOKED}:")]


def _parse(data: bytes, limit: int) -> dict[str, Any]:
    """Returns the JSON object in `data`; {} if it is over `limit` bytes or malformed (`doctor` reports that)."""
    try:
        found = json_codec.parse(data, limit=limit)
    except json_codec.MalformedDocument:
        return {}
    return found if isinstance(found, dict) else {}


def _signer(bundle: dict[str, Any]) -> str:
    """Returns the fingerprint that `bundle` (`model.sig`, parsed) names as its signer; "" if it names none."""
    found: Any = bundle
    for key in ("verificationMaterial", "publicKey", "hint"):
        found = found.get(key) if isinstance(found, dict) else None
    return PREFIX + found if isinstance(found, str) and constants.is_digest(found) else ""

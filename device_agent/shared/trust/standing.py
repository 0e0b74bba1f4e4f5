"""Whether the release that runs would still be accepted.

A device never stops a release because its key was revoked or its time is over: it says so, in `status`, `check`,
`doctor` and at the start of `classify`. The rules (`rules`) word their warnings here. `look` gives
`status` the same from what the files claim, and verifies nothing: no cryptography is loaded for it.
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
#: Warnings that are a missed gate of `knnkit parity`, by the word that they begin with.
GATES = (REVOKED_KEY, EXPIRED, UNKNOWN_KEY)


@record
class Standing:
    """Who is said to have signed a release (empty: nobody knows), and what would refuse it today."""

    signed_by: str = ""
    warnings: tuple[str, ...] = ()


def warnings_of(signed_by: str, expires: int | None, revoked: Container[str], now: int) -> tuple[str, ...]:
    """Returns what would refuse a new release, as warnings about one that runs; `now` is at least the time floor."""
    found = []
    if signed_by in revoked:
        found.append(f"{REVOKED_KEY}: the running release was signed by {signed_by}")
    if expires is not None and now >= expires:
        found.append(f"{EXPIRED}: the running release expired at {utc(expires)}")
    return tuple(found)


def look(bundle: bytes, manifest: bytes, trusted: Container[str], revoked: Container[str], now: int) -> Standing:
    """Returns the standing of a release as `model.sig` and `release.json` claim it; nothing here is an error."""
    signed_by = _signer(_parse(bundle, constants.MAX_SIGNATURE))
    expires = _parse(manifest, constants.MAX_MANIFEST).get("expires")
    found = warnings_of(signed_by, expires if isinstance(expires, int) else None, revoked, now)
    if signed_by and signed_by not in trusted and signed_by not in revoked:
        found = (f"{UNKNOWN_KEY}: the running release was signed by {signed_by}, which is not trusted here", *found)
    return Standing(signed_by, found)


def gates_missed(warnings: Iterable[str]) -> list[str]:
    """Returns the warnings that a proof of a device must not have."""
    return [text for text in dict.fromkeys(warnings) if text.partition(":")[0] in GATES]


def _parse(data: bytes, limit: int) -> dict[str, Any]:
    """What cannot be parsed is for `check` and `doctor` to report."""
    try:
        found = json_codec.parse(data, limit=limit)
    except json_codec.MalformedDocument:
        return {}
    return found if isinstance(found, dict) else {}


def _signer(bundle: dict[str, Any]) -> str:
    """Where an OMS bundle names its signer: `verificationMaterial.publicKey.hint`."""
    found: Any = bundle
    for key in ("verificationMaterial", "publicKey", "hint"):
        found = found.get(key) if isinstance(found, dict) else None
    return PREFIX + found if isinstance(found, str) and constants.is_digest(found) else ""

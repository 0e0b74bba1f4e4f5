"""Signed orders to a device: keys, rollbacks, floors. No I/O.

An order is a signed command that a device obeys: a DSSE envelope around one small JSON document. Each `keyid` is the
signer's fingerprint. The payload type is signed, too, so a signature is never valid for another kind of order.

    Rotation       signed by an old, trusted key and by the new one: trusts the new key, revokes the old one
    Revocation     signed by a trusted key: revokes the named keys for ever; never the last trusted one
    RollbackOrder  signed by a trusted key: one device may go back from one release to an older one, once
    FloorOrder     signed by a trusted key: one device lowers its sequence floor and its time floor, once

These functions only decide. The device stores the new key sets (`trust_store`), and marks an order as used before it
obeys it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.record import record
from device_agent.shared.protocol.versions import utc
from device_agent.shared.trust import dsse
from device_agent.shared.trust.reasons import START_ANEW, Reason, refused
from device_agent.shared.trust.rules import TrustState

ROTATION_TYPE = "application/vnd.knnkit.rotation+json"
REVOCATION_TYPE = "application/vnd.knnkit.revocation+json"
ROLLBACK_TYPE = "application/vnd.knnkit.rollback+json"
FLOOR_TYPE = "application/vnd.knnkit.floor+json"

#: Longest life of a rollback or floor order, in seconds: thirty days.
MAX_LIFE = 30 * 24 * 3600
#: Most keys in one revocation.
MAX_REVOKED = 64
#: Most revoked keys on one device: device.json then still has room for thousands of rotations.
MAX_REVOKED_IN_ALL = 8192
_TRUSTED_KEY = "--signing-key PEM, with a key that `knnkit trust --keys --target HOST` shows"
#: How to come by an order about keys, and by one to go back or to lower the floors.
_KEY_ORDER = "name a file that `knnkit trust --out FILE` wrote"
_BACK_ORDER = (
    "knnkit rollback --to RELEASE --target HOST, or knnkit rollback --reset-floor --target HOST, makes and sends one"
)

T = TypeVar("T")


@record
class Rotation:
    """Replaces the key `old` by `new` (fingerprints); `new_pem` is the new key, `issued` in seconds since 1970."""

    old: str
    new: str
    new_pem: str
    issued: int
    schema: int = constants.SCHEMA


@record
class Revocation:
    """Revokes keys, by their fingerprints: new signatures by them are refused; `issued` in seconds since 1970."""

    revoked: tuple[str, ...]
    issued: int
    schema: int = constants.SCHEMA


@record
class RollbackOrder:
    """Allows one device to go back to an older release, once."""

    device_id: str
    digest: str  # of the staged release to go back to
    leaves: str  # digest of the committed release
    nonce: str  # 32 hexadecimal digits
    issued: int  # seconds since 1970, as `expires`
    expires: int
    schema: int = constants.SCHEMA


@record
class FloorOrder:
    """Lowers the floors of one device, once."""

    device_id: str
    floor: int  # new sequence floor (highest sequence of a committed release)
    leaves: int  # present sequence floor
    nonce: str  # 32 hexadecimal digits
    issued: int  # seconds since 1970; the new time floor (newest date of a committed release)
    expires: int  # seconds since 1970
    schema: int = constants.SCHEMA


@record
class KeySets:
    """All keys of a device (fingerprint -> PEM text), and the fingerprints of those that are revoked."""

    keys: Mapping[str, bytes]
    revoked: frozenset[str] = frozenset()

    @property
    def trusted(self) -> tuple[str, ...]:
        """Sorted fingerprints of the keys that are not revoked."""
        return tuple(sorted(set(self.keys) - self.revoked))


def apply(data: bytes, sets: KeySets) -> KeySets:
    """Returns `sets` after the rotation or revocation in `data`, a signed order; applying it again changes nothing.

    Raises:
        Refused: the order is malformed; a key that must sign it is unknown or revoked, or has not signed it; or the
            order revokes the last trusted key, or too many keys.
    """
    envelope = _read(data, _KEY_ORDER)
    if envelope.payload_type == ROTATION_TYPE:
        return _rotate(envelope, sets)
    if envelope.payload_type == REVOCATION_TYPE:
        return _revoke(envelope, sets)
    said = f"{envelope.payload_type!r} is neither a rotation nor a revocation"
    raise refused(Reason.ORDER_MALFORMED, said, _KEY_ORDER)


def verify_rollback(data: bytes, state: TrustState, now: int) -> RollbackOrder:
    """Verifies a rollback order at the Unix time `now`; pass its `digest` to `verify_release` as `ordered_digest`.

    Raises:
        Refused: the order is malformed, not signed by a trusted key, for another device, used or expired; or the device
            has committed another release than the order's `leaves`.
    """
    order = _signed(RollbackOrder, ROLLBACK_TYPE, "a rollback order", data, state)
    again = "knnkit rollback --to RELEASE --target HOST makes a new order"
    own = {name: (constants.is_digest(getattr(order, name)), "64 hexadecimal digits") for name in ("digest", "leaves")}
    _check_use(order, state, own, again)
    if order.leaves != state.committed_digest:
        committed = state.committed_digest or "none"
        said = f"the order allows a rollback from {order.leaves[:12]}; this device has committed {committed[:12]}"
        raise refused(Reason.ORDER_STALE, said, again)
    if now >= order.expires:
        raise refused(Reason.ORDER_EXPIRED, f"the order expired at {utc(order.expires)}", again)
    if state.time_floor >= order.expires:
        floor = f"the order expires at {utc(order.expires)}, before the device's time floor, {utc(state.time_floor)}"
        raise refused(
            Reason.ORDER_EXPIRED, floor, f"{again}; knnkit rollback --reset-floor --target HOST lowers the floor"
        )
    return order


def is_floor_order(data: bytes) -> bool:
    """Whether `data` is an order to lower floors (`FloorOrder`); does not verify it.

    Raises:
        Refused: ORDER_MALFORMED: `data` is not a signed order.
    """
    return _read(data, _BACK_ORDER).payload_type == FLOOR_TYPE


def verify_floor(data: bytes, state: TrustState, now: int) -> FloorOrder:
    """Verifies the order in `data` to lower floors (`FloorOrder`); `now` is the clock's Unix time.

    Only the clock decides whether the order has expired; the time floor does not, because the order lowers it.

    Raises:
        Refused: the order is malformed, not signed by a trusted key, for another device, used or expired; or the
            device's sequence floor is not the order's `leaves`.
    """
    order = _signed(FloorOrder, FLOOR_TYPE, "an order to lower the floors", data, state)
    again = "knnkit rollback --reset-floor --target HOST makes a new order"
    floor = (0 <= order.floor <= order.leaves, f"a number from 0 to `leaves`, {order.leaves}")
    _check_use(order, state, {"floor": floor, "issued": (order.issued >= 0, "seconds since 1970")}, again)
    if order.leaves != state.floor:
        raise refused(
            Reason.ORDER_STALE,
            f"the order lowers the floor from {order.leaves}, but the floor of this device is {state.floor}",
            again,
        )
    if now >= order.expires:
        message = f"the order expired at {utc(order.expires)}; the device's clock says {utc(now)}"
        raise refused(Reason.ORDER_EXPIRED, message, f"set the device's clock if it is wrong; {again}")
    return order


def _signed(cls: type[T], payload_type: str, what: str, data: bytes, state: TrustState) -> T:
    envelope = _read(data, _BACK_ORDER)
    if envelope.payload_type != payload_type:
        raise refused(Reason.ORDER_MALFORMED, f"{envelope.payload_type!r} is not {what}", _BACK_ORDER)
    _check_one_signer(envelope, KeySets(state.keys, state.revoked))
    return _payload(cls, envelope)


def _check_use(
    order: RollbackOrder | FloorOrder, state: TrustState, own: dict[str, tuple[bool, str]], again: str
) -> None:
    """Raises Refused unless an order has valid values, is for this device, and is unused.

    `own` has the checks of this kind of order: field -> (whether its value is valid, what is expected). `again` is the
    hint that says how to make a new order.
    """
    nonce = len(order.nonce) == 32 and set(order.nonce) <= set("0123456789abcdef")
    life = 0 < order.expires - order.issued <= MAX_LIFE
    until = f"a time up to {MAX_LIFE:,} seconds after `issued`, {order.issued}"
    for field, (fits, expected) in {**own, "nonce": (nonce, "32 hexadecimal digits"), "expires": (life, until)}.items():
        if not fits:
            value = json_codec.dumps(getattr(order, field))[:80]
            raise refused(Reason.ORDER_MALFORMED, f"the order's {field} is {value}; expected {expected}")
    if not state.device_id or order.device_id != state.device_id:
        raise refused(Reason.ORDER_OTHER_DEVICE, f"the order is for the device {order.device_id}", again)
    if order.nonce in state.used_orders:
        raise refused(Reason.ORDER_USED, "the order has been used already", again)


def _rotate(envelope: dsse.Envelope, sets: KeySets) -> KeySets:
    rotation = _payload(Rotation, envelope)
    new_pem = rotation.new_pem.encode("utf-8", "replace")
    if rotation.new == rotation.old:
        raise refused(Reason.ORDER_MALFORMED, "the rotation names the same key as the old one and the new one")
    if dsse.fingerprint(new_pem) != rotation.new:
        raise refused(Reason.ORDER_MALFORMED, "the new key in the rotation does not have the stated fingerprint")
    if len(envelope.signatures) != 2:
        raise refused(Reason.ORDER_MALFORMED, "a rotation must be signed by two keys: the old one and the new one")
    if not _has_signed(envelope, rotation.new, new_pem):
        raise refused(Reason.ORDER_NEEDS_NEW_KEY, "the rotation is not signed by the new key")
    if rotation.new in sets.revoked:
        raise refused(Reason.REVOKED_KEY, f"the new key {rotation.new} has been revoked here", "knnkit keygen")
    old_pem = sets.keys.get(rotation.old)
    if old_pem is None or not _has_signed(envelope, rotation.old, old_pem):
        said = "the rotation is not signed by a key that is trusted here"
        raise refused(Reason.ORDER_NEEDS_OLD_KEY, said, _TRUSTED_KEY)
    if rotation.old in sets.revoked and rotation.new not in sets.keys:
        raise refused(
            Reason.REVOKED_KEY, f"the old key {rotation.old} has been revoked here", "knnkit provision --target HOST"
        )
    return KeySets({**sets.keys, rotation.new: new_pem}, sets.revoked | {rotation.old})


def _revoke(envelope: dsse.Envelope, sets: KeySets) -> KeySets:
    signer = _signer(envelope)
    revocation = _payload(Revocation, envelope)
    named = frozenset(revocation.revoked)
    if not 0 < len(revocation.revoked) <= MAX_REVOKED or not all(map(is_fingerprint, named)):
        raise refused(Reason.ORDER_MALFORMED, f"a revocation must name 1 to {MAX_REVOKED} fingerprints")
    done = named <= sets.revoked
    _check_one_signer(envelope, sets if not done else KeySets(sets.keys, sets.revoked - {signer}))
    after = KeySets(sets.keys, sets.revoked | named)
    if not done and len(after.revoked) > MAX_REVOKED_IN_ALL:
        raise refused(
            Reason.TOO_MANY_REVOKED,
            f"{len(sets.revoked):,} keys are revoked here; with these there would be more than {MAX_REVOKED_IN_ALL:,}",
            START_ANEW,
        )
    if not after.trusted:
        raise refused(
            Reason.LAST_KEY,
            "no trusted key would be left: no release could ever be accepted again",
            "replace the key: `knnkit trust --rotate NEW.pem --signing-key OLD.pem --target HOST`",
        )
    return after


def is_fingerprint(text: str) -> bool:
    """Whether `text` has the form of a key's fingerprint."""
    return text.startswith(dsse.FINGERPRINT_PREFIX) and constants.is_digest(text.removeprefix(dsse.FINGERPRINT_PREFIX))


def _read(data: bytes, hint: str) -> dsse.Envelope:
    try:
        return dsse.read_envelope(json_codec.parse(data, limit=constants.MAX_ORDER))
    except json_codec.MalformedDocument as error:
        raise refused(Reason.ORDER_MALFORMED, f"not a signed order: {error}", hint) from None


def _payload(cls: type[T], envelope: dsse.Envelope) -> T:
    try:
        found = json_codec.loads(cls, envelope.payload, limit=constants.MAX_ORDER, extra="refuse")
    except json_codec.NewerDocument as error:
        raise refused(Reason.AGENT_TOO_OLD, f"the signed order: {error}", "knnkit provision --target HOST") from None
    except json_codec.MalformedDocument as error:
        raise refused(Reason.ORDER_MALFORMED, f"the signed order: {error}") from None
    if getattr(found, "schema", None) != constants.SCHEMA:
        said = f"the signed order: its schema is {getattr(found, 'schema', None)}; expected {constants.SCHEMA}"
        raise refused(Reason.ORDER_MALFORMED, said)
    return found


def _signer(envelope: dsse.Envelope) -> str:
    if len(envelope.signatures) != 1:
        raise refused(Reason.ORDER_MALFORMED, "the order must be signed by one key")
    return envelope.signatures[0].keyid


def _check_one_signer(envelope: dsse.Envelope, sets: KeySets) -> None:
    signer = _signer(envelope)
    pem = sets.keys.get(signer)
    if pem is None:
        raise refused(Reason.UNKNOWN_KEY, f"the order is signed by {signer!r}, which is not trusted here", _TRUSTED_KEY)
    if not _has_signed(envelope, signer, pem):
        raise refused(Reason.BAD_SIGNATURE, f"the order is not signed by {signer}")
    if signer in sets.revoked:
        raise refused(Reason.REVOKED_KEY, f"the order is signed by {signer}, which has been revoked")


def _has_signed(envelope: dsse.Envelope, fingerprint: str, pem: bytes) -> bool:
    if dsse.fingerprint(pem) != fingerprint:
        return False
    message = dsse.pae(envelope.payload_type, envelope.payload)
    return any(
        entry.keyid == fingerprint and dsse.is_signed_by(pem, message, entry.sig) for entry in envelope.signatures
    )

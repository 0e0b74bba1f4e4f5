"""Makes signed orders to devices: keys, rollbacks, floors.

An order is a signed command that a device obeys. A floor is the lowest release number (sequence) or time that a device
still accepts, so that nobody can bring back an old release. Format and rules are in
`device_agent.shared.trust.orders`. Sends nothing.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

from device_agent.shared.protocol import json_codec
from device_agent.shared.trust import dsse, orders
from knnkit.errors import UsageError, VerificationFailed, raised_as
from knnkit.release.signing import Signer

#: How long a rollback or floor order is valid by default, in seconds.
ROLLBACK_LIFE = 3600


def rotate(old: Signer, new: Signer, *, issued: int | None = None) -> bytes:
    """Returns an order by which devices replace the old key by the new key; both sign it.

    `issued` is the time of the order in seconds since 1970; None: now.

    Raises:
        VerificationFailed: a device that trusts the old key would refuse it.
    """
    rotation = orders.Rotation(
        old=dsse.fingerprint(old.public_pem),
        new=dsse.fingerprint(new.public_pem),
        new_pem=new.public_pem.decode(),
        issued=_now(issued),
    )
    order = _sign(orders.ROTATION_TYPE, rotation, (old, new))
    check(order, orders.KeySets({rotation.old: old.public_pem}))
    return order


def revoke(signer: Signer, fingerprints: Sequence[str], *, issued: int | None = None) -> bytes:
    """Returns an order, signed by `signer`, that revokes keys: devices then refuse new signatures by these keys.

    `issued` is the time of the order in seconds since 1970; None: now.

    Raises:
        UsageError: there is no fingerprint, one is invalid, or there are too many for one order.
    """
    wrong = [text for text in fingerprints if not orders.is_fingerprint(text)]
    if wrong or not fingerprints:
        raise UsageError(
            f"{wrong[0]!r} is not a fingerprint" if wrong else "no fingerprint was given",
            hint="a fingerprint is sha256: and 64 digits; knnkit trust --show PUB prints it",
        )
    named = tuple(sorted(set(fingerprints)))
    if len(named) > orders.MAX_REVOKED:
        raise UsageError(
            f"{len(named)} keys to revoke are given; one order can name at most {orders.MAX_REVOKED}",
            hint="revoke the keys with several commands",
        )
    revocation = orders.Revocation(named, _now(issued))
    return _sign(orders.REVOCATION_TYPE, revocation, (signer,))


def roll_back(
    signer: Signer, *, device_id: str, digest: str, leaves: str, life: int = ROLLBACK_LIFE, issued: int | None = None
) -> bytes:
    """Returns an order by which one device may go back, once, to the release `digest`, even one below its floor.

    The device must still store that release; `leaves` is the digest of the one that it runs now. The order is valid for
    `life` seconds after `issued` (seconds since 1970; None: now).
    """
    now = _now(issued)
    order = orders.RollbackOrder(device_id, digest, leaves, secrets.token_hex(16), now, now + life)
    return _sign(orders.ROLLBACK_TYPE, order, (signer,))


def reset_floor(
    signer: Signer,
    *,
    device_id: str,
    floor: int | None,
    leaves: int,
    life: int = ROLLBACK_LIFE,
    issued: int | None = None,
) -> bytes:
    """Returns an order that lowers the floors of one device, once; it never raises a floor.

    The new sequence floor is `floor` (None: the time of the order), the new time floor the time of the order; `leaves`
    is the present sequence floor. Valid for `life` seconds after `issued` (seconds since 1970; None: now).
    """
    now = _now(issued)
    wanted = min(now if floor is None else floor, leaves)
    order = orders.FloorOrder(device_id, wanted, leaves, secrets.token_hex(16), now, now + life)
    return _sign(orders.FLOOR_TYPE, order, (signer,))


def _now(issued: int | None) -> int:
    return int(time.time()) if issued is None else issued


def _sign(payload_type: str, document: Any, signers: Sequence[Signer]) -> bytes:
    payload = json_codec.dumps(document).encode()
    message = dsse.pae(payload_type, payload)
    signatures = tuple(dsse.Signature(dsse.fingerprint(key.public_pem), key.sign(message)) for key in signers)
    return json.dumps(dsse.dump_envelope(dsse.Envelope(payload_type, payload, signatures))).encode() + b"\n"


def check(order: bytes, sets: orders.KeySets) -> orders.KeySets:
    """Returns the trusted and revoked keys of a device after it obeys the order; `sets` are its keys before.

    Raises:
        VerificationFailed: the device would refuse the order.
    """
    with raised_as(VerificationFailed):
        return orders.apply(order, sets)

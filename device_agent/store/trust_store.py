"""ROOT/trust on the device: the public keys it knows, which of them are revoked, its id and the orders it has used.

    trust/<name>.pem     one public key each, put there by `knnkit provision` or a rotation; any file name will do
    trust/device.json    device id, revoked fingerprints, used orders; made when first needed

Every change is one rename, in an order that leaves at least one trusted key at any instant. Writers hold the store's
lock. Decides nothing: the rules are in `device_agent.shared.trust`.
"""

from __future__ import annotations

from pathlib import Path

from device_agent.shared.protocol.record import record, replace
from device_agent.shared.trust import dsse, orders, reasons, rules
from device_agent.store import trust_dir
from device_agent.store.trust_dir import KEY_SUFFIX, DeviceTrust, read_device
from device_agent.system import durable


@record
class TrustFiles:
    """What ROOT/trust holds; `warnings` names what could not be read."""

    sets: orders.KeySets
    device: DeviceTrust
    warnings: tuple[str, ...] = ()

    def fill(self, state: rules.TrustState) -> rules.TrustState:
        """Returns `state` with keys, revoked keys, device id and used orders from here."""
        return replace(
            state,
            keys=self.sets.keys,
            revoked=self.sets.revoked,
            device_id=self.device.device_id,
            used_orders=frozenset(self.device.used_orders),
        )


def key_file_name(fingerprint: str) -> str:
    """Returns the name under which a key is stored: the digits of its fingerprint and `.pem`."""
    return fingerprint.removeprefix(dsse.FINGERPRINT_PREFIX) + KEY_SUFFIX


def read(directory: Path, *, lenient: bool = False) -> TrustFiles:
    """Reads ROOT/trust; a key file that holds no key is a warning, for the others still count.

    Args:
        directory: ROOT/trust; it may be missing.
        lenient: whether a damaged device.json is a warning too: for a start of what runs already, never to accept
            something new, since the revocations are in it.

    Raises:
        DeviceUnfit: device.json is damaged.
    """
    keys, warnings = trust_dir.read_keys(directory, dsse.fingerprint)
    if lenient:
        device, more = trust_dir.read_device_leniently(directory)
        warnings += more
    else:
        device = read_device(directory)
    return TrustFiles(orders.KeySets(keys, frozenset(device.revoked)), device, tuple(warnings))


def ensure_device_id(directory: Path) -> str:
    """Returns the device's id, making one of 32 hexadecimal digits where there is none; needs the lock.

    Raises:
        DeviceUnfit: device.json is damaged.
    """
    device = read_device(directory)
    if not device.device_id:
        import secrets  # loads `random`, for what is done once in a device's life

        device = replace(device, device_id=secrets.token_hex(16))
        _write_device(directory, device)
    return device.device_id


def apply_order(directory: Path, data: bytes) -> TrustFiles:
    """Applies a signed rotation or revocation; the same one again changes nothing; needs the lock.

    Raises:
        Refused: with the reason; nothing was changed.
        DeviceUnfit: device.json is damaged, or has no room for more revoked keys; nothing was changed.
    """
    before = read(directory)
    after = orders.apply(data, before.sets)
    changed = after.revoked != before.sets.revoked
    if changed:
        ensure_device_id(directory)
        device = replace(read_device(directory), revoked=tuple(sorted(after.revoked)))
        trust_dir.device_document(directory).encode(device)  # that there is room, before a key is added
    for fingerprint in sorted(set(after.keys) - set(before.sets.keys)):
        durable.write_atomic(directory / key_file_name(fingerprint), after.keys[fingerprint])
    if changed:  # last: until now the old keys were trusted as well
        _write_device(directory, device)
    return read(directory)


def use_order(directory: Path, order: orders.RollbackOrder | orders.FloorOrder) -> None:
    """Counts an order as used, durably: before it is acted on; needs the lock.

    Raises:
        Refused: ORDER_USED.
        DeviceUnfit: device.json is damaged.
    """
    device = read_device(directory)
    if order.nonce in device.used_orders:
        raise reasons.refused(reasons.Reason.ORDER_USED, "the order has been used")
    _write_device(directory, replace(device, used_orders=(*device.used_orders, order.nonce)))


def _write_device(directory: Path, device: DeviceTrust) -> None:
    durable.make_directory(directory)
    trust_dir.device_document(directory).write(device)

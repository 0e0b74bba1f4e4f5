"""Reads and changes ROOT/trust: keys, revocations, used orders.

    trust/<name>.pem     one public key each, from `knnkit provision` or a rotation; the name does not matter
    trust/device.json    device id, revoked fingerprints, used orders; created when first needed

Every change is one rename, in an order that always leaves a trusted key. Writers must hold the store's lock. The rules
are in `device_agent.shared.trust`.
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
    """The contents of ROOT/trust; `unread` has the files without a valid key, each with a warning."""

    sets: orders.KeySets
    device: DeviceTrust
    unread: tuple[trust_dir.Unread, ...] = ()

    def fill(self, state: rules.TrustState) -> rules.TrustState:
        """Returns `state` with the keys, revoked keys, device id and used orders of ROOT/trust in place of its own."""
        return replace(
            state,
            keys=self.sets.keys,
            revoked=self.sets.revoked,
            device_id=self.device.device_id,
            used_orders=frozenset(self.device.used_orders),
        )


def key_file_name(fingerprint: str) -> str:
    """Returns the file name of a key: the digits of its fingerprint and `.pem`."""
    return fingerprint.removeprefix(dsse.FINGERPRINT_PREFIX) + KEY_SUFFIX


def read(directory: Path, *, lenient: bool = False) -> TrustFiles:
    """Reads ROOT/trust (`directory`), which may be missing.

    With `lenient`, a damaged device.json counts as an empty one. Use it only to start a release that was accepted
    before: the file lists the revoked keys, so no new release may be accepted without it.

    Raises:
        DeviceUnfit: device.json is damaged, and `lenient` is False.
    """
    keys, unread = trust_dir.read_keys(directory, dsse.fingerprint)
    device = trust_dir.read_device_leniently(directory)[0] if lenient else read_device(directory)
    return TrustFiles(orders.KeySets(keys, frozenset(device.revoked)), device, tuple(unread))


def ensure_device_id(directory: Path) -> str:
    """Returns the device's id in `directory`/device.json, 32 hexadecimal digits; creates a missing one. Needs the lock.

    Raises:
        DeviceUnfit: device.json is damaged.
    """
    device = read_device(directory)
    if not device.device_id:
        import secrets  # loads `random`, and is needed only once per device

        device = replace(device, device_id=secrets.token_hex(16))
        _write_device(directory, device)
    return device.device_id


def apply_order(directory: Path, data: bytes) -> TrustFiles:
    """Applies a signed rotation or revocation to ROOT/trust; twice changes nothing. Needs the lock.

    Raises:
        Refused: a trust rule refused the order; nothing was changed.
        DeviceUnfit: device.json is damaged, or has no room for more revoked keys; nothing was changed.
    """
    before = read(directory)
    after = orders.apply(data, before.sets)
    changed = after.revoked != before.sets.revoked
    if changed:
        ensure_device_id(directory)
        device = replace(read_device(directory), revoked=tuple(sorted(after.revoked)))
        trust_dir.device_document(directory).encode(device)  # fails if there is no room, before a key is added
    for fingerprint in sorted(set(after.keys) - set(before.sets.keys)):
        durable.write_atomic(directory / key_file_name(fingerprint), after.keys[fingerprint])
    if changed:  # last, so that a crash before it leaves the old keys trusted
        _write_device(directory, device)
    return read(directory)


def use_order(directory: Path, order: orders.RollbackOrder | orders.FloorOrder) -> None:
    """Marks a signed order as used in `directory`/device.json, durably; call it before obeying it. Needs the lock.

    Raises:
        Refused: the order has been used already.
        DeviceUnfit: device.json is damaged.
    """
    device = read_device(directory)
    if order.nonce in device.used_orders:
        raise reasons.refused(reasons.Reason.ORDER_USED, "the order has been used already")
    _write_device(directory, replace(device, used_orders=(*device.used_orders, order.nonce)))


def _write_device(directory: Path, device: DeviceTrust) -> None:
    durable.make_directory(directory)
    trust_dir.device_document(directory).write(device)

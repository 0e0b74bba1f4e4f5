"""ROOT/trust on the device: the public keys it knows, which of them are revoked, its id and the orders it has used.

    trust/<name>.pem     one public key each, put there by `knnkit provision` or a rotation; any file name will do
    trust/device.json    device id, revoked fingerprints, used rollback orders; made when first needed

Every change is one rename, in an order that leaves at least one trusted key at any instant. Writers hold the store's
lock. Decides nothing: the rules are in `device_agent.trust`.
"""

from __future__ import annotations

import os
import secrets
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from device_agent import codec, contract, disk, trust
from device_agent.errors import DeviceUnfit, Refused
from device_agent.trust import dsse, orders

DEVICE_FILE = "device.json"
KEY_SUFFIX = ".pem"
#: Largest device.json that is read, in bytes.
MAX_DEVICE_FILE = 1024 * 1024


@dataclass(frozen=True)
class DeviceTrust:
    """trust/device.json."""

    device_id: str
    revoked: tuple[str, ...] = ()
    used_orders: tuple[str, ...] = ()
    schema: int = contract.SCHEMA


@dataclass(frozen=True)
class TrustFiles:
    """What ROOT/trust holds; `warnings` names what could not be read."""

    sets: orders.KeySets
    device: DeviceTrust
    warnings: tuple[str, ...] = ()

    def fill(self, state: trust.TrustState) -> trust.TrustState:
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
    keys: dict[str, bytes] = {}
    warnings = []
    for path in _key_files(directory):
        try:
            data = _read_file(path, dsse.MAX_PUBLIC_KEY)
            keys[dsse.fingerprint(data)] = data
        except (OSError, Refused) as error:
            warnings.append(f"key-unreadable: {path.name}: {error}")
    try:
        device = _read_device(directory)
    except DeviceUnfit as error:
        if not lenient:
            raise
        warnings.append(f"{error.reason}: {error}")
        device = DeviceTrust("")
    return TrustFiles(orders.KeySets(keys, frozenset(device.revoked)), device, tuple(warnings))


def ensure_device_id(directory: Path) -> str:
    """Returns the device's id, making one of 32 hexadecimal digits where there is none; needs the lock.

    Raises:
        DeviceUnfit: device.json is damaged.
    """
    device = _read_device(directory)
    if not device.device_id:
        device = replace(device, device_id=secrets.token_hex(16))
        _write_device(directory, device)
    return device.device_id


def apply_order(directory: Path, data: bytes) -> TrustFiles:
    """Applies a signed rotation or revocation; the same one again changes nothing; needs the lock.

    Raises:
        Refused: with the reason; nothing was changed.
        DeviceUnfit: device.json is damaged.
    """
    before = read(directory)
    after = orders.apply(data, before.sets)
    for fingerprint in sorted(set(after.keys) - set(before.sets.keys)):
        disk.write_atomic(directory / key_file_name(fingerprint), after.keys[fingerprint])
    if after.revoked != before.sets.revoked:  # last: until now the old keys were trusted as well
        ensure_device_id(directory)
        _write_device(directory, replace(_read_device(directory), revoked=tuple(sorted(after.revoked))))
    return read(directory)


def use_order(directory: Path, order: orders.RollbackOrder) -> None:
    """Counts a rollback order as used, durably: before it is acted on; needs the lock.

    Raises:
        Refused: ORDER_USED.
        DeviceUnfit: device.json is damaged.
    """
    device = _read_device(directory)
    if order.nonce in device.used_orders:
        raise trust.refused(trust.Reason.ORDER_USED, "the order has been used")
    _write_device(directory, replace(device, used_orders=(*device.used_orders, order.nonce)))


def _key_files(directory: Path) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.suffix == KEY_SUFFIX and path.name[0] != ".")
    except FileNotFoundError:
        return []


def _read_file(path: Path, limit: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path.name} is no ordinary file")
        return file.read(limit + 1)


def _read_device(directory: Path) -> DeviceTrust:
    path = directory / DEVICE_FILE
    try:
        return codec.loads(DeviceTrust, _read_file(path, MAX_DEVICE_FILE), limit=MAX_DEVICE_FILE)
    except FileNotFoundError:
        return DeviceTrust("")
    except (OSError, codec.MalformedDocument) as error:
        raise DeviceUnfit(
            f"{path} cannot be read: {error}",
            reason="trust-damaged",
            hint=f"restore it, or delete it and revoke the old keys again: rm {path}",
        ) from None


def _write_device(directory: Path, device: DeviceTrust) -> None:
    disk.make_directory(directory)
    disk.write_atomic(directory / DEVICE_FILE, codec.dump_file(device))

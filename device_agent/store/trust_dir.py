"""ROOT/trust as it lies on the device: the key files, what the keys are called, and device.json. Reads only.

`device_agent.store.trust_store` adds what may be done with them, and changes them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.errors import DeviceUnfit, Refused
from device_agent.shared.protocol.record import record
from device_agent.shared.trust import fingerprints
from device_agent.system.safe_open import read_small

DEVICE_FILE = "device.json"
KEY_SUFFIX = ".pem"
#: Largest device.json that is read, in bytes.
MAX_DEVICE_FILE = 1024 * 1024


@record
class DeviceTrust:
    """trust/device.json."""

    device_id: str
    revoked: tuple[str, ...] = ()
    used_orders: tuple[str, ...] = ()
    schema: int = constants.SCHEMA


@record
class Seen:
    """Fingerprints of the trusted keys, sorted; device.json; what could not be read."""

    trusted: tuple[str, ...]
    device: DeviceTrust
    warnings: tuple[str, ...]


def look(directory: Path) -> Seen:
    """Returns what a report says of ROOT/trust, at little cost; nothing here is an error.

    A P-256 key is told at sight. It is parsed where something is verified with it, and refused there if it is no good.
    """
    keys, warnings = read_keys(directory, _name)
    device, more = read_device_leniently(directory)
    return Seen(tuple(sorted(set(keys).difference(device.revoked))), device, (*warnings, *more))


def read_keys(directory: Path, name: Callable[[bytes], str]) -> tuple[dict[str, bytes], list[str]]:
    """Returns the keys, called as `name` calls them, and a warning for each file that holds none."""
    keys: dict[str, bytes] = {}
    warnings = []
    for path in _key_files(directory):
        try:
            data = read_small(path, fingerprints.MAX_PUBLIC_KEY)
            keys[name(data)] = data
        except (OSError, Refused) as error:
            warnings.append(f"key-unreadable: {path.name}: {error}")
    return keys, warnings


def read_device(directory: Path) -> DeviceTrust:
    """Returns device.json; an empty one where there is none.

    Raises:
        DeviceUnfit: it is damaged.
    """
    path = directory / DEVICE_FILE
    try:
        return json_codec.loads(DeviceTrust, read_small(path, MAX_DEVICE_FILE), limit=MAX_DEVICE_FILE)
    except FileNotFoundError:
        return DeviceTrust("")
    except (OSError, json_codec.MalformedDocument) as error:
        raise DeviceUnfit(
            f"{path} cannot be read: {error}",
            reason="trust-damaged",
            hint=f"restore it, or delete it and revoke the old keys again: rm {path}",
        ) from None


def read_device_leniently(directory: Path) -> tuple[DeviceTrust, list[str]]:
    """Returns device.json, or an empty one and a warning where it is damaged."""
    try:
        return read_device(directory), []
    except DeviceUnfit as error:
        return DeviceTrust(""), [f"{error.reason}: {error}"]


def _name(pem: bytes) -> str:
    found = fingerprints.at_sight(pem)
    if found is None:
        from device_agent.shared.trust import dsse  # loads cryptography, which takes longer than everything else here

        found = dsse.fingerprint(pem)
    return found


def _key_files(directory: Path) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.suffix == KEY_SUFFIX and path.name[0] != ".")
    except FileNotFoundError:
        return []

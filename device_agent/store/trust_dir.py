"""Reads ROOT/trust: key files and device.json.

`device_agent.store.trust_store` changes them. Loads cryptography only for keys that are not P-256.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from device_agent.shared.os_errors import explain
from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.errors import DeviceUnfit, Refused
from device_agent.shared.protocol.record import record
from device_agent.shared.safe_files import read_small
from device_agent.shared.trust import fingerprints
from device_agent.shared.trust.reasons import START_ANEW
from device_agent.store.json_file import JsonFile

DEVICE_FILE = "device.json"
KEY_SUFFIX = ".pem"
#: Largest device.json that is read, in bytes.
MAX_DEVICE_FILE = 1024 * 1024
#: A file without a valid key, or a folder that cannot be listed, and the warning about it.
Unread = tuple[Path, str]


@record
class DeviceTrust:
    """Content of trust/device.json: the device's id, fingerprints of revoked keys, nonces of used (signed) orders."""

    device_id: str
    revoked: tuple[str, ...] = ()
    used_orders: tuple[str, ...] = ()
    schema: int = constants.SCHEMA


@record
class Seen:
    """Contents of ROOT/trust: sorted fingerprints of the keys that are not revoked, device.json, and warnings."""

    trusted: tuple[str, ...]
    device: DeviceTrust
    warnings: tuple[str, ...]


def look(directory: Path) -> Seen:
    """Returns the contents of ROOT/trust (`directory`) for a report; quick, and raises nothing.

    P-256 keys are recognised by their text. Code that verifies with a key parses it, and refuses an invalid one.
    """
    keys, unread = read_keys(directory, _name)
    device, more = read_device_leniently(directory)
    exposed = tuple(
        f"trust-writable: {path} can be changed by others: {mend}" for path, mend in exposed_paths(directory)
    )
    warnings = (*exposed, *(warning for _, warning in unread), *more)
    return Seen(tuple(sorted(set(keys).difference(device.revoked))), device, warnings)


def exposed_paths(directory: Path) -> list[tuple[Path, str]]:
    """Returns each path by which other users could change the trusted keys or the agent, and a command that stops them.

    `directory` is ROOT/trust. Other users are all except root and the user of this process. ROOT is checked, too: a
    user who may write there can replace ROOT/trust. If others can enter ROOT, the state and the agent are also checked.
    """
    found, root, may_enter = [], directory.parent, True
    inside = tuple(root / name for name in (constants.STATE_FILE, constants.VENVS_DIR, constants.VENV_LINK))
    for path in (root, directory, *_key_files(directory)[0], directory / DEVICE_FILE, *inside):
        try:
            state = path.stat()
        except OSError:
            continue
        if path == root:
            may_enter = stat.S_IMODE(state.st_mode) & 0o011 != 0
        if path in inside and not may_enter:
            continue
        if state.st_uid not in (0, os.geteuid()):
            found.append((path, make_own(path, state.st_uid)))
        elif stat.S_IMODE(state.st_mode) & 0o022:
            found.append((path, f"chmod go-w {typed(path)}"))
    return found


def make_own(path: Path, owner: int) -> str:
    """Returns what to type if `path` belongs to another user, `owner`.

    Tells root to run the command as that user: after a `chown` to root, that user could not deploy any more.
    """
    if os.geteuid() == 0:
        return f"run as the owner of {path}: sudo -u '#{owner}' COMMAND"
    return f"sudo chown -R {os.geteuid()} {typed(path)}"


def typed(path: Path) -> str:
    """Quotes a path for the shell."""
    import shlex  # rarely needed, and `status` must be fast

    return shlex.quote(str(path))


def read_keys(directory: Path, name: Callable[[bytes], str]) -> tuple[dict[str, bytes], list[Unread]]:
    """Returns fingerprint (by `name`) -> PEM text of the key files in `directory`, and a warning for each bad one."""
    keys: dict[str, bytes] = {}
    files, unread = _key_files(directory)
    for path in files:
        try:
            data = read_small(path, fingerprints.MAX_PUBLIC_KEY)
            keys[name(data)] = data
        except (OSError, Refused) as error:
            unread.append(_unread(path, error))
    return keys, unread


def read_device(directory: Path) -> DeviceTrust:
    """Returns the content of `directory`/device.json; an empty record if there is no file.

    Raises:
        DeviceUnfit: the file is damaged, or a newer agent wrote it.
    """
    document = device_document(directory)
    try:
        return document.read()
    except FileNotFoundError:
        return DeviceTrust("")
    except (OSError, json_codec.MalformedDocument) as error:
        if isinstance(error, OSError) and (known := explain(error))[2]:  # the file may be in order
            reason, said, hint = known
            raise DeviceUnfit(said, reason=reason, hint=hint) from None
        raise DeviceUnfit(f"{document.path} cannot be read: {error}", reason="trust-damaged", hint=START_ANEW) from None


def device_document(directory: Path) -> JsonFile[DeviceTrust]:
    """Returns the object that reads and writes `directory`/device.json."""
    return JsonFile(directory / DEVICE_FILE, DeviceTrust, MAX_DEVICE_FILE)


def read_device_leniently(directory: Path) -> tuple[DeviceTrust, list[str]]:
    """Returns the content of `directory`/device.json; if it is damaged, an empty record and a warning."""
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


def _key_files(directory: Path) -> tuple[list[Path], list[Unread]]:
    """Returns the sorted key files in `directory`; and [(directory, warning)] if it cannot be listed, else []."""
    try:
        return sorted(path for path in directory.iterdir() if path.suffix == KEY_SUFFIX and path.name[0] != "."), []
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [_unread(directory, error)]


def _unread(path: Path, error: Exception) -> Unread:
    return path, f"key-unreadable: {path.name}: {error}"

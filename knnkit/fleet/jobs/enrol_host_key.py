"""Adds a device's host key after a person agreed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from knnkit.errors import HostKeyError, UsageError
from knnkit.fleet.targets import Target


@dataclass(frozen=True)
class Enrolled:
    """The result of `knnkit trust HOST`. `known`: whether known_hosts had this key; `changed`: whether it was added."""

    host: str
    port: int
    kind: str
    fingerprint: str
    known_hosts: str
    known: bool
    changed: bool


def enrol_host(
    target: Target,
    *,
    agree: Callable[[str, str, str], bool],
    timeout: float,
    known_hosts: Path | None = None,
    replace: bool = False,
) -> Enrolled:
    """Fetches the host key of a device, and writes it to known_hosts if `agree` returns True.

    `agree` is called with host, kind of key and fingerprint. `known_hosts` is the file to write; None: the first known
    hosts file of deploy.yaml or ssh_config that is not the system's. `replace`: whether to replace another known key.
    The keys of the device's jump hosts must be known already.

    Raises:
        UsageError: the embedded device has no host key.
        Unreachable: there is no SSH server.
        HostKeyError: another key is known, the key is revoked, or nobody agreed.
    """
    if target.address is None:
        said = "the embedded device is this machine: it has no host key"
        raise UsageError(said, hint="leave it out: --target local needs no host key")
    from knnkit.transport.ssh import known_hosts as hostkeys
    from knnkit.transport.ssh.connection import key_in_errors, scan

    where, key = scan(target.name, target.address, timeout=timeout)
    name = hostkeys.host_name(where.key_name, where.key_port)
    path = (known_hosts or _own_file(target.name, where.known_hosts)).expanduser()
    same = True
    try:
        hostkeys.load(where.known_hosts).check(where.key_name, where.key_port, key, where.typed)
    except HostKeyError as error:
        same = False
        if error.reason != "host-key-unknown" and not (replace and error.reason == "host-key-changed"):
            raise
    if not same:
        if not agree(name, key.kind, key.fingerprint):
            raise HostKeyError(f"{name}: its host key was not added to known_hosts", reason="host-key-unknown")
        named = where.key_name, where.key_port
        with key_in_errors(target.address):
            hostkeys.enrol(path, *named, key, replace=replace, hash_name=where.hash_names)
    return Enrolled(where.key_name, where.key_port, key.kind, key.fingerprint, str(path), same, not same)


def _own_file(name: str, files: tuple[str, ...]) -> Path:
    """Returns the first known_hosts file not in /etc; raises UsageError, about the device `name`, if there is none."""
    own = next((file for file in files if not file.startswith("/etc/")), None)
    if own is None:
        said = f"ssh_config names no known_hosts file of yours for {name} (UserKnownHostsFile none)"
        raise UsageError(said, hint="--known-hosts FILE, here and in the commands that follow")
    return Path(own)

"""Proving who we are to an SSH server: key files and a key agent. Never sends a password; never stores a passphrase.

A named key (`identity` in deploy.yaml, IdentitiesOnly) is the only one that is offered. A key file that others may
read is refused, as ssh does. The passphrase of an encrypted key comes from KNNKIT_SSH_PASSPHRASE or is asked for, once
for each file, on a terminal.
"""

from __future__ import annotations

import base64
import binascii
import getpass
import os
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from knnkit.errors import Unreachable
from knnkit.transport.ssh.config import Resolved
from knnkit.transport.ssh.paramiko_import import AgentSSH, paramiko

#: sshd's MaxAuthTries is 6.
_MAX_OFFERS = 6
_PASSPHRASE = "KNNKIT_SSH_PASSPHRASE"  # noqa: S105  (the name of the variable)
_loaded: dict[tuple[str, int], paramiko.PKey] = {}
_loading = threading.Lock()


class _Agent(AgentSSH):
    """The agent at a socket of our choice; paramiko's own looks only at SSH_AUTH_SOCK."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout)
        try:
            connection.connect(path)
            self._connect(connection)  # type: ignore[attr-defined]
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        self._close()  # type: ignore[attr-defined]


def authenticate(transport: paramiko.Transport, where: Resolved, *, timeout: float) -> None:
    """Logs in with the first key that the server takes.

    Raises:
        Unreachable: no key is accepted, or a named key cannot be used; the message lists what was tried.
    """
    tried: list[str] = []
    offered = False
    agent = _open_agent(where, timeout, tried)
    try:
        for label, key in _offers(where, agent, tried):
            tried.append(label)
            offered = True
            try:
                if not transport.auth_publickey(where.user, key):
                    return
                raise Unreachable(
                    f"{where.host}: {where.user} needs more than a key", reason="authentication", hint=_HINT
                )
            except paramiko.BadAuthenticationType as error:
                raise Unreachable(
                    f"{where.host}: takes no keys from {where.user}, only {', '.join(error.allowed_types)}",
                    reason="authentication",
                    hint=f"{_NO_PASSWORD}, then {_copy(where)}",
                ) from None
            except paramiko.AuthenticationException:
                if not transport.is_active() or len(tried) >= _MAX_OFFERS:
                    break
    finally:
        if agent is not None:
            agent.close()
    what = "; ".join(tried) if tried else "there is no key to offer"
    raise Unreachable(
        f"{where.host}: {where.user} is not let in ({what})",
        reason="authentication",
        hint=_copy(where) if offered or not where.identities_only else _USABLE,
    )


def _copy(where: Resolved) -> str:
    return f"ssh-copy-id -p {where.port} {where.user}@{where.host}"


_USABLE = "--identity FILE, or `identity` in deploy.yaml or ssh_config, with a private key that can be used"
_NO_PASSWORD = "knnkit sends no password: set `PubkeyAuthentication yes` in its sshd_config"  # noqa: S105
_HINT = "knnkit logs in with one key; a second factor cannot be typed for a fleet"


def _open_agent(where: Resolved, timeout: float, tried: list[str]) -> _Agent | None:
    if where.agent is None:
        return None
    try:
        return _Agent(where.agent, timeout)
    except (OSError, paramiko.SSHException) as error:
        tried.append(f"no agent at {where.agent}: {error}")
        return None


def _offers(where: Resolved, agent: _Agent | None, tried: list[str]) -> Iterator[tuple[str, paramiko.PKey]]:
    held = {key.asbytes(): key for key in agent.get_keys()} if agent else {}
    offered: set[bytes] = set()
    for name in where.identities:
        path = Path(name).expanduser()
        public = _public_blob(path)
        if public in held:
            offered.add(public)
            yield f"{name} by the agent", held[public]
            continue
        if not path.exists():
            if where.identities_only:
                tried.append(f"{name} does not exist")
            continue
        key = _load(path, tried)
        if key is not None:
            offered.add(key.asbytes())
            yield name, key
    if not where.identities_only:
        for blob, key in held.items():
            if blob not in offered:
                yield f"{key.comment or key.get_name()} by the agent", key


def _public_blob(path: Path) -> bytes:
    """Returns the public half beside a key file, without opening the key."""
    try:
        return base64.b64decode(path.with_name(path.name + ".pub").read_text().split()[1])
    except (OSError, ValueError, IndexError, binascii.Error):
        return b"\0"


def _load(path: Path, tried: list[str]) -> paramiko.PKey | None:
    """Reads a private key once a run; a key that cannot be used leaves its reason in `tried`."""
    try:
        found = path.stat()
        if stat.S_IMODE(found.st_mode) & 0o077 and found.st_uid == os.getuid():
            tried.append(f"{path} may be read by others: chmod 600 {path}")
            return None
        with _loading:
            known = (str(path), found.st_mtime_ns)
            if known not in _loaded:
                _loaded[known] = _open(path)
            return _loaded[known]
    except paramiko.PasswordRequiredException:
        tried.append(f"{path} has a passphrase: ssh-add it, or set {_PASSPHRASE}")
    except OSError as error:
        tried.append(f"{path}: {error.strerror}")
    except (paramiko.SSHException, ValueError, TypeError) as error:
        tried.append(f"{path}: {error or 'not a key that can be read'}")
    except Exception as error:  # paramiko: unknown formats end in exceptions of many kinds
        tried.append(f"{path}: {error or type(error).__name__}")
    return None


def _open(path: Path) -> paramiko.PKey:
    try:
        return paramiko.PKey.from_path(path)
    except (paramiko.PasswordRequiredException, TypeError):
        passphrase = os.environ.get(_PASSPHRASE)
        if not passphrase and sys.stdin is not None and sys.stdin.isatty():
            passphrase = getpass.getpass(f"Passphrase of {path}: ")
        if not passphrase:
            raise paramiko.PasswordRequiredException(str(path)) from None
        # It must be bytes (cryptography takes nothing else), whatever the signature says.
        return paramiko.PKey.from_path(path, password=passphrase.encode())  # type: ignore[arg-type]

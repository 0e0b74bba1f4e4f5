"""Logs in to an SSH server with keys.

Never sends a password. Keys come from files and from a key agent, and are offered in the order of ssh: the certificates
of a key, then the key itself. A file `k.pub` selects one key of the agent. If deploy.yaml names a key (`identity`), or
ssh_config says IdentitiesOnly, only named keys are offered. A key file that other users may read is refused, as ssh
does.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from knnkit.data.patterns import nearest
from knnkit.errors import Unreachable
from knnkit.transport.ssh import keys
from knnkit.transport.ssh.config import Resolved
from knnkit.transport.ssh.paramiko_import import AgentSSH, paramiko

#: Seconds for an agent to list its keys. For a signature it may wait for a person.
_AGENT_SECONDS = 5.0
#: sshd's MaxAuthTries is 6.
_MAX_OFFERS = 6


class _Agent(AgentSSH):
    """Connection to a key agent at any socket. paramiko's class knows only the socket in SSH_AUTH_SOCK."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(min(timeout / 2, _AGENT_SECONDS))
        try:
            connection.connect(path)
            self._connect(connection)  # type: ignore[attr-defined]
            connection.settimeout(timeout)
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        self._close()  # type: ignore[attr-defined]


@dataclass
class _Tried:
    """Labels of the keys offered so far (`offers`), and why other keys were not; `str` joins all for a message."""

    offers: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)  # about certificates; reported also after a login

    def __str__(self) -> str:
        return "; ".join((*self.offers, *self.notes, *self.warnings)) or "there is no key to offer"


def authenticate(transport: paramiko.Transport, where: Resolved, *, timeout: float) -> tuple[str, ...]:
    """Logs in over `transport` to the host `where` with the first key that the server accepts.

    Returns:
        Warnings about certificates that could not be used.

    Raises:
        Unreachable: the server accepts no key, or a named key cannot be used; the message lists what was tried.
    """
    tried = _Tried()
    agent = _open_agent(where, timeout, tried)
    try:
        for label, key in _offers(where, agent, tried):
            tried.offers.append(label)
            if _accepted(transport, where, key):
                return tuple(f"{where.host}: {warning}" for warning in tried.warnings)
            if not transport.is_active() or len(tried.offers) >= _MAX_OFFERS:
                break
    finally:
        if agent is not None:
            agent.close()
    raise Unreachable(
        f"{where.host}: the server accepts none of the keys for {where.user} ({tried})",
        reason="authentication",
        hint=where.by_hand("ssh-copy-id") if tried.offers or not where.identities_only else _USABLE,
    )


def _accepted(transport: paramiko.Transport, where: Resolved, key: paramiko.PKey) -> bool:
    try:
        if not transport.auth_publickey(where.user, key):
            return True
    except paramiko.BadAuthenticationType as error:
        raise Unreachable(
            f"{where.host}: the server accepts no keys from {where.user}, only {', '.join(error.allowed_types)}",
            reason="authentication",
            hint=f"{_NO_PASSWORD}, then {where.by_hand('ssh-copy-id')}",
        ) from None
    except paramiko.AuthenticationException:
        return False
    said = f"{where.host}: the server wants more than a key from {where.user}"
    raise Unreachable(said, reason="authentication", hint=_HINT)


_USABLE = "--identity FILE, or `identity` in deploy.yaml or ssh_config, with a private key that can be used"
_NO_PASSWORD = "knnkit sends no password: set `PubkeyAuthentication yes` in the server's sshd_config"  # noqa: S105
_HINT = "knnkit logs in with one key; a second factor cannot be typed for a fleet"


def _open_agent(where: Resolved, timeout: float, tried: _Tried) -> _Agent | None:
    if where.agent is None:
        return None
    try:
        return _Agent(where.agent, timeout)
    except (OSError, paramiko.SSHException) as error:
        tried.notes.append(f"no agent at {where.agent}: {error}")
        return None


def _offers(where: Resolved, agent: _Agent | None, tried: _Tried) -> Iterator[tuple[str, paramiko.PKey]]:
    held = {key.blob: key for key in agent.get_keys()} if agent else {}
    offered: set[bytes] = set()
    for name in where.identities:
        path = Path(name).expanduser()
        found = _key(name, path, held.get(keys.public_half(path) or b""), agent, where, tried)
        if found is None:
            continue
        label, key = found
        for certificate, certified in keys.certificates_of(path, where.certificates, key, tried.warnings):
            yield f"{label} with {certificate}", certified
        offered.add(key.asbytes())
        yield label, key
    if not where.identities_only:
        for blob, key in held.items():
            if blob not in offered:
                yield f"{key.comment or key.get_name()} by the agent", keys.AgentKey(key, tried.notes)


def _key(
    name: str, path: Path, held: paramiko.AgentKey | None, agent: _Agent | None, where: Resolved, tried: _Tried
) -> tuple[str, paramiko.PKey] | None:
    """Returns (label for messages, key) of the identity `name`: the key agent's key (`held`), else that in `path`.

    None if neither can be used; `tried` then gets the reason.
    """
    if held is not None:
        return f"{name} by the agent", keys.AgentKey(held, tried.notes)
    lacks = "the key agent does not hold this key" if agent else "no key agent is running that could use it"
    try:
        return name, keys.load(path, agent=lacks)
    except FileNotFoundError:
        if where.identities_only:
            near = nearest(path, (path.suffix,), " ").strip()
            tried.notes.append(f"{name} does not exist{near and f'; {near}'}")
    except keys.NoKey as error:
        tried.notes.append(str(error))
    return None

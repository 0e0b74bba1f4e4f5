"""An address with ssh_config applied: HostName, User, Port, keys, key agent, ProxyJump, ProxyCommand and known_hosts.

What the user wrote in deploy.yaml or on the command line comes first, then ssh_config, then OpenSSH's defaults.
`Include` is followed. `StrictHostKeyChecking` is not read: host keys are always checked. Never connects.
"""

from __future__ import annotations

import errno
import functools
import getpass
import glob
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from knnkit.config.field_types import split_address
from knnkit.errors import Unreachable
from knnkit.transport.address import Address
from knnkit.transport.ssh.paramiko_import import paramiko

USER_CONFIG = "~/.ssh/config"
_USER_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_GLOBAL_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_DEFAULT_KEYS = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
_MAX_INCLUDES = 16
#: Largest ssh_config that is read, in characters.
_MAX_CONFIG = 1 << 20
_MAX_JUMPS = 8
_MAX_PORT = 65535


@dataclass(frozen=True)
class Resolved:
    """Everything that is needed to open one connection."""

    host: str
    port: int
    user: str
    key_name: str  # under which known_hosts knows it: the host, or HostKeyAlias
    key_port: int  # likewise: that of the host; 22 with HostKeyAlias, which stands for host and port, as in ssh
    identities: tuple[str, ...]
    identities_only: bool
    agent: str | None  # socket of the key agent; None: use none
    jumps: tuple[Resolved, ...]  # the first is connected to first
    known_hosts: tuple[str, ...]
    proxy: str | None = None  # the command whose input and output are the connection; None: connect


def resolve(address: Address, *, depth: int = 0) -> Resolved:
    """Applies ssh_config.

    Raises:
        Unreachable: ssh_config cannot be read, or asks for what is not supported.
    """
    if depth > _MAX_JUMPS:
        raise Unreachable(f"{address.host}: jumps through more than {_MAX_JUMPS} hosts", reason="ssh-config")
    found = _lookup(address)
    host = str(found.get("hostname", address.host))
    jumps = _jumps(address, str(found.get("proxyjump", "none")), depth)
    listed = tuple(found.get("identityfile", ()))
    port = address.port or _port(found, address)
    return Resolved(
        host=host,
        port=port,
        user=address.user or str(found.get("user", "")) or getpass.getuser(),
        key_name=str(found.get("hostkeyalias", host)),
        key_port=22 if "hostkeyalias" in found else port,
        identities=(address.identity,) if address.identity else listed or _DEFAULT_KEYS,
        identities_only=bool(address.identity) or found.get("identitiesonly") == "yes",
        agent=_agent(str(found.get("identityagent", "SSH_AUTH_SOCK"))),
        jumps=jumps,
        known_hosts=(*address.known_hosts, *_known_hosts(found)),
        proxy=None if jumps or address.jump else _proxy(found),
    )


def _port(found: dict[str, Any], address: Address) -> int:
    said = str(found.get("port", 22))
    if not (said.isascii() and said.isdigit() and 0 < int(said) <= _MAX_PORT):
        raise Unreachable(f"{address.config or USER_CONFIG}: Port {said[:40]} is no port", reason="ssh-config")
    return int(said)


def _proxy(found: dict[str, Any]) -> str | None:
    command = str(found.get("proxycommand") or "none")
    return None if command.lower() == "none" else command.replace("%%", "%")


def _lookup(address: Address) -> dict[str, Any]:
    path = address.config or USER_CONFIG
    try:
        # What the user wrote comes first, also in the command of a proxy, where it stands for %p and %r.
        said = [f"Port {address.port}"] * (address.port is not None) + [f"User {address.user}"] * bool(address.user)
        return dict(_read(path, "\n".join(said)).lookup(address.host))
    except FileNotFoundError:
        if path == USER_CONFIG:
            return {}
        raise Unreachable(f"{path}: there is no such ssh_config", reason="ssh-config") from None
    except OSError as error:
        raise Unreachable(f"{path}: {error.strerror}", reason="ssh-config") from None
    except (paramiko.SSHException, ValueError) as error:
        raise Unreachable(f"{path}: {error}", reason="ssh-config") from None


@functools.lru_cache(maxsize=16)
def _read(path: str, before: str) -> paramiko.SSHConfig:
    return paramiko.SSHConfig.from_text(f"{before}\n{_text(path)}")


@functools.lru_cache(maxsize=16)
def _text(path: str) -> str:
    return _with_includes(Path(path).expanduser(), 0)


def _with_includes(path: Path, depth: int) -> str:
    """Returns the file's text with `Include` replaced by what it names (paramiko does not)."""
    lines = []
    with path.open(encoding="utf-8", errors="replace") as file:
        text = file.read(_MAX_CONFIG + 1)
    if len(text) > _MAX_CONFIG:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    for line in text.splitlines():
        words = line.replace("=", " ", 1).split()
        if len(words) < 2 or words[0].lower() != "include" or depth >= _MAX_INCLUDES:
            lines.append(line)
            continue
        for pattern in words[1:]:
            where = Path(pattern.strip('"')).expanduser()
            where = where if where.is_absolute() else Path("~/.ssh").expanduser() / where
            lines += [_with_includes(Path(name), depth + 1) for name in sorted(glob.glob(str(where)))]  # noqa: PTH207
    return "\n".join(lines) + "\n"


def _agent(said: str) -> str | None:
    if said == "none":
        return None
    if said == "SSH_AUTH_SOCK":
        return os.environ.get("SSH_AUTH_SOCK") or None
    return os.path.expandvars(str(Path(said.strip('"')).expanduser()))


def _known_hosts(found: dict[str, Any]) -> tuple[str, ...]:
    user = str(found["userknownhostsfile"]).split() if "userknownhostsfile" in found else _USER_KNOWN_HOSTS
    globals_ = str(found["globalknownhostsfile"]).split() if "globalknownhostsfile" in found else _GLOBAL_KNOWN_HOSTS
    return tuple(path for path in (*user, *globals_) if path != "none")


def _jumps(address: Address, configured: str, depth: int) -> tuple[Resolved, ...]:
    text = address.jump or configured
    if text.lower() == "none":
        return ()
    chain: list[Resolved] = []
    for index, one in enumerate(text.split(",")):
        try:
            user, host, port = split_address(one.strip().removeprefix("ssh://"))
        except ValueError as error:
            raise Unreachable(f"{address.host}: jump: {error}", reason="ssh-config") from None
        # The hosts after the first are reached through the one before, whatever ssh_config says of them.
        jump = None if index == 0 else "none"
        resolved = resolve(replace(address, host=host, user=user, port=port, jump=jump), depth=depth + 1)
        chain += [*resolved.jumps, replace(resolved, jumps=())]
    return tuple(chain)

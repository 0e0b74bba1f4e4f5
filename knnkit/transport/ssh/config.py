"""Applies ssh_config to an address. Never connects.

Finds host name, user, port, keys, key agent, jump hosts, proxy command and known_hosts files. A setting of deploy.yaml
or of the command line wins over ssh_config, which wins over the defaults of OpenSSH. `ssh -G` reads ssh_config; if
OpenSSH is not installed, knnkit reads the file itself, and refuses lines that it does not support. Host keys are always
checked: `StrictHostKeyChecking` is ignored.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from knnkit.config.field_types import check_host, check_word, split_address
from knnkit.data.patterns import nearest
from knnkit.errors import Unreachable
from knnkit.transport.address import Address
from knnkit.transport.foreign_config import refuse_foreign
from knnkit.transport.ssh import config_file, openssh
from knnkit.transport.ssh.settings import CannotExpand, Settings, WrongConfig, expand, expand_path, tokens

_MAX_JUMPS = 8


@dataclass(frozen=True)
class Resolved:
    """All settings that are needed to open one connection."""

    host: str
    port: int
    user: str
    key_name: str  # its name in known_hosts: the host, or HostKeyAlias
    key_port: int  # its port in known_hosts; 22 with HostKeyAlias, which replaces host and port
    identities: tuple[str, ...]
    identities_only: bool
    agent: str | None  # socket of the key agent; None: use none
    jumps: tuple[Resolved, ...]  # the first is connected to first
    known_hosts: tuple[str, ...]
    proxy: str | None = None  # a command that makes the connection; None: TCP
    certificates: tuple[str, ...] = ()  # CertificateFile; files next to a key are found without it
    revoked: str | None = None  # a file of host keys that are refused, wherever they are offered
    hash_names: bool = False  # whether known_hosts gets hashes in place of names
    family: str = "any"  # of addresses: any, inet, inet6
    source: str | None = None  # the address to connect from
    ignored: tuple[str, ...] = ()  # settings of ssh_config that knnkit does not follow
    typed: str = ""  # the options that name it on a command line, if it was named there

    def by_hand(self, *command: str) -> str:
        """Returns a command line that connects to this host: `command`, such as `ssh -v`, options and address."""
        key = ("-i", str(Path(self.identities[0]).expanduser())) if self.identities_only and self.identities else ()
        jumps = ",".join(str(Address(hop.host, hop.user, hop.port)) for hop in self.jumps)
        way = f"ProxyJump={jumps}" if jumps else f"ProxyCommand={self.proxy}" if self.proxy else ""
        through = ("-o", way) if way else ()
        return shlex.join([*command, *key, *through, "-p", str(self.port), f"{self.user}@{self.host}"])


def resolve(address: Address, *, depth: int = 0) -> Resolved:
    """Returns the settings for connecting to an address, after applying ssh_config; `depth` counts jump hosts so far.

    Raises:
        ConfigError: the ssh_config that deploy.yaml names may run commands, and the user has not agreed.
        Unreachable: a name is not valid, there are too many jump hosts, or ssh_config cannot be read, is wrong, or uses
            an unsupported setting.
    """
    if depth > _MAX_JUMPS:
        raise Unreachable(f"{address.host}: jumps through more than {_MAX_JUMPS} hosts", reason="ssh-config")
    _check_names(address)
    refuse_foreign(address)
    found = _settings(address)
    named = tokens(found.host, found.port, found.user, address.host, found.alias)
    if found.digest:
        named["C"] = found.digest
    try:
        jumps, known = _jumps(address, found.jump or "none", depth), found.user_known_hosts + found.global_known_hosts
        return Resolved(
            host=found.host,
            port=found.port,
            user=found.user,
            key_name=found.alias or found.host,
            key_port=22 if found.alias else found.port,
            identities=(address.identity,) if address.identity else _files(found.identities, named),
            identities_only=bool(address.identity) or found.identities_only,
            agent=_agent(found.agent),
            jumps=jumps,
            known_hosts=(*address.known_hosts, *(path for path in known if path.lower() != "none")),
            proxy=None if jumps or address.jump else _proxy(found.proxy, named),
            certificates=_files(found.certificates, named),
            revoked=next(iter(_files((found.revoked or "none",), named)), None),
            hash_names=found.hash_names,
            family=found.family,
            source=found.source,
            ignored=found.ignored,
            typed=address.typed.words(logs_in=bool(jumps)) if address.typed else "",
        )
    except CannotExpand as error:
        raise Unreachable(f"{address.config or 'ssh_config'}: {error}", reason="ssh-config") from None


def _check_names(address: Address) -> None:
    """Raises Unreachable for a user or host name that must not reach a shell; a notebook may pass unchecked names."""
    try:
        check_host(address.host)
        check_word(address.user or "nobody")
    except ValueError as error:
        raise Unreachable(str(error), reason="bad-name", hint="user@host, in letters, digits, '.' and '-'") from None


def _settings(address: Address) -> Settings:
    program, config = openssh.client(), address.config
    try:
        if program:
            return openssh.ask(program, address.host, port=address.port, user=address.user, config=config)
        return config_file.lookup(address.host, port=address.port, user=address.user, config=config)
    except (OSError, WrongConfig) as error:
        said = f"{config or 'ssh_config'}: {error.strerror}" if isinstance(error, OSError) else str(error)
        path = Path(config or "~").expanduser()
        hint = "" if path.exists() else nearest(path, (path.suffix,))
        raise Unreachable(said, reason="ssh-config", hint=hint) from None


def _files(names: tuple[str, ...], named: dict[str, str]) -> tuple[str, ...]:
    return tuple(expand_path(name, named) for name in names if name.lower() != "none")


def _proxy(command: str | None, named: dict[str, str]) -> str | None:
    if command is None or command.lower() == "none":
        return None
    return expand(command, {token: named[token] for token in "hknpr"}, variables=False)


def _agent(said: str) -> str | None:
    if said == "none":
        return None
    if said == "SSH_AUTH_SOCK":
        return os.environ.get("SSH_AUTH_SOCK") or None
    return os.environ.get(said[1:]) if re.fullmatch(r"\$\w+", said) else said


def _jumps(address: Address, configured: str, depth: int) -> tuple[Resolved, ...]:
    text = address.jump or configured
    if text.lower() == "none":
        return ()
    chain: list[Resolved] = []
    hops = [one.strip() for one in text.split(",")]
    for index, one in enumerate(hops):
        try:
            user, host, port = split_address(one.removeprefix("ssh://").removesuffix("/"))
        except ValueError as error:
            raise Unreachable(f"{address.host}: jump: {error}", reason="ssh-config") from None
        # Each host after the first is reached through the host before it, even if ssh_config says otherwise.
        before = ",".join(hops[:index]) or None
        typed = address.typed and replace(address.typed, name=one, jump=before)
        hop = replace(address, host=host, user=user, port=port, jump=before and "none", typed=typed)
        resolved = resolve(hop, depth=depth + 1)
        chain += [*resolved.jumps, replace(resolved, jumps=())]
    return tuple(chain)

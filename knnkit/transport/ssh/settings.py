"""Settings of ssh_config for one host."""

from __future__ import annotations

from dataclasses import dataclass


class WrongConfig(Exception):
    """ssh_config is wrong, or knnkit does not support it; the message names file, line and word."""


@dataclass(frozen=True)
class Settings:
    """What ssh uses for one host. Tokens are expanded, except in `identities`, `certificates` and `proxy`."""

    host: str
    port: int
    user: str
    alias: str | None = None  # HostKeyAlias
    identities: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    identities_only: bool = False
    agent: str = "SSH_AUTH_SOCK"
    jump: str | None = None
    proxy: str | None = None
    user_known_hosts: tuple[str, ...] = ()
    global_known_hosts: tuple[str, ...] = ()
    digest: str | None = None  # the value of %C, if it is known

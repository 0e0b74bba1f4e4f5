"""Where a device is reached, as the user wrote it; ssh_config is applied when connecting. No I/O, picklable."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Address:
    """What is None is for ssh_config, and then for the defaults, to say."""

    host: str
    user: str | None = None
    port: int | None = None
    identity: str | None = None  # private key file: no other key is offered
    jump: str | None = None  # "user@host:port,...", or "none"
    config: str | None = None  # ssh_config file; None: ~/.ssh/config
    known_hosts: tuple[str, ...] = ()  # read before the user's own

    def __str__(self) -> str:
        """`user@host:port`, without what is not said."""
        host = f"[{self.host}]" if ":" in self.host and self.port else self.host
        return f"{self.user + '@' if self.user else ''}{host}{f':{self.port}' if self.port else ''}"

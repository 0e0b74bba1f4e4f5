"""Where a device is reached, as the user wrote it; ssh_config is applied when connecting. No I/O, picklable."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Typed:
    """How a command line named a device, as far as a hint must repeat it to reach the same one."""

    name: str  # as --target has it, or the name in deploy.yaml
    jump: str | None = None
    identity: str | None = None
    options: tuple[str, ...] = ()

    def words(self, *more: str, jumps: bool = False) -> str:
        """Returns the words for another command; `jumps` says that a jump host stands before, which wants the key."""
        jump = ("-J", self.jump) if self.jump else ()
        identity = ("-i", self.identity) if self.identity and (jumps or jump) else ()
        return shlex.join((self.name, *more, *jump, *identity, *self.options))


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
    foreign: bool = False  # `config` was named by deploy.yaml, whose author may be somebody else
    typed: Typed | None = field(default=None, compare=False)  # None: no command line named it

    def __str__(self) -> str:
        """`user@host:port`, without what is not said."""
        host = f"[{self.host}]" if ":" in self.host and self.port else self.host
        return f"{self.user + '@' if self.user else ''}{host}{f':{self.port}' if self.port else ''}"

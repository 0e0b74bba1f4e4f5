"""Address of a device, as the user wrote it.

ssh_config is applied only when connecting. No I/O; picklable."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field

from knnkit.errors import names_path


@dataclass(frozen=True)
class Typed:
    """How the user named a device, with the options on the command line that select it; hints repeat them."""

    name: str  # value of --target, or the name in deploy.yaml
    jump: str | None = None
    identity: str | None = None
    options: tuple[str, ...] = ()

    def words(self, *more: str, logs_in: bool = False) -> str:
        """Returns text to type after another command about this device: its name, `more`, then the options.

        The key (`-i`) is one of these only if the user named a jump host, or if the command logs in (`logs_in`).
        """
        jump = ("-J", self.jump) if self.jump else ()
        identity = ("-i", self.identity) if self.identity and (logs_in or jump) else ()
        return shlex.join((self.name, *more, *jump, *identity, *self.options))


@dataclass(frozen=True)
class Address:
    """Where to connect. For a field that is None, ssh_config decides, or else the default of ssh."""

    host: str
    user: str | None = None
    port: int | None = None
    identity: str | None = None  # private key file: no other key is offered
    jump: str | None = None  # "user@host:port,...", or "none"
    config: str | None = None  # ssh_config file; None: ~/.ssh/config
    known_hosts: tuple[str, ...] = ()  # read before the user's own
    foreign: bool = False  # deploy.yaml names `config`, and its author may be a stranger
    typed: Typed | None = field(default=None, compare=False)  # None: not from a command line
    #: Path of a file, and the key of deploy.yaml that names it, with file and line.
    lines: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    def with_key(self, said: str) -> str:
        """Returns the message `said`.

        If it has a path that deploy.yaml sets, adds the key and its line: `(identity in deploy.yaml:7)`.
        """
        found = [line for path, line in self.lines if names_path(said, path) and line not in said]
        return f"{said} ({', '.join(found)})" if found else said

    def __str__(self) -> str:
        """`user@host:port`, without the parts that are None."""
        host = f"[{self.host}]" if ":" in self.host and self.port else self.host
        return f"{self.user + '@' if self.user else ''}{host}{f':{self.port}' if self.port else ''}"

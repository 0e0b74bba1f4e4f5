"""Settings of ssh_config for one host, and their tokens.

`ssh -G` does not expand most tokens such as `%h`, variables such as `${HOME}`, or a leading `~`, so knnkit expands
them. The value of a token is never expanded again.
"""

from __future__ import annotations

import getpass
import os
import pwd
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass

_PART = re.compile(r"%(.?)|\$\{([^}]*)\}", re.DOTALL)


class WrongConfig(Exception):
    """Error: ssh_config is wrong, or knnkit does not support it; the message names file, line and word."""


@dataclass(frozen=True)
class Settings:
    """Settings of ssh for one host. Tokens are expanded, except in `identities`, `certificates` and `proxy`."""

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
    revoked: str | None = None  # RevokedHostKeys
    hash_names: bool = False  # HashKnownHosts
    family: str = "any"  # AddressFamily: any, inet, inet6
    source: str | None = None  # BindAddress
    ignored: tuple[str, ...] = ()  # settings that ssh would follow, and knnkit does not


class CannotExpand(ValueError):
    """Error: a token is unknown, or a variable is not set."""


def expand(text: str, tokens: Mapping[str, str], *, variables: bool = True) -> str:
    """Replaces tokens such as `%h` in `text`, and, unless `variables` is False, variables such as `${NAME}`.

    `tokens` maps the letter after `%` to its value; `%%` is always known.

    Raises:
        CannotExpand: a token is unknown, or a variable is not set.
    """

    def replaced(part: re.Match[str]) -> str:
        letter, variable = part.groups()
        if variable is not None:
            if not variables:
                return part[0]
            if variable not in os.environ:
                raise CannotExpand(f"{part[0]}: this variable is not set")
            return os.environ[variable]
        if letter == "%":
            return "%"
        if letter not in tokens:
            raise CannotExpand(f"{part[0]}: this token is unknown here")
        return tokens[letter]

    return _PART.sub(replaced, text)


def expand_path(text: str, tokens: Mapping[str, str]) -> str:
    """Replaces a leading `~`, then tokens and variables, in the path of a file.

    Raises:
        CannotExpand: a token is unknown, or a variable is not set.
    """
    return expand(os.path.expanduser(text), tokens)  # noqa: PTH111  (pathlib would drop a trailing slash)


def tokens(host: str, port: int, user: str, original: str, alias: str | None) -> dict[str, str]:
    """Returns letter -> value of the tokens `%h` and so on; not `%C` and `%j`, which differ between OpenSSH versions.

    `host` is the host to connect to, `original` the name as typed, `alias` HostKeyAlias (None: not set).
    """
    here = socket.gethostname()
    return {
        "d": os.path.expanduser("~"),  # noqa: PTH111
        "h": host,
        "i": str(os.getuid()),
        "k": alias or original,
        "L": here.split(".")[0],
        "l": here,
        "n": original,
        "p": str(port),
        "r": user,
        "u": local_user(),
    }


def local_user() -> str:
    """Returns the name of the account that this process runs as."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return getpass.getuser()

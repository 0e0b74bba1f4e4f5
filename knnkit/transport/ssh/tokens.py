"""Expands tokens, variables and `~` in values of ssh_config.

`ssh -G` leaves most of `%h`, `${HOME}` and a leading `~` as they are, so knnkit expands them. One pass: the value of a
token is never expanded again.
"""

from __future__ import annotations

import getpass
import os
import pwd
import re
import socket
from collections.abc import Mapping

_PART = re.compile(r"%(.?)|\$\{([^}]*)\}", re.DOTALL)


class CannotExpand(ValueError):
    """A token is unknown, or a variable is not set."""


def expand(text: str, tokens: Mapping[str, str], *, variables: bool = True) -> str:
    """Returns `text` with its tokens and variables replaced.

    Args:
        text: a value of ssh_config.
        tokens: letter after `%` -> its value; `%%` is always known.
        variables: whether `${NAME}` is replaced as well.

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
    """Returns the path of a file: `~` first, then tokens and variables.

    Raises:
        CannotExpand: as `expand`.
    """
    return expand(os.path.expanduser(text), tokens)  # noqa: PTH111  (pathlib would drop a trailing slash)


def tokens(host: str, port: int, user: str, original: str, alias: str | None) -> dict[str, str]:
    """Returns the values of tokens such as `%h`; without `%C` and `%j`, which differ between versions of OpenSSH."""
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

"""Refuses commands in an ssh_config that deploy.yaml names.

`Match exec` and `ProxyCommand` run commands on this machine. The user's own ssh_config (in ~/.ssh, in /etc/ssh, or
named with `--ssh-config`) may do that. An ssh_config that only deploy.yaml names may do it only after the user
agreed, since the author of deploy.yaml may be a stranger. An agreement is stored as the digest of the file.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from pathlib import Path

from device_agent.shared.safe_files import read_small
from knnkit.errors import ConfigError
from knnkit.transport.address import Address
from knnkit.transport.base import printable

_AGREED = Path("~/.config/knnkit/agreed_ssh_configs")
_MAX_CONFIG = 1 << 20
#: Every line that can run a command or include another file has one of these words (lower case, quotes removed).
_RUNS = ("exec", "proxycommand", "include")


def commands_in(path: str | Path) -> tuple[str, ...]:
    """Returns the lines of an ssh_config that may run a command or include a file, as `FILE:LINE: text`.

    Returns () for a file in ~/.ssh or /etc/ssh, whatever it contains. Searches for words and ignores the syntax, so
    that unusual syntax cannot hide a line.
    """
    file = Path(path).expanduser()
    if _is_own(file):
        return ()
    found = []
    for number, line in enumerate(_read(file).decode("utf-8", "replace").split("\n"), start=1):
        if _has(line, *_RUNS) and not line.lstrip().startswith("#"):
            found.append(f"{file}:{number}: {printable(line.strip()[:200])}")
    return tuple(found)


def refuse_foreign(address: Address) -> None:
    """Checks that the ssh_config of an address may be used.

    Raises:
        ConfigError: deploy.yaml names the file, it may run commands, and the user has not agreed.
    """
    if not address.foreign or address.config is None or is_agreed(address.config):
        return
    commands = commands_in(address.config)
    if commands:
        raise refusal(address, commands[0])


def refusal(address: Address, command: str) -> ConfigError:
    """Returns the error for an ssh_config that only deploy.yaml names, and whose line `command` may run a command."""
    said = f"{command}: this line may run a command here; deploy.yaml names the file, and you have not allowed it"
    hint = f"read the file; to allow its commands: --ssh-config {shlex.quote(str(address.config))}"
    return ConfigError(address.with_key(said), reason="foreign-ssh-config", hint=hint)


def is_agreed(path: str | Path) -> bool:
    """Whether the user has agreed to the present content of the ssh_config `path`."""
    try:
        return _digest(path) in _AGREED.expanduser().read_text().split()
    except (OSError, UnicodeDecodeError):
        return False


def agree(path: str | Path) -> None:
    """Stores the agreement to the present content of an ssh_config; not if it includes files, which may change."""
    if _has(_read(Path(path).expanduser()).decode("utf-8", "replace"), "include"):
        return
    file = _AGREED.expanduser()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "a") as out:
        out.write(f"{_digest(path)}\n")


def _has(text: str, *words: str) -> bool:
    plain = re.sub(r"[\"'\\]", "", text).lower()
    return any(word in plain for word in words)


def _is_own(file: Path) -> bool:
    real = file.resolve()
    return any(real.is_relative_to(folder.resolve()) for folder in (Path("~/.ssh").expanduser(), Path("/etc/ssh")))


def _read(file: Path) -> bytes:
    try:
        data = read_small(file, _MAX_CONFIG, follow=True)
    except OSError:
        return b""  # ssh cannot read it either, and reports that
    if len(data) > _MAX_CONFIG:
        raise ConfigError(f"{file} has more than {_MAX_CONFIG:,} bytes", reason="foreign-ssh-config")
    return data


def _digest(path: str | Path) -> str:
    return hashlib.sha256(_read(Path(path).expanduser())).hexdigest()

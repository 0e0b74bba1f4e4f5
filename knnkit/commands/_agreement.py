"""The question whether an ssh_config that deploy.yaml names may run commands on this machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from knnkit.transport import foreign_config

if TYPE_CHECKING:
    from knnkit.fleet.targets import Target

_SHOWN = 10  # lines of the file


def agreed(targets: Sequence[Target]) -> tuple[Target, ...]:
    """Returns the targets, once the user agreed to the ssh_config that deploy.yaml names for them.

    Asks on a terminal where the file may run commands, and keeps the answer as long as the file is the same.

    Raises:
        ConfigError: nobody agreed.
    """
    files = {one.address.config for one in targets if one.address and one.address.foreign and one.address.config}
    mine = {file for file in files if _may_run(file)}
    return tuple(
        replace(one, address=replace(one.address, foreign=False)) if one.address and one.address.config in mine else one
        for one in targets
    )


def _may_run(file: str) -> bool:
    commands = foreign_config.commands_in(file)
    if not commands or foreign_config.is_agreed(file):
        return True
    if sys.stdin is None or not sys.stdin.isatty() or not sys.stderr.isatty():
        raise foreign_config.refusal(file, commands[0])
    print("deploy.yaml names an ssh_config that may run commands on this machine:", file=sys.stderr)
    print("".join(f"  {line}\n" for line in commands[:_SHOWN]), end="", file=sys.stderr)
    print(f"  and {len(commands) - _SHOWN} more\n" if len(commands) > _SHOWN else "", end="", file=sys.stderr)
    print("Do you know this file, and may it? [y/N] ", end="", file=sys.stderr, flush=True)  # output may be a file
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise foreign_config.refusal(file, commands[0])
    foreign_config.agree(file)
    return True

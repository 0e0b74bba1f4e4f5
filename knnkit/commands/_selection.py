"""Selects devices, keys and time limits for fleet commands."""

from __future__ import annotations

import argparse
import getpass
import os
import secrets
import shlex
import socket
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from device_agent.shared.protocol import constants
from knnkit.commands import _config
from knnkit.commands._output import read_report
from knnkit.config import messages
from knnkit.config.parse import Config, RolloutConfig, parse_duration
from knnkit.errors import NothingToDo, SigningKeyError, UsageError
from knnkit.fleet import targets as target
from knnkit.fleet.device.connect import Pace
from knnkit.fleet.rollout.executor import Fan, fan
from knnkit.fleet.targets import Overrides, Target
from knnkit.release import keys
from knnkit.transport import foreign_config
from knnkit.transport.address import Address

#: Most characters of user and host in a holder's name: a device cuts long names, and the run's token must remain.
_MAX_NAME = 160
_SHOWN = 10  # lines of an ssh_config
#: Options that say how to reach a device.
_REACH = ("root", "identity", "jump", "ssh_config", "known_hosts")


def select_targets(arguments: argparse.Namespace, config: Config | None) -> tuple[Target, ...]:
    """Returns the devices that the command line selects; `config` is deploy.yaml, or None, as in all functions here.

    Raises:
        UsageError: no device is selected, the selection is invalid, or a deploy is to go on from another command's
            report.
        NothingToDo: `--retry-from` names a report without unfinished devices.
    """
    targets = target.select(config, named=arguments.target, tags=arguments.on, overrides=overrides(arguments))
    if arguments.root is not None:  # relative to the current folder on this machine, to the home folder on a device
        targets = tuple(one if one.address else replace(one, root=_here(arguments.root)) for one in targets)
    target.require_distinct(targets)
    if arguments.retry_from is None:
        return agreed(targets)
    report = read_report(arguments.retry_from)
    if arguments.command == "deploy" != report.command:  # a dry run, for example, "succeeds" and deploys nothing
        said = f"{arguments.retry_from} is a report of {report.command[:40]!r}, which deploys nothing"
        raise UsageError(said, hint="name a file that `knnkit deploy --report FILE.json` wrote")
    names = report.unfinished()
    if not names:
        of = f" with {', '.join(f'{one.name} {one.version}' for one in report.releases)}" if report.releases else ""
        said = f"{arguments.retry_from}: every device succeeded{of}; there is nothing to try again"
        hint = "leave out --retry-from to select all devices, for another release, too"
        raise NothingToDo(said, reason="nothing-to-do", hint=hint)
    return agreed(target.only(targets, names, str(arguments.retry_from)))


def _here(root: str) -> str:
    try:
        return str(Path(root).expanduser().absolute())
    except RuntimeError:
        raise UsageError(f"--root {root}: no such user", hint=f"--root {constants.DEFAULT_ROOT}") from None


def agreed(targets: Sequence[Target]) -> tuple[Target, ...]:
    """Asks whether the ssh_config that deploy.yaml names may be used; returns `targets`, now allowed to use it.

    Raises:
        ConfigError: the user did not agree, or there is no terminal to ask on.
    """
    there = [one.address for one in targets if one.address and one.address.foreign and one.address.config]
    mine = {file for file, address in {each.config: each for each in there}.items() if _may_run(str(file), address)}
    return tuple(
        replace(one, address=replace(one.address, foreign=False)) if one.address and one.address.config in mine else one
        for one in targets
    )


def _may_run(file: str, address: Address) -> bool:
    commands = foreign_config.commands_in(file)
    if not commands or foreign_config.is_agreed(file):
        return True
    if sys.stdin is None or not sys.stdin.isatty() or not sys.stderr.isatty():
        raise foreign_config.refusal(address, commands[0])
    more = [f"and {len(commands) - _SHOWN} more"] if len(commands) > _SHOWN else []
    said = "deploy.yaml names an ssh_config that may run commands on this machine:"
    print(said, *commands[:_SHOWN], *more, sep="\n  ", file=sys.stderr)
    if not agrees("Do you know this file, and allow its commands?"):
        raise foreign_config.refusal(address, commands[0])
    foreign_config.agree(file)
    return True


def agrees(question: str) -> bool:
    """Prints `question` on standard error (the output may be a file), reads the answer; returns whether it is yes."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def words(arguments: argparse.Namespace) -> str:
    """Returns the options that selected these devices, and how to reach them, for another command in a hint."""
    given = [("--target", name) for name in arguments.target] + [("--on", tag) for tag in arguments.on]
    given += [(f"--{name.replace('_', '-')}", getattr(arguments, name)) for name in _REACH]
    typed = "".join(f" {option} {shlex.quote(str(value))}" for option, value in given if value is not None)
    return _config.flags(arguments, model=False) + typed


def overrides(arguments: argparse.Namespace) -> Overrides:
    """Returns the options of the command line that apply to every device.

    Raises:
        UsageError: a part of `--jump` is not a host.
    """
    return Overrides(
        root=arguments.root,
        identity=arguments.identity,
        jump=arguments.jump,
        ssh_config=arguments.ssh_config,
        known_hosts=arguments.known_hosts,
        device_class=getattr(arguments, "device_class", None),
        runtime=getattr(arguments, "runtime", None),
        deploy_yaml=str(arguments.config) if arguments.config else None,
    )


def trusted_keys(arguments: argparse.Namespace, config: Config | None) -> dict[str, bytes]:
    """Returns fingerprint -> PEM of the keys that bare devices shall trust: `--key`, else deploy.yaml's; {} if none.

    Raises:
        SigningKeyError: a file is missing or does not hold a public key.
    """
    with _config.line_in_errors(config):
        return keys.load_public_keys(arguments.key or _config.own_public_keys(config))


def named_keys(arguments: argparse.Namespace, config: Config | None) -> frozenset[str]:
    """Returns the fingerprints of the keys that deploy.yaml and `--key` name; empty, with a warning, if unreadable."""
    try:
        with _config.line_in_errors(config):
            return frozenset(keys.load_public_keys([*getattr(arguments, "key", ()), *_config.own_public_keys(config)]))
    except SigningKeyError as error:
        print(f"knnkit: warning: {error}: devices are not checked for other trusted keys", file=sys.stderr)
        return frozenset()


def models_of(config: Config | None) -> frozenset[str]:
    """Returns the names of the models that deploy.yaml builds; empty without a deploy.yaml."""
    return frozenset(build.model.name for build in config.builds()) if config else frozenset()


def pace_of(arguments: argparse.Namespace, config: Config | None) -> Pace:
    """Returns the time limits of a job: from the command line, else from deploy.yaml, else the defaults.

    Raises:
        UsageError: a number or a time limit is not one that deploy.yaml may have.
    """
    said = config.rollout if config else RolloutConfig()
    return Pace(
        connect=connect_timeout(arguments, said),
        retries=_limited("--connect-retries", arguments.connect_retries, said),
        command=_limited("--command-timeout", _duration("--command-timeout", arguments.command_timeout), said),
        confirm=_limited(
            "--confirm-within", _duration("--confirm-within", getattr(arguments, "confirm_within", None)), said
        ),
        lock=_duration("--wait", getattr(arguments, "wait", None)) or 0.0,
    )


def connect_timeout(arguments: argparse.Namespace, said: RolloutConfig) -> float:
    """Returns the seconds in which a connection must open: `--connect-timeout`, else deploy.yaml's (`said`)."""
    seconds = _limited("--connect-timeout", _duration("--connect-timeout", arguments.connect_timeout), said)
    return float(seconds)


def _limited(option: str, value: Any, said: RolloutConfig) -> Any:
    """Returns the value of `option`, or that of deploy.yaml (`said`) for None.

    Raises:
        UsageError: deploy.yaml does not allow this value.
    """
    key = option[2:].replace("-", "_")
    if value is None:
        return getattr(said, key)
    try:
        return getattr(RolloutConfig.model_validate({key: value}), key)
    except ValueError:  # of pydantic
        wanted, usual = messages.expected(RolloutConfig, (key,)), RolloutConfig.model_fields[key].default
        raise UsageError(f"{option} {value:.15g}: expected {wanted}", hint=f"{option} {usual:g}") from None


def _duration(option: str, text: str | None) -> float | None:
    """Parses the value of `option`, a duration such as `60s` or `5m`; returns seconds, or None for None.

    Raises:
        UsageError: `text` is not a duration.
    """
    if text is None:
        return None
    try:
        return float(parse_duration(f"{text}s" if text.replace(".", "", 1).isdigit() else text))
    except ValueError as error:
        raise UsageError(f"{option}: {error}", hint=f"{option} 60s") from None


def open_fan(arguments: argparse.Namespace, config: Config | None) -> AbstractContextManager[Fan]:
    """Returns a context manager that yields the executor of the devices' jobs."""
    return fan(concurrency_of(arguments, config), arguments.dask)


def concurrency_of(arguments: argparse.Namespace, config: Config | None) -> int:
    """Returns how many devices are worked on at a time: `--concurrency`, else deploy.yaml's number, else the default.

    Raises:
        UsageError: the number is not one that deploy.yaml may have.
    """
    return int(_limited("--concurrency", arguments.concurrency, config.rollout if config else RolloutConfig()))


def holder() -> str:
    """Returns the unique name of this run in a device's lock and history: user, host and a random token."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return constants.one_line(f"{user}@{socket.gethostname()}")[:_MAX_NAME] + f" {secrets.token_hex(4)}"


def nonce() -> str:
    """Returns 32 random hexadecimal digits, which a certificate repeats: proof that its check belongs to this run."""
    return secrets.token_hex(16)

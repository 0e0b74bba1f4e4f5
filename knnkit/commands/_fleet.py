"""What every command for a fleet shares: the selected devices, who we are, and how the outcome is shown."""

from __future__ import annotations

import argparse
import getpass
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from device_agent import codec, contract, interrupts
from knnkit.commands import _agreement
from knnkit.errors import ConfigError, NothingToDo, UsageError

if TYPE_CHECKING:
    from device_agent.contract import Gates
    from knnkit.config import Build, Config
    from knnkit.fleet.fan import Fan
    from knnkit.fleet.job import Pace
    from knnkit.fleet.report import FleetReport
    from knnkit.fleet.target import Overrides, Target
    from knnkit.render.regions import Regions

_A_REPORT = "name a file that --report FILE.json wrote"


#: Largest report that is read back, in bytes: a thousand devices take about five million.
_MAX_REPORT = 1 << 28
#: Characters of who and where in a holder's name: a device cuts the whole, and the run must stay.
_MAX_NAME = 160


def load_config(arguments: argparse.Namespace) -> Config | None:
    """Returns deploy.yaml; None where none was named and none is here.

    Raises:
        ConfigError: it is wrong, or the named one is missing.
    """
    from knnkit import config, deployfile

    if arguments.config is not None:
        return deployfile.load(arguments.config)
    here = Path(config.FILE_NAME)
    return deployfile.load(here) if here.exists() else None


def select_targets(arguments: argparse.Namespace, config: Config | None) -> tuple[Target, ...]:
    """Returns the devices that the command line is for.

    Raises:
        UsageError: there are none, or the selection makes no sense.
        NothingToDo: `--retry-from` names a report in which all is well.
    """
    from knnkit.fleet import target

    targets = target.select(config, named=arguments.target, tags=arguments.on, overrides=overrides(arguments))
    if arguments.root is not None:  # on this machine a path starts where the user is, on a device at its home
        here = str(Path(arguments.root).expanduser().absolute())
        targets = tuple(replace(one, root=here) if one.address is None else one for one in targets)
    if arguments.retry_from is None:
        return _agreement.agreed(targets)
    names = read_report(arguments.retry_from).unfinished()
    if not names:
        said = f"{arguments.retry_from}: every device came out well; there is nothing to try again"
        raise NothingToDo(said, reason="nothing-to-do", hint="leave out --retry-from, to ask them all")
    return _agreement.agreed(target.only(targets, names, str(arguments.retry_from)))


def overrides(arguments: argparse.Namespace) -> Overrides:
    """Returns what the command line says for every device.

    Raises:
        UsageError: `--jump` names no host.
    """
    from knnkit.fleet.target import Overrides

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


def read_report(path: Path) -> FleetReport:
    """Reads a report that `--report FILE.json` or `--json` wrote.

    Raises:
        UsageError: it is missing or is no report.
    """
    from knnkit.fleet.report import FleetReport

    try:
        with path.open("rb") as file:
            return codec.loads(FleetReport, file.read(_MAX_REPORT + 1), limit=_MAX_REPORT)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint=_A_REPORT) from None
    except codec.MalformedDocument as error:
        raise UsageError(f"{path} is no report of knnkit: {error}", hint=_A_REPORT) from None


def trusted_keys(arguments: argparse.Namespace, config: Config | None) -> dict[str, bytes]:
    """Returns fingerprint -> PEM of the keys that bare devices shall trust: `--key`, else those of deploy.yaml.

    Raises:
        SigningKeyError: one of the files is missing or holds no public key.
    """
    from knnkit.release import keys

    return keys.load_public_keys(arguments.key or own_public_keys(config))


def own_public_keys(config: Config | None) -> list[Path]:
    """Returns the files of the public keys that deploy.yaml trusts; left out there, the one beside the signing key."""
    from knnkit.release import keys

    if config is None:
        return []
    own = config.signing.key.with_suffix(keys.PUBLIC_SUFFIX)
    return list(config.signing.trusted) or ([own] if own.exists() else [])


def pace_of(arguments: argparse.Namespace, config: Config | None) -> Pace:
    """Returns the deadlines: the command line's, then deploy.yaml's, then the defaults."""
    from knnkit.config import RolloutConfig
    from knnkit.fleet.connect import Dialling
    from knnkit.fleet.job import Pace

    said = config.rollout if config else RolloutConfig()
    retries = said.connect_retries if arguments.connect_retries is None else arguments.connect_retries
    if retries < 0:
        raise UsageError(f"--connect-retries {retries}: it counts from 0", hint="--connect-retries 2")
    return Pace(
        dialling=Dialling(duration(arguments.connect_timeout, said.connect_timeout, "--connect-timeout"), retries),
        command=duration(arguments.command_timeout, said.command_timeout, "--command-timeout"),
        confirm=duration(getattr(arguments, "confirm_within", None), said.confirm_within, "--confirm-within"),
        lock=duration(getattr(arguments, "wait", None), 0.0, "--wait"),
    )


def duration(text: str | None, default: float, option: str) -> float:
    """Returns seconds for `60s` or `5m`.

    Raises:
        UsageError: it is no duration.
    """
    from knnkit.config import parse_duration

    if text is None:
        return default
    try:
        return float(parse_duration(f"{text}s" if text.replace(".", "", 1).isdigit() else text))
    except ValueError as error:
        raise UsageError(f"{option}: {error}", hint=f"{option} 60s") from None


@contextmanager
def open_fan(arguments: argparse.Namespace, config: Config | None) -> Iterator[Fan]:
    """Gives what runs the devices' jobs."""
    from knnkit.config import RolloutConfig
    from knnkit.fleet.fan import fan

    said = config.rollout if config else RolloutConfig()
    concurrency = said.concurrency if arguments.concurrency is None else arguments.concurrency
    if concurrency < 1:
        raise UsageError(f"--concurrency is at least 1, found {concurrency}", hint="--concurrency 16")
    with fan(concurrency, arguments.dask) as made:
        yield made


def holder() -> str:
    """Returns how a device's lock and history name this run: who, where, and which run of theirs.

    By this name a device tells what this run began from what another did, so that no run has that of another.
    """
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return contract.one_line(f"{user}@{socket.gethostname()}")[:_MAX_NAME] + f" {secrets.token_hex(4)}"


def nonce() -> str:
    """Returns a fresh nonce: every certificate of this run must carry it."""
    return secrets.token_hex(16)


def finish(
    arguments: argparse.Namespace,
    report: FleetReport,
    gates: Gates | None = None,
    *,
    shown: bool = False,
    regions: tuple[Regions, str] | None = None,
) -> int:
    """Writes the reports that were asked for, prints the result unless it is `shown`, and returns the exit code."""
    from knnkit.render.fleet import print_report

    interrupts.deafen()  # what was done is told whole
    for path in arguments.report:
        write_report(path, report, gates, regions)
    if arguments.json:
        print(codec.dumps(report))
    elif not shown:
        print_report(report, sys.stdout)
    else:
        _say_what_to_do(report)
    return report.exit_code


def _say_what_to_do(report: FleetReport) -> None:
    from knnkit.render.fleet import tone, verdict
    from knnkit.render.terminal import print_line

    for device in report.devices:
        if device.hint and not device.good:
            print_line(f"{device.name}: try: {device.hint}", stream=sys.stderr)
    print_line(verdict(report), tone(report), stream=sys.stderr)


def write_report(
    path: Path, report: FleetReport, gates: Gates | None = None, regions: tuple[Regions, str] | None = None
) -> None:
    """Writes one report file, JSON or HTML by its ending; `regions` with the name of the device that answered them.

    Raises:
        UsageError: the ending is neither, or it cannot be written.
    """
    try:
        if path.suffix == ".json":
            path.write_bytes(codec.dump_file(report))
        elif path.suffix in (".html", ".htm"):
            from knnkit.render.fleet import page_of
            from knnkit.render.html import write_report as write_html

            surveyed, by = regions or (None, "")
            write_html(path, page_of(report, gates=gates, regions=surveyed, regions_from=by))
        else:
            raise _no_report(path)
    except OSError as error:
        raise UsageError(f"--report {path}: {error.strerror}") from None


def check_report_paths(arguments: argparse.Namespace) -> None:
    """Refuses a report that could not be written, before anything is begun.

    Raises:
        UsageError: as `write_report` would.
    """
    for path in arguments.report:
        if path.suffix not in (".json", ".html", ".htm"):
            raise _no_report(path)
        if not path.absolute().parent.is_dir():
            parent = path.absolute().parent
            raise UsageError(f"--report {path}: there is no directory {parent}", hint=f"mkdir -p {parent}")


def _no_report(path: Path) -> UsageError:
    return UsageError(
        f"--report {path}: the file ends in .json or .html", hint=f"--report {path.name or 'report'}.html"
    )


def require_config(config: Config | None, what: str) -> Config:
    """Returns the configuration.

    Raises:
        ConfigError: there is none.
    """
    if config is None:
        raise ConfigError(f"{what}: there is no deploy.yaml here", hint="knnkit init, or name one with -c")
    return config


def require_builds(config: Config | None, what: str, file: Path | None, hint: str = "") -> tuple[Build, ...]:
    """Returns what the configuration in `file` builds, deploy.yaml if it is None; `hint` is what else could be done.

    Raises:
        ConfigError: there is no configuration, or it has no model.
    """
    builds = require_config(config, what).builds()
    if not builds:
        said = f"{what}: {file or 'deploy.yaml'} has no `model`"
        raise ConfigError(said, hint=f"add one, as in a file that knnkit init writes{hint}")
    return builds

"""The commands that bring a release: verify, stage, activate, install and confirm."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from device_agent import contract
from device_agent.commands.shared import (
    add_class,
    add_holder,
    add_runtime,
    command,
    describe,
    describe_check,
    filled,
    holder_of,
    show,
    store_of,
    with_warnings,
)
from device_agent.errors import AgentError


def _configure_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "release", type=filled, metavar="DIR|DIGEST", help="a release directory, or the digest of a staged release"
    )
    add_class(parser)


def _run_verify(arguments: argparse.Namespace) -> int:
    from device_agent import staging

    store = store_of(arguments)
    directory = Path(arguments.release)
    if "/" in arguments.release and not directory.is_dir():
        raise AgentError(f"{directory} is no release directory", hint="name the directory that knnkit build made")
    if not directory.is_dir():
        directory = store.release_path(store.find(arguments.release))
    found = staging.verify(store, directory, arguments.device_class)
    return show(
        arguments, found, f"{describe(found.release)}: signed by {found.signed_by}{with_warnings(found.warnings)}"
    )


def _configure_stage(parser: argparse.ArgumentParser) -> None:
    _add_release(parser)
    add_class(parser)
    add_holder(parser)


def _add_release(parser: argparse.ArgumentParser) -> None:
    help = "an upload under ROOT/incoming, or any release directory"
    parser.add_argument("release", type=filled, metavar="DIR", help=help)


def _run_stage(arguments: argparse.Namespace) -> int:
    from device_agent import staging

    store = store_of(arguments)
    holder, directory = holder_of(arguments), Path(arguments.release)
    with staging.dropping_needless(store, directory), store.changing(holder, "stage"):
        found = staging.stage(store, directory, holder, arguments.device_class)
    return show(arguments, found, _describe_staged(found))


def _describe_staged(found: contract.Staged) -> str:
    state = "was staged before" if found.already else "staged"
    return f"{describe(found.release)}: {state}{with_warnings(found.warnings)}"


def _configure_activate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("digest", type=filled, metavar="DIGEST", help="of a staged release, or its first digits")
    _add_trial(parser)


def _add_trial(parser: argparse.ArgumentParser) -> None:
    """Adds what a golden check and the wait for a confirmation take."""
    parser.add_argument(
        "--nonce", metavar="TEXT", default="", help="goes into the certificate, to show that it is fresh"
    )
    parser.add_argument(
        "--deadline",
        type=float,
        default=contract.DEFAULT_CONFIRM_SECONDS,
        metavar="SECONDS",
        help="how long to wait for the confirmation (default: %(default)g)",
    )
    add_class(parser)
    add_holder(parser)
    add_runtime(parser, threads=False)


def _trial(arguments: argparse.Namespace, holder: str) -> dict[str, Any]:
    return {
        "nonce": arguments.nonce,
        "holder": holder,
        "seconds": arguments.deadline,
        "device_class": arguments.device_class,
        "runtime": arguments.runtime,
    }


def _run_activate(arguments: argparse.Namespace) -> int:
    from device_agent import activation

    store = store_of(arguments)
    holder = holder_of(arguments)
    digest = store.find(arguments.digest)
    with store.changing(holder, "activate"):
        found = activation.activate(store, digest, **_trial(arguments, holder))
    return show(arguments, found, _describe_activated(found))


def _describe_activated(found: contract.Activated) -> str:
    text = f"{describe(found.release)}: {describe_check(found.certificate)}; "
    if found.already:
        return text + "it was committed before"
    return text + f"it answers, and reverts in {found.seconds_left:.0f} s unless it is confirmed"


def _configure_install(parser: argparse.ArgumentParser) -> None:
    _add_release(parser)
    _add_trial(parser)


def _run_install(arguments: argparse.Namespace) -> int:
    from device_agent import installation, staging

    store = store_of(arguments)
    holder, directory = holder_of(arguments), Path(arguments.release)
    with staging.dropping_needless(store, directory), store.changing(holder, "install"):
        found = installation.install(store, directory, **_trial(arguments, holder))
    staged = _describe_staged(found.staged) + "\n" if found.staged else ""
    return show(arguments, found, staged + _describe_activated(found.activated))


def _configure_confirm(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "digest", type=filled, metavar="DIGEST", help="of the release that was activated, or its first digits"
    )
    add_holder(parser)


def _run_confirm(arguments: argparse.Namespace) -> int:
    from device_agent import confirmation

    store = store_of(arguments)
    digest = arguments.digest if contract.is_digest(arguments.digest) else store.find(arguments.digest)
    with store.changing(holder_of(arguments), "confirm"):
        found = confirmation.confirm(store, digest)
    return show(
        arguments, found, f"{describe(found.release)}: {'was committed before' if found.already else 'committed'}"
    )


VERIFY = command("check a release's signature and contents", _configure_verify, _run_verify)
STAGE = command("verify an uploaded release and keep it", _configure_stage, _run_stage)
ACTIVATE = command(
    "try a staged release, and wait for its confirmation",
    _configure_activate,
    _run_activate,
    "The release before it answers until the golden check has passed, and again after the deadline.",
)
INSTALL = command(
    "stage an uploaded release and try it, in one process",
    _configure_install,
    _run_install,
    "Does what stage and then activate do. What was staged stays, also where the golden check fails.",
)
CONFIRM = command("commit the release that was activated", _configure_confirm, _run_confirm)

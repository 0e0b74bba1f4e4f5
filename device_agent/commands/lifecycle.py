"""Commands that change the releases of the device."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from device_agent.commands.options import (
    add_class,
    add_holder,
    add_runtime,
    command,
    describe,
    describe_check,
    holder_of,
    read_file,
    show,
    store_of,
    with_warnings,
)
from device_agent.shared.console.argument_parser import count
from device_agent.shared.protocol import constants, documents
from device_agent.shared.protocol.errors import AgentError

if TYPE_CHECKING:
    from device_agent.lifecycle.activate import Trial
    from device_agent.shared.protocol import reports


def _configure_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("release", metavar="DIR|DIGEST", help="a release directory, or the digest of a staged release")
    add_class(parser)


def _run_verify(arguments: argparse.Namespace) -> int:
    from device_agent.lifecycle import stage

    store = store_of(arguments)
    directory = Path(arguments.release)
    if not directory.is_dir() and set(arguments.release) - set("0123456789abcdef"):
        raise AgentError(f"{directory} is not a release directory", hint="name the directory that knnkit build made")
    if not directory.is_dir():
        directory = store.release_path(store.find(arguments.release))
    found = stage.verify(store, directory, arguments.device_class)
    return show(
        arguments, found, f"{describe(found.release)}: signed by {found.signed_by}{with_warnings(found.warnings)}"
    )


def _configure_stage(parser: argparse.ArgumentParser) -> None:
    _add_release(parser, ", or with --signature the digest of a staged release")
    _add_signature(parser, "only replace the signature of that release by this signature")
    add_class(parser)
    add_holder(parser)


def _add_release(parser: argparse.ArgumentParser, more: str = "") -> None:
    help = f"an upload under ROOT/incoming, or any release directory{more}"
    parser.add_argument("release", metavar="DIR", help=help)


def _add_signature(parser: argparse.ArgumentParser, what: str) -> None:
    help = f"{what} (a `{constants.SIGNATURE_FILE}`), if a trusted key made it; - reads it from standard input"
    parser.add_argument("--signature", metavar="FILE", help=help)


def _signature_of(arguments: argparse.Namespace) -> bytes | None:
    return read_file(arguments.signature, constants.MAX_SIGNATURE) if arguments.signature else None


def _run_stage(arguments: argparse.Namespace) -> int:
    from device_agent.lifecycle import stage
    from device_agent.store.trust_state import Known

    store = store_of(arguments)
    holder, directory = holder_of(arguments), Path(arguments.release)
    signature = _signature_of(arguments)
    if signature is not None:
        digest = store.find(arguments.release)
        with store.changing(holder, "stage") as current:
            found = stage.sign_again(Known(store, current), digest, signature, holder)
        outcome = "was signed by this key already" if found.already else f"is now signed by {found.signed_by}"
        return show(arguments, found, f"{describe(found.release)}: {outcome}{with_warnings(found.warnings)}")
    with stage.dropping_needless(store, directory), store.changing(holder, "stage") as current:
        found = stage.stage(Known(store, current, arguments.device_class), directory, holder)
    return show(arguments, found, _describe_staged(found))


def _describe_staged(found: documents.Staged) -> str:
    state = "was staged before" if found.already else "staged"
    return f"{describe(found.release)}: {state}{with_warnings(found.warnings)}"


def _configure_activate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("digest", metavar="DIGEST", help="digest of a staged release, or its first digits")
    _add_signature(parser, "first replace the release's signature by this signature")
    _add_trial(parser)


def _add_trial(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the golden check and of the confirmation."""
    parser.add_argument(
        "--nonce", metavar="TEXT", default="", help="text that the certificate repeats, as proof that it is new"
    )
    parser.add_argument(
        "--deadline",
        type=float,
        default=constants.DEFAULT_CONFIRM_SECONDS,
        metavar="SECONDS",
        help="how long to wait for the confirmation (default: %(default)g)",
    )
    add_class(parser)
    add_holder(parser)
    add_runtime(parser, threads=False)


def _trial(arguments: argparse.Namespace, holder: str) -> Trial:
    from device_agent.lifecycle.activate import Trial

    return Trial(arguments.nonce, holder, arguments.deadline, arguments.runtime)


def _run_activate(arguments: argparse.Namespace) -> int:
    from device_agent.lifecycle import activate
    from device_agent.store.trust_state import Known

    store = store_of(arguments)
    holder = holder_of(arguments)
    signature = _signature_of(arguments)
    digest = store.find(arguments.digest)
    with store.changing(holder, "activate") as current:
        known = Known(store, current, arguments.device_class)
        if signature is not None:
            from device_agent.lifecycle import stage

            stage.sign_again(known, digest, signature, holder)
        found = activate.activate(known, digest, _trial(arguments, holder))
    return show(arguments, found, _describe_activated(found))


def _describe_activated(found: reports.Activated) -> str:
    text = f"{describe(found.release)}: {describe_check(found.certificate)}; "
    if found.already:
        return text + "the release was committed before"
    return text + f"the release answers, and the device reverts in {found.seconds_left:.0f} s unless you confirm"


def _configure_install(parser: argparse.ArgumentParser) -> None:
    _add_release(parser)
    _add_trial(parser)


def _run_install(arguments: argparse.Namespace) -> int:
    from device_agent.lifecycle import activate, stage
    from device_agent.store.trust_state import Known

    store = store_of(arguments)
    holder, directory = holder_of(arguments), Path(arguments.release)
    with stage.dropping_needless(store, directory), store.changing(holder, "install") as current:
        found = activate.install(Known(store, current, arguments.device_class), directory, _trial(arguments, holder))
    staged = _describe_staged(found.staged) + "\n" if found.staged else ""
    return show(arguments, found, staged + _describe_activated(found.activated))


def _configure_confirm(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "digest", metavar="DIGEST", help="digest of the release that was activated, or its first digits"
    )
    add_holder(parser)


def _run_confirm(arguments: argparse.Namespace) -> int:
    from device_agent.lifecycle import confirm

    store = store_of(arguments)
    digest = arguments.digest if constants.is_digest(arguments.digest) else store.find(arguments.digest)
    with store.changing(holder_of(arguments), "confirm"):
        found = confirm.confirm(store, digest)
    return show(
        arguments, found, f"{describe(found.release)}: {'was committed before' if found.already else 'committed'}"
    )


VERIFY = command("check a release's signature and contents", _configure_verify, _run_verify)
STAGE = command("verify an uploaded release and store it", _configure_stage, _run_stage)
ACTIVATE = command(
    "try a staged release until it is confirmed",
    _configure_activate,
    _run_activate,
    "The previous release answers until the golden check has passed. It answers again if nobody confirms in time.",
)
INSTALL = command(
    "stage an uploaded release and try it, in one process",
    _configure_install,
    _run_install,
    "The same as stage, then activate. If the golden check fails, the release stays staged.",
)
CONFIRM = command("commit the release that was activated", _configure_confirm, _run_confirm)


def _configure_rollback(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--leave",
        metavar="DIGEST",
        help="digest of the release to go back from, or its first digits; does nothing if another release answers",
    )
    parser.add_argument(
        "--order",
        metavar="FILE",
        help="a signed order: to go back to any release (`knnkit rollback --to RELEASE`), or to accept older releases "
        "again (`--reset-floor`); - reads it from standard input",
    )
    parser.add_argument(
        "--own",
        action="store_true",
        help="revert the pending activation only if --holder began it, and report how the last one by --holder ended",
    )
    parser.add_argument(
        "--allow-revoked", action="store_true", help="also go back to a release whose signing key was revoked"
    )
    add_holder(parser)
    add_runtime(parser, threads=False)


def _run_rollback(arguments: argparse.Namespace) -> int:
    if arguments.own:
        return _run_take_back(arguments)
    from device_agent.lifecycle import rollback

    store = store_of(arguments)
    holder = holder_of(arguments)
    order = read_file(arguments.order, constants.MAX_ORDER) if arguments.order else None
    leave = store.find(arguments.leave) if arguments.leave else None
    with store.changing(holder, "rollback"):
        if order is None:
            found = rollback.roll_back(store, holder, arguments.runtime, leave, allow_revoked=arguments.allow_revoked)
        else:
            found = rollback.obey(store, order, holder, arguments.runtime, allow_revoked=arguments.allow_revoked)
    text = f"{describe(found.release)}: {'is committed' if order else 'answers again'}{with_warnings(found.warnings)}"
    if found.already and order:
        text = f"{describe(found.release)}: is committed; nothing was done"
    elif found.already:
        text = (
            f"{describe(found.release)}: was restored by the last rollback; nothing was done\n"
            f"  try: --leave {found.release.digest[:12]} to go back from this release, too"
        )
    return show(arguments, found, text)


def _run_take_back(arguments: argparse.Namespace) -> int:
    from device_agent.lifecycle import rollback_own

    if arguments.order or arguments.leave:
        raise AgentError("--own cannot be combined with --order or --leave", hint="leave out --order and --leave")
    store = store_of(arguments)
    holder = holder_of(arguments)
    with store.changing(holder, "rollback"):
        found = rollback_own.take_back(store, holder)
    return show(arguments, found, rollback_own.render(found, holder))


def _configure_prune(parser: argparse.ArgumentParser) -> None:
    text = "number of releases to keep, including the current and the previous one (default: %(default)s)"
    parser.add_argument("--keep", type=count, default=constants.KEEP_RELEASES, metavar="N", help=text)
    add_holder(parser)


def _run_prune(arguments: argparse.Namespace) -> int:
    from device_agent.lifecycle import stage

    store = store_of(arguments)
    holder = holder_of(arguments)
    with store.changing(holder, "prune") as current:
        removed = stage.prune(store, current, number=arguments.keep)
    return show(arguments, documents.Pruned(tuple(removed)), f"{constants.counted(len(removed), 'release')} removed")


ROLLBACK = command(
    "go back to the previous release",
    _configure_rollback,
    _run_rollback,
    "Reverts a pending activation; without one, the previous release is verified, checked and committed. "
    "After a rollback or an automatic return, the command does nothing until another release is committed.",
)
PRUNE = command("remove old releases", _configure_prune, _run_prune)

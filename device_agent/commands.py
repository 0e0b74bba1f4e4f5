"""The agent's commands: what each takes, and which room does it. Parsing and printing only.

A command's module is imported when it runs.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agent import codec, contract
from device_agent.errors import AgentError

if TYPE_CHECKING:
    from device_agent.store import Store


@dataclass(frozen=True)
class Command:
    """A command: one line of help, its options, and what runs it."""

    help: str
    description: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def store_of(arguments: argparse.Namespace) -> Store:
    """Returns the store that the command line names."""
    from device_agent.store import Store

    text = getattr(arguments, "root", None) or os.environ.get("KNNKIT_ROOT") or contract.DEFAULT_ROOT
    try:
        return Store(Path(text).expanduser().absolute())
    except RuntimeError as error:
        raise AgentError(f"--root {text}: {error}") from None


def show(arguments: argparse.Namespace, document: Any, text: str) -> int:
    """Prints a result: one JSON document, or `text`."""
    print(codec.dumps(document) if arguments.json else text)
    return contract.EXIT_OK


# --- classify -----------------------------------------------------------------------------------------------------
def _configure_classify(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--input", metavar="FILE", help="rows to classify (default: standard input)")
    add("--output", metavar="FILE", help="where the answers go (default: standard output)")
    add(
        "--format",
        choices=("auto", "csv", "jsonl", "npy"),
        default="auto",
        help="of the input (default: by the file's name, else by its first byte)",
    )
    add("--output-format", choices=("csv", "jsonl", "npy"), help="of the answers (default: as the input)")
    add("--stream", action="store_true", help="answer each line at once, until the input ends; follow new releases")
    add("--proba", action="store_true", help="add the probability of each class")
    add("--neighbors", action="store_true", help="add the nearest training rows, their distances and classes")
    add("--digest", action="store_true", help="add the digest of the release that answered")
    add("--ignore-extra", action="store_true", help="leave out columns that the model does not know")
    _add_runtime(parser)


def _run_classify(arguments: argparse.Namespace) -> int:
    from device_agent.answers import Columns
    from device_agent.classify import Request, classify
    from device_agent.sinks import Closed

    columns = Columns(arguments.proba, arguments.neighbors, arguments.digest)
    request = Request(
        arguments.input,
        arguments.output,
        arguments.format,
        arguments.output_format or ("jsonl" if arguments.json else None),
        columns,
        ignore_extra=arguments.ignore_extra,
        runtime=arguments.runtime,
        threads=arguments.threads,
    )
    try:
        if arguments.stream:
            from device_agent.stream import stream

            stream(store_of(arguments), request)
        else:
            classify(store_of(arguments), request)
    except Closed:
        raise BrokenPipeError from None
    return contract.EXIT_OK


# --- releases -----------------------------------------------------------------------------------------------------
def _configure_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("release", metavar="DIR|DIGEST", help="a release directory, or the digest of a staged release")
    _add_class(parser)


def _run_verify(arguments: argparse.Namespace) -> int:
    from device_agent import staging

    store = store_of(arguments)
    directory = Path(arguments.release)
    if not directory.is_dir():
        directory = store.release_path(store.find(arguments.release))
    found = staging.verify(store, directory, arguments.device_class)
    return show(arguments, found, f"{_name(found.release)}: signed by {found.signed_by}{_warnings(found.warnings)}")


def _configure_stage(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("release", metavar="DIR", help="an upload under ROOT/incoming, or any release directory")
    _add_class(parser)
    _add_holder(parser)


def _run_stage(arguments: argparse.Namespace) -> int:
    from device_agent import staging

    store = store_of(arguments)
    holder = _holder(arguments)
    with store.changing(holder, "stage"):
        found = staging.stage(store, Path(arguments.release), holder, arguments.device_class)
    state = "was staged before" if found.already else "staged"
    return show(arguments, found, f"{_name(found.release)}: {state}{_warnings(found.warnings)}")


def _configure_activate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("digest", metavar="DIGEST", help="of a staged release, or its first digits")
    parser.add_argument("--nonce", default="", help="goes into the certificate, to show that it is fresh")
    parser.add_argument(
        "--deadline",
        type=float,
        default=contract.DEFAULT_CONFIRM_SECONDS,
        metavar="SECONDS",
        help="how long to wait for the confirmation (default: %(default)g)",
    )
    _add_class(parser)
    _add_holder(parser)
    _add_runtime(parser, threads=False)


def _run_activate(arguments: argparse.Namespace) -> int:
    from device_agent import activation

    store = store_of(arguments)
    holder = _holder(arguments)
    digest = store.find(arguments.digest)
    with store.changing(holder, "activate"):
        found = activation.activate(
            store,
            digest,
            nonce=arguments.nonce,
            holder=holder,
            seconds=arguments.deadline,
            device_class=arguments.device_class,
            runtime=arguments.runtime,
        )
    text = f"{_name(found.release)}: {_checked(found.certificate)}; "
    if found.already:
        text += "it was committed before"
    else:
        text += f"it answers, and reverts in {found.seconds_left:.0f} s unless it is confirmed"
    return show(arguments, found, text)


def _configure_confirm(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("digest", metavar="DIGEST", help="of the release that was activated, or its first digits")
    _add_holder(parser)


def _run_confirm(arguments: argparse.Namespace) -> int:
    from device_agent import activation

    store = store_of(arguments)
    digest = arguments.digest if contract.is_digest(arguments.digest) else store.find(arguments.digest)
    with store.changing(_holder(arguments), "confirm"):
        found = activation.confirm(store, digest)
    return show(arguments, found, f"{_name(found.release)}: {'was committed before' if found.already else 'committed'}")


def _configure_rollback(parser: argparse.ArgumentParser) -> None:
    _add_holder(parser)
    _add_runtime(parser, threads=False)


def _run_rollback(arguments: argparse.Namespace) -> int:
    from device_agent import activation

    store = store_of(arguments)
    holder = _holder(arguments)
    with store.changing(holder, "rollback"):
        found = activation.roll_back(store, holder, arguments.runtime)
    return show(arguments, found, f"{_name(found.release)}: {'answered before' if found.already else 'answers again'}")


# --- reports ------------------------------------------------------------------------------------------------------
def _configure_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nonce", default="", help="goes into the certificate, to show that it is fresh")
    _add_runtime(parser, threads=False)


def _run_check(arguments: argparse.Namespace) -> int:
    from device_agent import activation
    from device_agent.loading import answering

    store = store_of(arguments)
    store.settle()
    certificate = activation.recheck(store, answering(store).release, arguments.nonce, arguments.runtime)
    return show(arguments, certificate, _checked(certificate))


def _configure_status(parser: argparse.ArgumentParser) -> None:
    """It takes nothing."""


def _run_status(arguments: argparse.Namespace) -> int:
    from device_agent import status

    found = status.status(store_of(arguments))
    return show(arguments, found, status.render(found))


# --- shared -------------------------------------------------------------------------------------------------------
def _add_runtime(parser: argparse.ArgumentParser, *, threads: bool = True) -> None:
    parser.add_argument(
        "--runtime",
        choices=("auto", "tflite_runtime", "ai_edge_litert"),
        default="auto",
        help="which TFLite runtime runs the model (default: the first that is installed)",
    )
    if threads:
        parser.add_argument("--threads", type=int, default=1, metavar="N", help="of the runtime (default: %(default)s)")


def _add_class(parser: argparse.ArgumentParser) -> None:
    help = "this device's class (default: as ROOT/device-class says, else any)"
    parser.add_argument("--device-class", metavar="NAME", help=help)


def _add_holder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--holder", metavar="TEXT", help="who is doing this, for the lock and the history")


def _holder(arguments: argparse.Namespace) -> str:
    import getpass

    text: str | None = arguments.holder
    if text is None:
        try:
            text = getpass.getuser()
        except (KeyError, OSError):
            text = str(os.getuid())
    return "".join(character if character.isprintable() else "?" for character in text)[:200]


def _name(ref: contract.ReleaseRef) -> str:
    return f"{ref.name} {ref.version} ({ref.digest[:12]})"


def _checked(certificate: contract.Certificate) -> str:
    total = certificate.identical + certificate.equivalent + certificate.different
    text = f"{certificate.identical} of {total} golden rows identical, {certificate.equivalent} equivalent"
    if certificate.accuracy is not None:
        text += f", accuracy {certificate.accuracy:.4f} on {certificate.accuracy_rows} rows"
    if certificate.latency:
        text += f", {certificate.latency.p50_ms:.3f} ms a row"
    return text


def _warnings(warnings: tuple[str, ...]) -> str:
    return "".join(f"\n  warning: {text}" for text in warnings)


def _command(help: str, configure: Any, run: Any, more: str = "") -> Command:
    return Command(help, f"{help[0].upper()}{help[1:]}. {more}".strip(), configure, run)


COMMANDS: dict[str, Command] = {
    "classify": _command("answer rows: CSV, JSON lines or NPY", _configure_classify, _run_classify),
    "check": _command("prove that the model answers as the host does", _configure_check, _run_check),
    "status": _command("say what is on this device", _configure_status, _run_status),
    "verify": _command("check a release's signature and contents", _configure_verify, _run_verify),
    "stage": _command("verify an uploaded release and keep it", _configure_stage, _run_stage),
    "activate": _command("try a staged release, and wait for its confirmation", _configure_activate, _run_activate),
    "confirm": _command("commit the release that was activated", _configure_confirm, _run_confirm),
    "rollback": _command("go back to the release before", _configure_rollback, _run_rollback),
}

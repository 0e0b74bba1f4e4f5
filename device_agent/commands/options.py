"""Options and printing that the agent's commands share."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agent.shared.console import streams
from device_agent.shared.console.argument_parser import count
from device_agent.shared.console.root_hints import root_folder
from device_agent.shared.os_errors import explain
from device_agent.shared.protocol import constants, documents, json_codec
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.record import record

if TYPE_CHECKING:
    from device_agent.shared.protocol import reports
    from device_agent.store.store import Store


#: Most threads of a runtime: it starts all of them at once, and no board has as many cores.
MAX_THREADS = 64


@record
class Command:
    """A command: its line in the list of commands, its text for `--help`, functions that add its options and run it."""

    help: str
    description: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def store_of(arguments: argparse.Namespace) -> Store:
    """Returns the store in `--root`, else $KNNKIT_ROOT, else the root whose agent this Python has, else ~/.knnkit."""
    from device_agent.store.store import Store

    return Store(root_folder(getattr(arguments, "root", "")))


def show(arguments: argparse.Namespace, document: Any, text: str) -> int:
    """Prints a result, with `--json` as one JSON `document`, else as `text`; returns 0."""
    print(json_codec.dumps(document) if arguments.json else text)
    return constants.EXIT_OK


def add_runtime(parser: argparse.ArgumentParser, *, threads: bool = True) -> None:
    """Adds `--runtime`, and with `threads` also `--search` and `--threads`."""
    parser.add_argument(
        "--runtime",
        choices=(constants.ANY_RUNTIME, *constants.RUNTIMES),
        default=constants.ANY_RUNTIME,
        help="runtime that runs the model (default: the first TFLite runtime that is installed, else NumPy)",
    )
    if threads:
        help = "search method; all give the same answers (default: the fastest when the release was activated)"
        parser.add_argument("--search", choices=constants.WAYS, help=help)
        help = "threads of the runtime (default: %(default)s)"
        parser.add_argument("--threads", type=number_of_threads, default=1, metavar="N", help=help)


def number_of_threads(text: str) -> int:
    """Returns the number in `text`, from 1 to `MAX_THREADS`; raises ArgumentTypeError for other text."""
    return count(text, MAX_THREADS)


def add_class(parser: argparse.ArgumentParser) -> None:
    """Adds `--device-class`, the class to assume for this device: a release may be for one class of devices only."""
    help = "this device's class, which a release may require (default: from ROOT/device-class, else any)"
    parser.add_argument("--device-class", metavar="NAME", help=help)


def add_holder(parser: argparse.ArgumentParser) -> None:
    """Adds `--holder`, the name of the person or program that runs the command."""
    parser.add_argument(
        "--holder", metavar="TEXT", help="your name, for the lock and the history (default: the user's name)"
    )


def holder_of(arguments: argparse.Namespace) -> str:
    """Returns the name of the person or program that runs this command: `--holder`, else the user's name."""
    import getpass

    text: str | None = arguments.holder
    if text is None:
        try:
            text = getpass.getuser()
        except (KeyError, OSError):
            text = str(os.getuid())
    return constants.one_line(text)


def read_file(path: str, limit: int) -> bytes:
    """Returns the content of a file, or of standard input for `-`.

    Raises:
        BadInput: the file cannot be read, or has more than `limit` bytes.
    """
    try:
        with contextlib.ExitStack() as stack:
            file = sys.stdin.buffer if path == "-" else stack.enter_context(Path(path).open("rb"))
            data = file.read(limit + 1)
    except OSError as error:
        hint = explain(error)[2] or streams.hint_missing(path)
        raise BadInput(f"{path}: {error.strerror}", reason="no-input", hint=hint) from None
    if len(data) > limit:
        raise BadInput(f"{path}: more than {limit:,} bytes; is it the right file?")
    return data


def describe(ref: documents.ReleaseRef) -> str:
    """Returns the release `ref` as text: `NAME VERSION (12 digits of the digest)`."""
    return f"{ref.name} {ref.version} ({ref.digest[:12]})"


def describe_check(certificate: reports.Certificate) -> str:
    """Returns a certificate on one line, such as `58 of 60 golden rows identical, 2 equivalent, 0.021 ms a row`."""
    total = certificate.identical + certificate.equivalent + certificate.different
    text = f"{certificate.identical} of {total} golden rows identical, {certificate.equivalent} equivalent"
    if certificate.accuracy is not None:
        rows = constants.counted(certificate.accuracy_rows, "row")
        text += f", accuracy {constants.percent(certificate.accuracy)} on {rows}"
    if (own := certificate.embedding) is not None:
        differ = own.labels_open + own.labels_different
        text += f", raw inputs: largest error of the stages {own.largest_error:.2g} (bound {own.bound:g})"
        text += f", {differ} of {own.rows} labels differ from the host's"
    if certificate.errors or certificate.columns:
        from device_agent.shared.golden.error_gates import described, described_columns

        text += f", {described(certificate.errors) or described_columns(certificate.columns)}"
    if certificate.latency:
        text += f", {certificate.latency.p50_ms:.3f} ms a row"
    return text


def with_warnings(warnings: tuple[str, ...]) -> str:
    """Returns warnings as text: a line break, then each warning on its own line; "" without warnings."""
    return "".join(f"\n  warning: {text}" for text in warnings)


def no_options(_: argparse.ArgumentParser) -> None:
    """Adds no options: for a command that has none."""


def command(help: str, configure: Any, run: Any, more: str = "") -> Command:
    """Returns a command: `configure` adds its options, `run` runs it; its `--help` shows `help`, then `more`."""
    return Command(help, f"{help[0].upper()}{help[1:]}. {more}".strip(), configure, run)

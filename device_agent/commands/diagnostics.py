"""Commands that report: check, status, history, bench, doctor."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator

from device_agent.commands.options import (
    add_runtime,
    command,
    describe_check,
    no_options,
    read_file,
    show,
    store_of,
    with_warnings,
)
from device_agent.shared.console.argument_parser import count
from device_agent.shared.protocol import constants, documents
from device_agent.shared.protocol.errors import DeviceUnfit, ModelUnusable
from device_agent.system import blas

_LONGEST_BENCH = 3600.0


def _configure_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--nonce", metavar="TEXT", default="", help="text that the certificate repeats, as proof that it is new"
    )
    text = "golden set to use instead of the release's own (`knnkit parity --data FILE`); - for standard input"
    parser.add_argument("--golden", metavar="FILE", help=text)
    add_runtime(parser, threads=False)


def _run_check(arguments: argparse.Namespace) -> int:
    from device_agent.lifecycle import check
    from device_agent.serving.load import answering

    store = store_of(arguments)
    store.settle()
    golden = read_file(arguments.golden, constants.MAX_GOLDEN) if arguments.golden else None
    with _named(arguments.golden):
        certificate = check.recheck(store, answering(store).release, arguments.nonce, arguments.runtime, golden)
    return show(arguments, certificate, describe_check(certificate) + with_warnings(certificate.warnings))


@contextlib.contextmanager
def _named(file: str | None) -> Iterator[None]:
    """Adds `--golden FILE` to an error about the golden set in the `with` block; `file` None: changes no error."""
    try:
        yield
    except ModelUnusable as error:
        said = str(error).removeprefix(constants.GOLDEN_FILE)
        if file is None or said == str(error):
            raise
        hint = f"--golden FILE, the {constants.GOLDEN_FILE} of a release of this model"
        raise ModelUnusable(f"--golden {constants.plain(file)}{said}", reason=error.reason, hint=hint) from None


def _configure_compare(parser: argparse.ArgumentParser) -> None:
    text = "golden set of the other release (default: -, standard input)"
    parser.add_argument("--golden", metavar="FILE", default="-", help=text)
    add_runtime(parser, threads=False)


def _run_compare(arguments: argparse.Namespace) -> int:
    from device_agent.lifecycle import check
    from device_agent.serving.load import answering

    store = store_of(arguments)
    golden = read_file(arguments.golden, constants.MAX_GOLDEN)
    with _named(arguments.golden):
        found = check.ask_running(store, answering(store).release, golden, arguments.runtime)
    return show(arguments, found, "\n".join(found.labels or ("the golden rows have other columns than the model",)))


def _run_status(arguments: argparse.Namespace) -> int:
    from device_agent.diagnostics import status

    found = status.status(store_of(arguments))
    return show(arguments, found, status.render(found))


def _configure_history(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--last", type=count, metavar="N", help="print only the last N entries")


def _run_history(arguments: argparse.Namespace) -> int:
    from device_agent.store import history

    store = store_of(arguments)
    store.settle()
    try:
        entries = history.read(store.history_file, arguments.last)
    except history.Broken as error:
        hint = "python -m device_agent prune; it renames the damaged file and begins a new history"
        raise DeviceUnfit(f"{store.history_file}: {error}", reason="history-broken", hint=hint) from None
    return show(arguments, documents.History(tuple(entries)), "\n".join(map(history.render, entries)))


def _configure_bench(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seconds",
        type=seconds,
        default=2.0,
        metavar="SECONDS",
        help="how long to measure each figure (default: %(default)g)",
    )
    add_runtime(parser)


def seconds(text: str) -> float:
    """Returns the time in seconds in `text`; raises ArgumentTypeError unless it is in (0, `_LONGEST_BENCH`]."""
    if not 0.0 < float(text) <= _LONGEST_BENCH:
        raise argparse.ArgumentTypeError(f"{text} is out of range: above 0, at most {_LONGEST_BENCH:g}")
    return float(text)


def _run_bench(arguments: argparse.Namespace) -> int:
    blas.prepare(arguments.threads)
    from device_agent.diagnostics import bench

    asked = {name: getattr(arguments, name) for name in ("seconds", "runtime", "threads", "search")}
    found = bench.bench(store_of(arguments), **asked)
    return show(arguments, found, bench.render(found))


def _run_doctor(arguments: argparse.Namespace) -> int:
    from device_agent.diagnostics import doctor

    found = doctor.diagnose(store_of(arguments))
    show(arguments, found, doctor.render(found))
    # With --json, exit code 1 would replace the document by a Problem.
    return constants.EXIT_OK if arguments.json else doctor.exit_code(found)


CHECK = command("check that the model gives the same answers as on the host", _configure_check, _run_check)
COMPARE = command("print the running release's labels for golden rows of another", _configure_compare, _run_compare)
STATUS = command("show the releases, keys and state of this device", no_options, _run_status)
HISTORY = command("show the events of this device, such as activations", _configure_history, _run_history)
BENCH = command("measure speed and memory of the model on this board", _configure_bench, _run_bench)
DOCTOR = command("find faults of this board, with the command that repairs each", no_options, _run_doctor)

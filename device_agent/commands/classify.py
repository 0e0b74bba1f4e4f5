"""The agent's `classify` command: answers rows on the device."""

from __future__ import annotations

import argparse
import sys

from device_agent.commands.options import add_runtime, command, store_of
from device_agent.shared.console import streams
from device_agent.shared.console.answer_options import add_answers
from device_agent.shared.file_hints import named_in_hints
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import BadInput
from device_agent.system import blas


def _configure_classify(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--input", metavar="FILE", help="rows, sound, picture or folder (default: -, stdin)")
    add("--output", metavar="FILE", help="file for the answers, - for standard output (default: -)")
    add_answers(parser)
    help = "copy this column of the input, a feature or not, before each answer; repeat it for more"
    add("--keep", action="append", default=[], metavar="COLUMN", help=help)
    add_runtime(parser)


def _run_classify(arguments: argparse.Namespace) -> int:
    blas.prepare(arguments.threads)
    from device_agent.serving.batch import classify
    from device_agent.serving.columns import Columns
    from device_agent.serving.outputs import Closed
    from device_agent.serving.rows import Request
    from device_agent.store.starts import counted

    if arguments.format == "frames" and not arguments.stream:
        raise BadInput("--format frames needs --stream", hint="--stream; or --input FILE, --input FOLDER")
    if arguments.input in (None, "-"):
        streams.say_if_waiting("device_agent")
    keep = tuple(dict.fromkeys(arguments.keep))
    columns = Columns(arguments.proba, arguments.neighbors, arguments.digest, keep, arguments.labels)
    request = Request(
        arguments.input,
        arguments.output,
        arguments.format,
        arguments.output_format or ("jsonl" if arguments.json else None),
        columns,
        ignore_extra=arguments.ignore_extra,
        runtime=arguments.runtime,
        search=arguments.search,
        threads=arguments.threads,
        counters=[],
    )
    store = store_of(arguments)
    try:
        with counted(store) as start, named_in_hints(arguments.input):
            if start.failed:
                from device_agent.lifecycle.fall_back import leave_failing

                if said := leave_failing(store, start):
                    print(f"device_agent: warning: {said}", file=sys.stderr, flush=True)
            if arguments.stream:
                from device_agent.serving.stream import stream

                return constants.EXIT_USAGE if stream(store, request, start) else constants.EXIT_OK
            classify(store, request, start)
    except Closed:
        raise BrokenPipeError from None
    return constants.EXIT_OK


CLASSIFY = command(
    "answer rows: CSV, JSON lines or NPY",
    _configure_classify,
    _run_classify,
    "Line N of the output answers line N of the input; the output has a header line if the input has one. A model of "
    "windows answers each complete window instead.",
)

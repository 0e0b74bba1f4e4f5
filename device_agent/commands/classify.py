"""The command `classify`."""

from __future__ import annotations

import argparse

from device_agent.commands.options import add_runtime, command, filled, store_of
from device_agent.shared.protocol import constants


def _configure_classify(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--input", type=filled, metavar="FILE", help="rows to classify, - for standard input (default: -)")
    add("--output", type=filled, metavar="FILE", help="file for the answers, - for standard output (default: -)")
    add(
        "--format",
        choices=("auto", "csv", "jsonl", "npy"),
        default="auto",
        help="format of the input (default: by the file's name, else by its first byte)",
    )
    add(
        "--output-format",
        choices=("csv", "jsonl", "npy"),
        help="format of the answers (default: that of the input; with --json, jsonl)",
    )
    add("--stream", action="store_true", help="answer each line at once, until the input ends; switch to new releases")
    add("--proba", action="store_true", help="add the probability of each class")
    add("--neighbors", action="store_true", help="add the nearest training rows, their distances and classes")
    add("--digest", action="store_true", help="add the digest of the release that answered")
    add("--ignore-extra", action="store_true", help="ignore columns that the model does not use")
    add_runtime(parser)


def _run_classify(arguments: argparse.Namespace) -> int:
    from device_agent.serving.batch import Request, classify
    from device_agent.serving.outputs import Closed
    from device_agent.serving.writers import Columns

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
            from device_agent.serving.stream import stream

            return constants.EXIT_USAGE if stream(store_of(arguments), request) else constants.EXIT_OK
        classify(store_of(arguments), request)
    except Closed:
        raise BrokenPipeError from None
    return constants.EXIT_OK


CLASSIFY = command(
    "answer rows: CSV, JSON lines or NPY",
    _configure_classify,
    _run_classify,
    "Line N of the output answers line N of the input; the output has a header line if the input has one.",
)

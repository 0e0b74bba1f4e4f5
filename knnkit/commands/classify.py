"""`knnkit classify`: classifies rows on devices.

Needs constant memory. One device answers to standard output or a file; of several devices, each answers the same rows
into its own file.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from device_agent.shared.console import streams
from device_agent.shared.embedding.decode import FILE_KEY
from device_agent.shared.embedding.files import is_among, is_raw, left_out
from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.reports import Problem
from device_agent.shared.safe_files import whole_file
from knnkit.commands import _config, _output, _query, _selection
from knnkit.config.parse import Config
from knnkit.data.raw_lines import lines_of
from knnkit.errors import DataError, UsageError, unwritten
from knnkit.fleet.device.connect import Job
from knnkit.fleet.jobs.classify import RowsJob, about, classify_rows, pipe_rows
from knnkit.fleet.targets import Target
from knnkit.render.terminal import print_line
from knnkit.transport.base import printable

#: Flags that are passed to the agent unchanged.
_FLAGS = ("stream", "proba", "neighbors", "digest", "ignore-extra")


def run(arguments: argparse.Namespace) -> int:
    """Classifies the rows; returns the exit code of the agent, or with several devices (or `--report`) of the run."""
    config = _config.load_config(arguments)
    targets = _selection.select_targets(arguments, config)
    if len(targets) > 1 or arguments.report:
        return _many(arguments, config, targets)
    return _one(arguments, config, targets[0])


def agent_command(arguments: argparse.Namespace, config: Config | None, answers: str | None) -> tuple[str, ...]:
    """Returns the agent's arguments for knnkit's options; `answers`: format of the answers (None: that of the rows)."""
    suffix = arguments.input.suffix.lstrip(".") if arguments.input is not None else ""
    suffix = "jsonl" if _is_raw(arguments) else suffix
    found = suffix if arguments.format == "auto" and suffix in ("csv", "jsonl", "npy") else arguments.format
    flags = [f"--{name}" for name in _FLAGS if getattr(arguments, name.replace("-", "_"))]
    wanted = ["--output-format", answers] if answers else []
    wanted += [f"--labels={arguments.labels:g}"] if arguments.labels is not None else []
    default = config.classify.keep if config and "npy" not in (found, answers) else ()
    if _is_raw(arguments):
        default = (FILE_KEY,) if arguments.input.is_dir() else ()
    keep = [f"--keep={column}" for column in arguments.keep or default]
    return ("classify", "--format", found, *wanted, *flags, *keep)


def _one(arguments: argparse.Namespace, config: Config | None, target: Target) -> int:
    _refuse_same(arguments.input, arguments.output)
    command = agent_command(arguments, config, arguments.output_format or ("jsonl" if arguments.json else None))
    job = Job(target, pace=_selection.pace_of(arguments, config))
    with _source(arguments) as (source, files), contextlib.suppress(_Incomplete), _sink(arguments) as sink:
        done = pipe_rows(job, command, source, sink, models=_selection.models_of(config), warn=_warn)
        if done.exit_code:
            raise _Incomplete
    said = printable(about(arguments.input, done, files).stderr.decode("utf-8", "replace")).rstrip()
    if said or done.exit_code:
        print(said or done.complaint, file=sys.stderr)
    code = done.exit_code if done.exit_code >= 0 else constants.EXIT_FAILED
    if code and arguments.json and not arguments.stream:  # a stream has an error in place of each bad line
        message, _, hint = (said or done.complaint).removeprefix("device_agent: ").partition("\n  try: ")
        print(json_codec.dumps(Problem("classify-failed", message, hint, code)))
    return code


def _warn(warnings: tuple[str, ...]) -> None:
    for text in warnings:
        print_line(f"knnkit: warning: {text}", "warn", stream=sys.stderr)


def _many(arguments: argparse.Namespace, config: Config | None, targets: tuple[Target, ...]) -> int:
    _output.check_report_paths(arguments)
    if arguments.input is None or arguments.output is None:
        why = f"{len(targets)} devices are selected" if len(targets) > 1 else "--report needs whole files"
        raise UsageError(f"{why}: name --input FILE and --output DIRECTORY", hint="--input rows.csv --output answers")
    raw = _is_raw(arguments)
    if not (raw or arguments.input.is_file()):
        raise DataError(f"{arguments.input}: there is no such file", hint=_check_path())
    arguments.output.mkdir(parents=True, exist_ok=True)
    command, pace = agent_command(arguments, config, arguments.output_format), _selection.pace_of(arguments, config)
    models = _selection.models_of(config)
    suffix = arguments.output_format or arguments.input.suffix.lstrip(".") or "csv"
    suffix = "jsonl" if raw and arguments.output_format is None else suffix
    plain = contextlib.nullcontext((arguments.input, ()))
    with _raw_lines(arguments.input) if raw else plain as (rows, files):
        jobs = []
        for target in targets:
            answers = arguments.output / f"{_file_name(target.name)}.{suffix}"
            _refuse_same(arguments.input, answers)
            jobs.append(RowsJob(target, command, str(rows), str(answers), arguments.input, files, models, pace=pace))
        return _output.finish(arguments, _query.run_jobs(arguments, config, "classify", jobs, classify_rows))


class _Incomplete(Exception):
    """Raised to discard incomplete answers, so that no file is written."""


def _refuse_same(rows: Path | None, answers: Path | None) -> None:
    if not (rows and answers):
        return
    if is_among(answers, rows) or (answers.exists() and rows.exists() and answers.samefile(rows)):
        raise UsageError(f"--output {answers} is the file with the rows", hint="name another file for the answers")


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._-@" else "_" for c in name).lstrip(".") or "_"


def _is_raw(arguments: argparse.Namespace) -> bool:
    """Whether the input is a sound or picture, or a folder of these, which are sent as JSON lines."""
    return arguments.input is not None and arguments.format == "auto" and is_raw(arguments.input)


@contextmanager
def _raw_lines(path: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Yields a temporary file with a JSON line for each sound or picture at `path`, and their names, line by line."""
    names, others = [], list[str]()
    with tempfile.NamedTemporaryFile(prefix="knnkit-", suffix=".jsonl") as file:
        for name, line in lines_of(path, others):
            names.append(name)
            file.write(line)
        if others:
            print(f"knnkit: {path}: {left_out(others)}", file=sys.stderr)
        file.flush()
        yield Path(file.name), tuple(names)


@contextmanager
def _source(arguments: argparse.Namespace) -> Iterator[tuple[BinaryIO, tuple[str, ...]]]:
    """Yields the open input, and the name of the sound or picture in each of its lines; () if it holds plain rows."""
    path: Path | None = arguments.input
    if path is None:
        streams.say_if_waiting("knnkit")
        yield sys.stdin.buffer, ()
        return
    if _is_raw(arguments):
        with _raw_lines(path) as (lines, names), lines.open("rb") as file:
            yield file, names
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", hint=_check_path()) from None
    with file:
        yield file, ()


@contextmanager
def _sink(arguments: argparse.Namespace) -> Iterator[BinaryIO]:
    """Yields the output for answers. A file appears when it is complete; with `--stream`, it grows with each answer."""
    path: Path | None = arguments.output
    if path is None:
        yield sys.stdout.buffer
        return
    try:
        with path.open("wb") if arguments.stream else whole_file(path) as file:
            yield file
    except BrokenPipeError:
        raise
    except OSError as error:  # also when it is closed
        raise unwritten(str(path), error, hint=_check_path()) from None


def _check_path() -> str:
    return f"check the path; a relative one starts at {streams.here()}"

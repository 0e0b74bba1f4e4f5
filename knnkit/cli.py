"""The command line: parses, calls one command, renders its errors; the only place that exits.

Each command is a module of `knnkit.commands` with `configure(parser)` and `run(arguments) -> int`; it is
imported when it is named, so that `knnkit --help` loads nothing heavy. Text for people goes to stderr, results to
stdout.
"""

from __future__ import annotations

import datetime  # noqa: F401  (here no signal breaks it: in the Rust of pydantic, which loads it, that is a panic)
import importlib
import sys
from collections.abc import Sequence

from device_agent.shared.console import signals, streams
from device_agent.shared.console.argument_parser import Parser
from device_agent.shared.protocol import constants, json_codec, reports
from knnkit import __version__
from knnkit.commands import COMMANDS
from knnkit.errors import Interrupted, KnnkitError, from_os_error


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code (see `constants`; 130 interrupted, 141 output closed).

    Without `argv` it is the program itself: it takes those of the process, and its signals; interrupted, it ends at
    once, whatever its threads are waiting for.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if argv is None:
            signals.listen()
        code = _answer(arguments)
        signals.deafen()
    except KeyboardInterrupt:
        code = _complain(Interrupted("interrupted", reason="interrupted"), json="--json" in arguments)
    if argv is None and code == signals.EXIT_CODE:
        signals.end(code)
    return code


def _answer(arguments: list[str]) -> int:
    streams.secure()
    try:
        return _run(arguments)
    except KnnkitError as error:
        return _complain(error, json="--json" in arguments)
    except BrokenPipeError:
        streams.silence_output()
        return 141
    except OSError as error:
        return _complain(from_os_error(error), json="--json" in arguments)


def _run(arguments: list[str]) -> int:
    with signals.told():
        code = _dispatch(arguments)
        sys.stdout.flush()
    return code


def _dispatch(arguments: list[str]) -> int:
    name = next((word for word in arguments if not word.startswith("-")), None)
    parser = Parser(prog="knnkit", description="Nearest-neighbour classifiers on a fleet of small devices, with proof.")
    parser.add_argument("--version", action="version", version=f"knnkit {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command, help_text in COMMANDS.items():
        sub = commands.add_parser(command, help=help_text, description=help_text[0].upper() + help_text[1:] + ".")
        if command == name:
            importlib.import_module(f"knnkit.commands.{command}").configure(sub)
    parsed = parser.parse_args(arguments)
    result: int = importlib.import_module(f"knnkit.commands.{parsed.command}").run(parsed)
    return result


def _complain(error: KnnkitError, *, json: bool) -> int:
    hint = streams.hint_here(error.hint) if error.exit_code == constants.EXIT_USAGE else error.hint
    print(f"knnkit: {error}", file=sys.stderr)
    if hint:
        print(f"  try: {hint}", file=sys.stderr)
    problem = reports.Problem(error.reason or "error", str(error), hint, error.exit_code)
    try:
        if json:
            print(json_codec.dumps(problem))
        sys.stdout.flush()
    except OSError:  # it is full, or closed: standard error has it
        streams.silence_output()
    return error.exit_code

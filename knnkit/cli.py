"""Command line of the host.

Builds the parser and reports errors; `program` runs a command. Each command is a module of `knnkit.commands` with
`run(arguments) -> int`, imported only to run it; its parser is in `knnkit.commands._parsers`, so that `--help` is fast.
Text for people goes to stderr, results to stdout.
"""

from __future__ import annotations

import datetime  # noqa: F401  (before pydantic: a signal while pydantic's Rust code imports it would be a panic)
import importlib
from collections.abc import Sequence

from device_agent import __version__
from device_agent.shared.console import program, signals
from device_agent.shared.console.argument_parser import Parser
from knnkit.commands import COMMANDS, _parsers
from knnkit.errors import KnnkitError, from_os_error


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command of the host; returns its exit code, that of an error, 130 (interrupted) or 141 (output closed).

    With `argv` None (the program itself), Ctrl-C ends the process at once, without waiting for its threads.
    """
    code = program.main("knnkit", argv, _run, _failed)
    if argv is None and code == signals.EXIT_CODE:
        signals.end(code)
    return code


def _run(words: list[str]) -> int:
    name = next((word for word in words if not word.startswith("-")), None)
    parser = Parser(prog="knnkit", description="Nearest-neighbour models on small devices, which prove their answers.")
    parser.add_argument("--version", action="version", version=f"knnkit {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command, help_text in COMMANDS.items():
        sub = commands.add_parser(command, help=help_text, description=help_text[0].upper() + help_text[1:] + ".")
        if command == name:
            _parsers.CONFIGURE[command](sub)
    parsed = parser.parse_args(words)
    try:
        result: int = importlib.import_module(f"knnkit.commands.{parsed.command}").run(parsed)
    except EOFError:  # Ctrl-D at a question, such as that for a passphrase
        raise KnnkitError("the input ended before an answer", hint="run the command again, and answer") from None
    return result


def _failed(error: OSError | MemoryError) -> KnnkitError:
    if isinstance(error, MemoryError):
        return KnnkitError("there is not enough memory", reason="out-of-memory")
    return from_os_error(error)

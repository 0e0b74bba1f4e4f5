"""Command line of the agent.

Builds the parser and reports errors; `shared.console.program` runs a command. Each command is imported only when it is
named, so that `classify` starts fast. Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import argparse
import errno
import functools
import os
from collections.abc import Sequence
from typing import Any

from device_agent import __version__
from device_agent.shared.console import program, streams
from device_agent.shared.console.argument_parser import Parser
from device_agent.shared.os_errors import explain
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import AgentError, DeviceUnfit

PROG = "device_agent"
#: Commands that may change which release answers.
_SWITCHES = frozenset({"activate", "install", "confirm", "rollback"})


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the agent's command in `argv` (None: in the arguments of the process); returns the exit code."""
    return program.main(PROG, argv, _run, _failed, _hint)


def _run(words: list[str]) -> int:
    from device_agent.commands import COMMANDS

    parsed = build_parser(COMMANDS, words).parse_args(words)
    code: int = COMMANDS[parsed.command].run(parsed)
    return code


def _hint(words: list[str]) -> str:
    return "python -m device_agent status, to see which release answers" if _SWITCHES.intersection(words) else ""


def _failed(error: OSError | MemoryError) -> AgentError:
    if isinstance(error, MemoryError):
        error = OSError(errno.ENOMEM, "")
    if streams.is_lost() and error.errno == errno.ENOENT:
        return AgentError(
            "the current folder was removed: a relative path names no file", reason="no-directory", hint="cd /"
        )
    reason, said, hint = explain(error)
    if error.errno == errno.ENAMETOOLONG:  # only a name that somebody typed is so long
        return AgentError(said, reason=reason, hint=hint)
    return DeviceUnfit(said, reason=reason, hint=hint or "python -m device_agent doctor")


def build_parser(commands: Any, arguments: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Returns the parser of `commands` (name -> `Command`); if `arguments` name one, only of that, which saves 4 ms."""
    from device_agent.shared.console.root_hints import typed_root

    named = {word: commands[word] for word in arguments if word in commands}
    if not named or {"-h", "--help"} & set(arguments[: arguments.index(next(iter(named)))]):
        named = commands
    root = Parser(add_help=False, formatter_class=_formatter)
    root.add_argument(
        "--root",
        metavar="DIR",
        default=argparse.SUPPRESS,
        help="folder of releases, keys and state (default: $KNNKIT_ROOT, else DIR if this Python is in DIR/venv, "
        f"else {constants.DEFAULT_ROOT})",
    )
    parser = Parser(
        prog=PROG,
        formatter_class=_formatter,
        parents=[root],
        description="Run a signed nearest-neighbour model, and prove that it gives the host's answers.",
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    # With `prog` given, argparse does not measure the terminal to find it.
    sub = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, prog=PROG)
    for name, command in named.items():
        described = {"help": command.help, "description": command.description}
        chosen = sub.add_parser(name, formatter_class=_formatter, parents=[root], **described)
        parser.root = chosen.root = typed_root(arguments)
        chosen.add_argument("--json", action="store_true", help="print one JSON document")
        command.configure(chosen)
    return parser


def _formatter(prog: str) -> argparse.HelpFormatter:
    """Returns a help formatter with the terminal's width; argparse's own would load `shutil` to find it."""
    return argparse.HelpFormatter(prog, width=_width())


@functools.cache
def _width() -> int:
    try:
        return int(os.environ.get("COLUMNS") or os.get_terminal_size().columns) - 2
    except (OSError, ValueError):
        return 78

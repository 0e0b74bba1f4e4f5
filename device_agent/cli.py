"""The agent's command line: parses, calls one command, prints its report; the only place of the agent that exits.

Each command is imported when it is named, so that `classify` starts fast. Results go to stdout, all else to stderr.
"""

from __future__ import annotations

import argparse
import errno
import functools
import os
import sys
from collections.abc import Sequence
from typing import Any

from device_agent import __version__
from device_agent.shared.console import signals, streams
from device_agent.shared.console.argument_parser import Parser
from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.errors import AgentError, DeviceUnfit, Interrupted, from_os_error

PROG = "device_agent"
#: Commands after which another release may answer.
_SWITCHES = frozenset({"activate", "install", "confirm", "rollback"})
EXIT_PIPE = 141  # nobody reads our output: what a shell gives a process that SIGPIPE ended


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code (see `constants`; 130 interrupted, 141 output closed).

    Without `argv` it is the program itself: it takes those of the process, and its signals.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if argv is None:
            signals.listen()
        code = _answer(arguments)
        signals.deafen()
        return code
    except KeyboardInterrupt:
        hint = "python -m device_agent status, to see what answers" if _SWITCHES.intersection(arguments) else ""
        return _complain(Interrupted("interrupted", hint=hint), arguments)


def _answer(arguments: list[str]) -> int:
    streams.secure()
    try:
        return _run(arguments)
    except AgentError as error:
        return _complain(error, arguments)
    except BrokenPipeError:
        streams.silence_output()
        return EXIT_PIPE
    except OSError as error:
        return _complain(_from_os_error(error), arguments)
    except MemoryError:
        return _complain(DeviceUnfit("there is not enough memory", reason="out-of-memory"), arguments)


def _run(arguments: list[str]) -> int:
    with signals.told():
        from device_agent.commands import COMMANDS

        parsed = build_parser(COMMANDS, arguments).parse_args(arguments)
        code: int = COMMANDS[parsed.command].run(parsed)
        sys.stdout.flush()
    return code


def build_parser(commands: Any, arguments: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Returns the parser of all commands, or of the one that `arguments` name: making them all takes 4 ms."""
    from device_agent.commands.options import filled

    named = {word: commands[word] for word in arguments if word in commands}
    if not named or {"-h", "--help"} & set(arguments[: arguments.index(next(iter(named)))]):
        named = commands
    root = Parser(add_help=False, formatter_class=_formatter)
    root.add_argument(
        "--root",
        type=filled,
        metavar="DIR",
        default=argparse.SUPPRESS,
        help=f"where releases, keys and state lie (default: $KNNKIT_ROOT, else {constants.DEFAULT_ROOT})",
    )
    parser = Parser(
        prog=PROG,
        formatter_class=_formatter,
        parents=[root],
        description="Run a signed nearest-neighbour model, and prove that it answers as the host does.",
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    # Told its name, argparse does not measure the terminal to find it.
    sub = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, prog=PROG)
    for name, command in named.items():
        described = {"help": command.help, "description": command.description}
        chosen = sub.add_parser(name, formatter_class=_formatter, parents=[root], **described)
        chosen.add_argument("--json", action="store_true", help="print one JSON document")
        command.configure(chosen)
    return parser


def _formatter(prog: str) -> argparse.HelpFormatter:
    """argparse makes one for each argument, and loads `shutil` to ask it for the width."""
    return argparse.HelpFormatter(prog, width=_width())


@functools.cache
def _width() -> int:
    try:
        return int(os.environ.get("COLUMNS") or os.get_terminal_size().columns) - 2
    except (OSError, ValueError):
        return 78


def _from_os_error(error: OSError) -> AgentError:
    if streams.is_lost() and error.errno == errno.ENOENT:
        return AgentError("relative paths lead nowhere", reason="no-directory")
    return from_os_error(error)


def _complain(error: AgentError, arguments: Sequence[str]) -> int:
    hint = streams.hint_here(error.hint) if error.exit_code == constants.EXIT_USAGE else error.hint
    print(f"{PROG}: {error}", file=sys.stderr)
    if hint:
        print(f"  try: {hint}", file=sys.stderr)
    certificate = getattr(error, "certificate", None)
    from device_agent.shared.protocol.reports import Problem  # `status` needs none

    problem = Problem(error.reason, str(error), hint, error.exit_code, certificate)
    try:
        if "--json" in arguments:
            print(json_codec.dumps(problem))
        sys.stdout.flush()
    except BrokenPipeError:
        streams.silence_output()
        return EXIT_PIPE
    except OSError:  # it is full, or closed: standard error has it
        streams.silence_output()
    return error.exit_code

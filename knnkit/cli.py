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

from device_agent import codec, contract, interrupts, standard
from device_agent.parsing import Parser
from knnkit import __version__
from knnkit.errors import Interrupted, KnnkitError, from_os_error

#: Command -> one line of help. The module of the same name under knnkit.commands runs it.
COMMANDS: dict[str, str] = {
    "demo": "the whole path on an embedded device: build, sign, deploy, prove, draw",
    "init": "write a commented deploy.yaml to start from",
    "keygen": "make a signing key",
    "sign": "sign a release directory",
    "build": "build a signed release from deploy.yaml",
    "inspect": "say what is in a model or a release",
    "verify": "check a release's signature and contents",
    "trust": "show and enrol a device's host key, or the signing keys it trusts",
    "provision": "put the runtime, the agent and the trusted key on a bare board",
    "deploy": "build if needed, push, activate, check and confirm a release",
    "parity": "prove on every device that it answers as the host does",
    "status": "say what runs on each device",
    "rollback": "go back to the previous release",
    "classify": "classify rows on a device",
    "bench": "measure the model on each device",
    "logs": "show the history of each device",
    "doctor": "find what is wrong on a device, and the command that mends it",
    "schema": "print the JSON Schema of deploy.yaml",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code (see `device_agent.contract`; 130 interrupted, 141 output closed).

    Without `argv` it is the program itself: it takes those of the process, and its signals; interrupted, it ends at
    once, whatever its threads are waiting for.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if argv is None:
            interrupts.listen()
        code = _answer(arguments)
        interrupts.deafen()
    except KeyboardInterrupt:
        code = _complain(Interrupted("interrupted", reason="interrupted"), json="--json" in arguments)
    if argv is None and code == interrupts.EXIT_CODE:
        interrupts.end(code)
    return code


def _answer(arguments: list[str]) -> int:
    standard.secure()
    try:
        return _run(arguments)
    except KnnkitError as error:
        return _complain(error, json="--json" in arguments)
    except BrokenPipeError:
        standard.silence_output()
        return 141
    except OSError as error:
        return _complain(from_os_error(error), json="--json" in arguments)


def _run(arguments: list[str]) -> int:
    with interrupts.told():
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
    hint = standard.hint_here(error.hint) if error.exit_code == contract.EXIT_USAGE else error.hint
    print(f"knnkit: {error}", file=sys.stderr)
    if hint:
        print(f"  try: {hint}", file=sys.stderr)
    problem = contract.Problem(error.reason or "error", str(error), hint, error.exit_code)
    try:
        if json:
            print(codec.dumps(problem))
        sys.stdout.flush()
    except OSError:  # it is full, or closed: standard error has it
        standard.silence_output()
    return error.exit_code

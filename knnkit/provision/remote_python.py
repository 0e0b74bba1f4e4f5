"""Runs the provisioning script in a board's own Python.

    python3 -I - COMMAND < script

The script is the package `device_agent.bootstrap` as one text: its loader, then one call that passes every module and
the arguments of the command to the loader. It is sent through standard input, since Dropbear limits a command line to
9,000 bytes. Errors that the script reports become errors of knnkit.
"""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from importlib import resources
from typing import Any, Protocol

from knnkit.errors import DeviceFailed, DeviceLocked, Unreachable
from knnkit.provision.requirements import Board, check_python, runtime_of
from knnkit.transport.base import Completed, Transport, printable
from knnkit.transport.local import LocalTransport

#: Time limits in seconds, for a slow memory card: to read every file of the environment, and to unpack wheels.
LOOK_SECONDS = 300.0
BUILD_SECONDS = 1200.0


class PythonFacts(Protocol):
    """The part of `knnkit.fleet.device.probe.Facts` that provisioning needs: facts about a board's own Python."""

    @property
    def python(self) -> tuple[int, int, int] | None:
        """The version of the board's Python, such as (3, 11, 2); None if the board has no Python."""

    @property
    def python_path(self) -> str | None:
        """The path of the board's Python; None if the board has no Python."""


def interpreter(transport: Transport, facts: PythonFacts) -> str:
    """Returns the path of the board's own Python; for the embedded device, of the Python that runs knnkit.

    Raises:
        DeviceFailed: the board has no Python, or a version on which the agent does not run.
    """
    if isinstance(transport, LocalTransport):
        return sys.executable
    check_python(transport.name, facts.python[:2] if facts.python else None)
    return facts.python_path or "python3"


def look(transport: Transport, python: str, root: str, probe: str) -> Board:
    """Returns facts about the board, and about what knnkit has installed on it; changes nothing.

    `probe` is Python code for the environment in use to run; if that fails, `Board.damage` says why.

    Raises:
        Unreachable: the connection broke.
        DeviceFailed: the root cannot be used, or the answer is malformed.
    """
    answer = ask(transport, python, "state", {"root": root, "probe": probe}, timeout=LOOK_SECONDS)
    try:
        return _board(answer)
    except (KeyError, TypeError, ValueError) as error:
        raise _senseless(transport, f"{type(error).__name__} {error}") from None


def ask(transport: Transport, python: str, command: str, request: dict[str, Any], *, timeout: float) -> dict[str, Any]:
    """Runs one command of `device_agent.bootstrap` on the board, with arguments `request`; returns its JSON answer.

    Raises:
        Unreachable: the connection broke.
        DeviceLocked: another host is provisioning the board.
        DeviceFailed: the command failed, or the answer is malformed.
    """
    argv = [python, "-I", "-", command]
    try:
        completed = transport.run(argv, timeout=timeout, input=script(json.dumps(request)))
    except Unreachable as error:
        if error.reason == "deadline":  # no option changes this limit
            slow = "; if the board's network is slow, with --offline" if command == "build" else ""
            error.hint = f"run the command again{slow}"
        raise
    try:
        answer = json.loads(completed.stdout)
    except ValueError:
        raise _no_answer(transport, python, completed) from None
    if not isinstance(answer, dict):
        raise _senseless(transport, type(answer).__name__)
    if "problem" in answer:
        raise _problem(transport, answer)
    return answer


def check_writable(name: str, board: Board) -> None:
    """Checks that the board's root can be written, and hold an environment.

    Raises:
        DeviceFailed: it cannot; the message says why.
    """
    if board.read_only:
        raise DeviceFailed(
            f"{name}: {board.nearest} is mounted read-only",
            reason="read-only",
            hint="on the board: sudo mount -o remount,rw MOUNTPOINT (df shows it), or choose a root on another disk",
        )
    if ":" in board.root:
        said = f"{name}: {board.root} has a colon, and Python makes no environment in such a folder"
        raise DeviceFailed(said, reason="bad-root", hint="choose another root")
    if not board.writable:
        raise DeviceFailed(
            f"{name}: the login user may not write {board.nearest}", reason="cannot-write", hint="choose another root"
        )


def check_room(name: str, board: Board, need: int) -> None:
    """Checks that the board has `need` bytes of free disk space.

    Raises:
        DeviceFailed: the board has less; the message has both numbers.
    """
    if board.disk_free < need:
        raise DeviceFailed(
            f"{name}: {board.nearest} has {board.disk_free >> 20} MiB free; the environment needs {need >> 20} MiB",
            reason="no-space",
            hint="free some space on the board, or choose a root on another disk",
        )


def _board(answer: dict[str, Any]) -> Board:
    machine, bits = str(answer["machine"]), int(answer["bits"])
    if bits == 32:
        # A 32-bit system on a 64-bit kernel, as in Raspberry Pi OS: `uname -m` names the kernel.
        machine = {"aarch64": "armv7l", "armv8l": "armv7l", "x86_64": "i686"}.get(machine, machine)
    python = [int(part) for part in answer["python"]]
    pins = [str(pin) for pin in dict(answer["linked"] or {}).get("pins", ())]
    glibc = re.fullmatch(r"(\d+)\.(\d+)", answer["glibc"])
    return Board(
        root=str(answer["root"]),
        python=(python[0], python[1]),
        python_full=".".join(map(str, python)),
        executable=str(answer["executable"]),
        machine=machine,
        glibc=(int(glibc[1]), int(glibc[2])) if glibc else None,
        venv=bool(answer["venv"]),
        pip=bool(answer["pip"]),
        system=dict(answer["system"]),
        read_only=bool(answer["read_only"]),
        writable=bool(answer["writable"]),
        nearest=str(answer["nearest"]),
        disk_free=int(answer["disk_free"]),
        tidy=bool(answer["tidy"]),
        current=answer["current"],
        runtime=runtime_of(pins) if answer["linked"] else None,
        pictures=any(pin.startswith("pillow==") for pin in pins),
        environments=dict(answer["environments"]),
        damage=printable(str(answer.get("damage", ""))),
        trusted=dict(answer["trusted"]),
    )


def _problem(transport: Transport, answer: dict[str, Any]) -> DeviceFailed | DeviceLocked:
    reason, hint = printable(str(answer["problem"])), printable(str(answer.get("hint", "")))
    kind = DeviceLocked if reason == "locked" else DeviceFailed
    return kind(f"{transport.name}: {printable(str(answer.get('message')))}", reason=reason, hint=hint)


def _no_answer(transport: Transport, python: str, completed: Completed) -> DeviceFailed:
    last = (completed.complaint or f"exit code {completed.exit_code}").strip().splitlines()[-1]
    said = printable(completed.stderr.decode("utf-8", "replace"))
    places = re.findall(r'File "(device_agent/\S+)", line (\d+)', said)  # a traceback of our own
    where = f" ({places[-1][0]}:{places[-1][1]})" if places else ""
    return DeviceFailed(
        f"{transport.name}: {python} cannot run the provisioning script: {last}{where}",
        reason="python-unfit",
        hint="on the board: sudo apt install python3 python3-venv",
    )


def _senseless(transport: Transport, what: str) -> DeviceFailed:
    return DeviceFailed(f"{transport.name}: the provisioning script's answer is malformed: {what}", reason="bad-answer")


_PACKAGE = "device_agent.bootstrap"


def script(*request: str) -> bytes:
    """Returns the script for the standard input of the board's Python; its last line has the arguments `request`."""
    return f"{_head()}\n{', '.join(map(repr, request))}))\n".encode()


@cache
def _head() -> str:
    sources = onboard()
    loader = sources.pop(f"{_PACKAGE}.loader")
    sources.update({"device_agent": ""})
    table = json.dumps(sources, indent=0, sort_keys=True)  # JSON of strings is valid Python
    return f"{loader}\n\nsys.exit(run({table}, {_PACKAGE + '.main'!r},"


def onboard() -> dict[str, str]:
    """Returns module name -> source text of every module in `device_agent.bootstrap`."""
    files = {
        file.name: file.read_text(encoding="utf-8")
        for file in resources.files(_PACKAGE).iterdir()
        if file.name.endswith(".py")
    }
    return {f"{_PACKAGE}.{name[:-3]}".replace(".__init__", ""): text for name, text in files.items()}

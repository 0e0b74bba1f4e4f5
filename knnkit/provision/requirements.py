"""Table of the packages that each kind of board needs.

Exact versions by architecture, Python and runtime, and the reasons why some boards cannot run the agent. From the
wheels on PyPI (docs/decisions): tflite-runtime ends at Python 3.11 and needs NumPy 1; LiteRT has no wheel for 32-bit
ARM; NumPy has none either, so the distribution's NumPy and cryptography are used there. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from device_agent.shared.protocol import constants
from knnkit.errors import DeviceFailed

#: Python versions that the agent runs on, oldest and newest.
OLDEST, NEWEST = (3, 10), (3, 14)

TFLITE = "tflite-runtime==2.14.0"
LITERT = "ai-edge-litert==2.3.0"
#: Runtime, by its name in `--runtime` -> its wheel.
PACKAGES = {"tflite_runtime": TFLITE, "ai_edge_litert": LITERT}
_CRYPTOGRAPHY = ("cryptography==50.0.2", "cffi==2.1.1", "pycparser==2.23")
_CRYPTOGRAPHY_310 = (*_CRYPTOGRAPHY, "typing-extensions==4.15.0")
_TFLITE_64 = (TFLITE, "numpy==1.26.4", *_CRYPTOGRAPHY)
_LITERT_64 = (LITERT, "numpy==2.4.6", *_CRYPTOGRAPHY)
#: NumPy 2.3 and later have no wheel for Python 3.10.
_LITERT_310 = (LITERT, "numpy==2.2.6", *_CRYPTOGRAPHY_310)
_PYTHONS_64: dict[tuple[int, int], dict[str, tuple[str, ...]]] = {
    (3, 10): {"tflite_runtime": (TFLITE, "numpy==1.26.4", *_CRYPTOGRAPHY_310), "ai_edge_litert": _LITERT_310},
    (3, 11): {"tflite_runtime": _TFLITE_64, "ai_edge_litert": _LITERT_64},
    (3, 12): {"ai_edge_litert": _LITERT_64},
    (3, 13): {"ai_edge_litert": _LITERT_64},
    (3, 14): {"ai_edge_litert": _LITERT_64},
}

#: Architecture -> Python -> runtime -> wheels; the default runtime of a bare board is first.
#: Some packages that ai-edge-litert requires are left out: its interpreter does not import them.
WHEELS: dict[str, dict[tuple[int, int], dict[str, tuple[str, ...]]]] = {
    "x86_64": _PYTHONS_64,
    "aarch64": _PYTHONS_64,
    "armv7l": {(3, 11): {"tflite_runtime": (TFLITE,)}},
}
#: Architecture -> import name -> (package of the distribution, lowest major version, first one that is too new).
SYSTEM: dict[str, dict[str, tuple[str, int, int]]] = {
    "armv7l": {"numpy": ("python3-numpy", 1, 2), "cryptography": ("python3-cryptography", 38, 1000)},
}
#: Largest size of an environment in bytes, by its runtime.
ROOM = {TFLITE: 160 << 20, LITERT: 220 << 20}
#: Bytes of disk that must stay free.
SPARE = 32 << 20


@dataclass(frozen=True)
class Board:
    """Facts about a board; `root` is absolute, sizes are in bytes."""

    root: str
    python: tuple[int, int]
    python_full: str
    executable: str
    machine: str  # architecture of its programs: a 32-bit system on a 64-bit kernel is armv7l
    glibc: tuple[int, int] | None
    venv: bool
    pip: bool
    system: Mapping[str, str | None]
    read_only: bool
    writable: bool
    nearest: str
    disk_free: int
    tidy: bool = True  # there are no leftovers of interrupted runs
    current: str | None = None
    runtime: str | None = None  # of the environment in use, even if that can no longer start
    environments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    damage: str = ""  # what is wrong with the environment in use
    trusted: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """Packages for a board: `pins` are exact versions of wheels; `system_site` also allows the distribution's."""

    machine: str
    python: tuple[int, int]
    glibc: tuple[int, int]
    pins: tuple[str, ...]
    system_site: bool

    @property
    def runtime(self) -> str:
        """The TFLite runtime, as `name==version`."""
        return self.pins[0]

    @property
    def room(self) -> int:
        """Largest size of the environment in bytes; checked before the board's pip downloads anything."""
        return ROOM[self.runtime]


def recipe_for(name: str, board: Board, runtime: str = constants.ANY_RUNTIME) -> Recipe:
    """Chooses the packages for a board.

    `runtime` is one of PACKAGES; `auto` is the one that the board has, on a bare board the first in `WHEELS`.

    Raises:
        DeviceFailed: the agent cannot run there, or not with this runtime; the message says why.
    """
    check_python(name, board.python)
    if not board.venv:
        raise DeviceFailed(
            f"{name}: {board.executable} has no venv module",
            reason="no-venv",
            hint=f"on the board: sudo apt install python{board.python[0]}.{board.python[1]}-venv",
        )
    pins = _pins(name, board, runtime)
    if board.glibc is None:
        raise DeviceFailed(
            f"{name}: its C library is not glibc, and there is no TFLite runtime for another one",
            reason="no-runtime",
            hint="use Raspberry Pi OS, Debian or Ubuntu",
        )
    _check_system(name, board)
    return Recipe(board.machine, board.python, board.glibc, pins, system_site=board.machine in SYSTEM)


def room_for(machine: str, python: tuple[int, int] | None) -> int:
    """Returns the largest size of an environment on a bare board of this kind; the smallest of all if none can run."""
    found = WHEELS.get(machine, {}).get(python or OLDEST, {})
    return ROOM[next(iter(found.values()))[0]] if found else min(ROOM.values())


def check_python(name: str, python: tuple[int, int] | None) -> None:
    """Checks that the agent runs on the board's Python.

    Raises:
        DeviceFailed: it has none, or one that is too old or too new.
    """
    if python is None:
        raise DeviceFailed(
            f"{name}: there is no python3", reason="no-python", hint="on the board: sudo apt install python3"
        )
    if not OLDEST <= python <= NEWEST:
        wanted = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
        kind = "old" if python < OLDEST else "new"
        raise DeviceFailed(
            f"{name}: Python {python[0]}.{python[1]} is too {kind}; the agent runs on {wanted}",
            reason="python-unfit",
            hint="use Raspberry Pi OS Bookworm (3.11) or Trixie (3.13)",
        )


def impossible(machine: str, python: tuple[int, int], runtime: str) -> tuple[str, str] | None:
    """Returns why boards of this kind cannot have a runtime (`auto`: any runtime), and what to do; None if they can."""
    found = WHEELS.get(machine, {}).get(python, {})
    kind = f"for Python {python[0]}.{python[1]} on {machine}"
    if not found:
        return f"there is no TFLite runtime {kind}", _no_runtime_hint(machine)
    if runtime == constants.ANY_RUNTIME or runtime in found:
        return None
    have = " or ".join(found)
    return (
        f"there is no {runtime} {kind}; it can have {have}",
        f"--runtime {next(iter(found))}, or `runtime: {constants.ANY_RUNTIME}` of this target in deploy.yaml",
    )


def runtime_of(pins: Iterable[str]) -> str | None:
    """Returns which of PACKAGES is among wheels `name==version`, of any version; None if none is."""
    projects = {pin.partition("==")[0] for pin in pins}
    return next((name for name, project in constants.RUNTIMES.items() if project in projects), None)


def _pins(name: str, board: Board, runtime: str) -> tuple[str, ...]:
    why = impossible(board.machine, board.python, runtime)
    if why:
        raise DeviceFailed(f"{name}: {why[0]}", reason="no-runtime", hint=why[1])
    found = WHEELS[board.machine][board.python]
    if runtime == constants.ANY_RUNTIME:
        runtime = board.runtime or ""
    return found.get(runtime) or next(iter(found.values()))


def _no_runtime_hint(machine: str) -> str:
    if machine in ("armv7l", "armv6l"):
        return "use the 64-bit Raspberry Pi OS, or on an armv7 board the 32-bit Bookworm (Python 3.11)"
    return "supported boards: x86_64 and aarch64 with Python 3.10 to 3.14, armv7l with Python 3.11"


def _check_system(name: str, board: Board) -> None:
    missing = []
    for package, (apt, oldest, below) in SYSTEM.get(board.machine, {}).items():
        version = board.system.get(package)
        major = int(version.split(".")[0]) if version and version.split(".")[0].isdigit() else -1
        if not oldest <= major < below:
            missing.append(apt)
    if missing:
        raise DeviceFailed(
            f"{name}: {board.machine} needs the distribution's {' and '.join(missing)}",
            reason="no-system-package",
            hint=f"on the board: sudo apt install {' '.join(missing)}",
        )

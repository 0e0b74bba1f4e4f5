"""Table of the packages that each kind of board needs.

Has exact versions by architecture, Python and runtime, and the reasons why some boards cannot run the agent. They
follow from the wheels on PyPI (docs/decisions): tflite-runtime ends at Python 3.11 and needs NumPy 1; LiteRT and NumPy
have no wheels for 32-bit ARM, so these boards use the distribution's NumPy and cryptography. Boards without a TFLite
wheel (32-bit Trixie, ARMv6, RISC-V, musl) use NumPy as the runtime. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from device_agent.shared.protocol import constants
from knnkit.errors import DeviceFailed

#: Python versions that the agent runs on, oldest and newest.
OLDEST, NEWEST = (3, 10), (3, 14)

TFLITE = "tflite-runtime==2.14.0"
LITERT = "ai-edge-litert==2.3.0"
#: Runtime, by its name in `--runtime` -> its wheel.
PACKAGES = {"tflite_runtime": TFLITE, "ai_edge_litert": LITERT, constants.NUMPY: "numpy==2.4.6"}
_CRYPTOGRAPHY = ("cryptography==50.0.2", "cffi==2.1.1", "pycparser==2.23")
_CRYPTOGRAPHY_310 = (*_CRYPTOGRAPHY, "typing-extensions==4.15.0")
_TFLITE_64 = (TFLITE, "numpy==1.26.4", *_CRYPTOGRAPHY)
_NUMPY_64 = (PACKAGES[constants.NUMPY], *_CRYPTOGRAPHY)
#: NumPy 2.3 and later have no wheel for Python 3.10.
_NUMPY_310 = ("numpy==2.2.6", *_CRYPTOGRAPHY_310)
_LATER_64 = {"ai_edge_litert": (LITERT, *_NUMPY_64), constants.NUMPY: _NUMPY_64}
_PYTHONS_64: dict[tuple[int, int], dict[str, tuple[str, ...]]] = {
    (3, 10): {
        "tflite_runtime": (TFLITE, "numpy==1.26.4", *_CRYPTOGRAPHY_310),
        "ai_edge_litert": (LITERT, *_NUMPY_310),
        constants.NUMPY: _NUMPY_310,
    },
    (3, 11): {"tflite_runtime": _TFLITE_64, **_LATER_64},
    **dict.fromkeys(((3, 12), (3, 13), (3, 14)), _LATER_64),
}

#: Architecture -> Python -> runtime -> wheels; the default runtime of a bare board is first.
#: Some packages that ai-edge-litert requires are left out: its interpreter does not import them.
WHEELS: dict[str, dict[tuple[int, int], dict[str, tuple[str, ...]]]] = {
    "x86_64": _PYTHONS_64,
    "aarch64": _PYTHONS_64,
    "armv7l": {(3, 11): {"tflite_runtime": (TFLITE,), constants.NUMPY: ()}},
}
#: All other boards.
_NO_WHEELS: dict[str, tuple[str, ...]] = {constants.NUMPY: ()}
#: What decodes PNG and JPEG, for models that take pictures; its newest version for Python 3.10. It has no wheel for
#: boards that use the distribution's NumPy, which use the distribution's Pillow, too.
PILLOW = "pillow==12.3.0"
#: Oldest major version of the distribution's packages, where there are no wheels. tflite-runtime needs NumPy 1.
_OLDEST_OF = {"numpy": 1, "cryptography": 38}
#: Largest size of an environment in bytes, by its runtime; without wheels, it holds the agent alone.
ROOM = {TFLITE: 160 << 20, LITERT: 220 << 20}
_ROOM_OF_NUMPY, _ROOM_OF_AGENT, _ROOM_OF_PILLOW = 130 << 20, 16 << 20, 32 << 20
#: Bytes of disk that must stay free.
SPARE = 32 << 20


@dataclass(frozen=True)
class Board:
    """Facts about a board and the environments on it; `root` is an absolute path, sizes are in bytes."""

    root: str
    python: tuple[int, int]
    python_full: str
    executable: str  # path of its Python
    machine: str  # architecture of its programs: a 32-bit system on a 64-bit kernel is armv7l
    glibc: tuple[int, int] | None
    venv: bool
    pip: bool
    system: Mapping[str, str | None]  # version of the distribution's numpy and cryptography; None: not installed
    read_only: bool
    writable: bool
    nearest: str  # root, or the nearest folder above it that exists
    disk_free: int
    tidy: bool = True  # there are no leftovers of interrupted runs
    current: str | None = None  # digest of the environment in use
    runtime: str | None = None  # of the environment in use, even if that can no longer start
    pictures: bool = False  # whether Pillow is among the wheels of that environment
    environments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # digest -> what it was made of
    damage: str = ""  # what is wrong with the environment in use
    trusted: Mapping[str, str] = field(default_factory=dict)  # file name of a trusted key -> SHA-256


@dataclass(frozen=True)
class Recipe:
    """Packages for a kind of board: the wheels `pins`, each `name==version`; (): only the distribution's packages."""

    machine: str
    python: tuple[int, int]
    glibc: tuple[int, int] | None
    pins: tuple[str, ...]

    @property
    def system_site(self) -> bool:
        """Whether the environment uses the distribution's NumPy and cryptography."""
        return self.pins in ((), (TFLITE,))

    @property
    def runtime(self) -> str:
        """The runtime as `name==version`; `numpy` without a version is the distribution's NumPy."""
        return self.pins[0] if self.pins else constants.NUMPY

    @property
    def room(self) -> int:
        """Largest possible size of the environment in bytes, for a check before the board's pip downloads packages."""
        return _room(self.pins)


def recipe_for(name: str, board: Board, runtime: str = constants.ANY_RUNTIME) -> Recipe:
    """Chooses the packages for the board of the device `name`.

    `runtime` is `tflite_runtime`, `ai_edge_litert`, `numpy` or `auto`. `auto` keeps the board's present runtime; for a
    bare board it is the first that `WHEELS` lists for its architecture and Python.

    Raises:
        DeviceFailed: the agent cannot run on the board, or not with this runtime; the message says why.
    """
    check_python(name, board.python)
    if not board.venv:
        raise DeviceFailed(
            f"{name}: {board.executable} has no venv module",
            reason="no-venv",
            hint=f"on the board: sudo apt install python{board.python[0]}.{board.python[1]}-venv",
        )
    pins = _pins(name, board, runtime)
    recipe = Recipe(board.machine, board.python, board.glibc, pins)
    if recipe.system_site:
        _check_system(name, board, pins)
    return recipe


def with_pillow(recipe: Recipe) -> Recipe:
    """Returns the recipe with Pillow's wheel; unchanged if its board takes NumPy and Pillow from the distribution."""
    return recipe if recipe.system_site or PILLOW in recipe.pins else replace(recipe, pins=(*recipe.pins, PILLOW))


def on_boards() -> set[str]:
    """Returns each package, as `name==version`, that provisioning may install on any board."""
    found = {
        pin
        for pythons in WHEELS.values()
        for runtimes in pythons.values()
        for pins in runtimes.values()
        for pin in pins
    }
    return {*found, PILLOW}


def room_for(machine: str, python: tuple[int, int] | None) -> int:
    """Returns the bytes that an environment needs at most, by `uname -m` and Python of the board (None: not known)."""
    return _room(next(iter(_found(machine, python or OLDEST).values())))


def check_python(name: str, python: tuple[int, int] | None) -> None:
    """Checks that the agent runs on the Python of the board `name` (None: it has none).

    Raises:
        DeviceFailed: the board has no Python, or one that is too old or too new.
    """
    if fault := python_fault(python):
        reason, said, hint = fault
        raise DeviceFailed(f"{name}: {said}", reason=reason, hint=hint)


def python_fault(python: tuple[int, ...] | None) -> tuple[str, str, str] | None:
    """Returns (reason, message, hint) if the agent does not run on a board's Python (None: it has none); else None."""
    if python is None:
        return "no-python", "there is no python3", "on the board: sudo apt install python3"
    if OLDEST <= python[:2] <= NEWEST:
        return None
    wanted = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
    said = f"Python {python[0]}.{python[1]} is too {'old' if python[:2] < OLDEST else 'new'}"
    return "python-unfit", f"{said}; the agent runs on {wanted}", "use Raspberry Pi OS Bookworm (3.11) or Trixie (3.13)"


def impossible(machine: str, python: tuple[int, int], runtime: str) -> tuple[str, str] | None:
    """Returns (why a machine with this Python cannot have `runtime`, hint); None if it can, and for `auto`."""
    found = _found(machine, python)
    if runtime == constants.ANY_RUNTIME or runtime in found:
        return None
    kind, have = f"for Python {python[0]}.{python[1]} on {machine}", " or ".join(found)
    return (
        f"there is no {runtime} {kind}; such a board can have {have}",
        f"--runtime {next(iter(found))}, or `runtime: {constants.ANY_RUNTIME}` of this target in deploy.yaml",
    )


def runtime_of(pins: Iterable[str]) -> str | None:
    """Returns the runtime of an environment with the wheels `pins`, each `name==version`; None if they have none.

    It is `tflite_runtime`, `ai_edge_litert` or `numpy`. NumPy counts as the runtime only if it is the first of `pins`,
    or if `pins` is empty: then it is the distribution's NumPy.
    """
    projects = [pin.partition("==")[0] for pin in pins] or [constants.NUMPY]
    found = next((name for name, project in constants.RUNTIMES.items() if project in projects), None)
    return None if found == constants.NUMPY != projects[0] else found


def _found(machine: str, python: tuple[int, int], glibc: bool = True) -> dict[str, tuple[str, ...]]:
    return (WHEELS.get(machine, {}).get(python) if glibc else None) or _NO_WHEELS


def _room(pins: tuple[str, ...]) -> int:
    more = _ROOM_OF_PILLOW if PILLOW in pins else 0
    return (ROOM.get(pins[0], _ROOM_OF_NUMPY) if pins else _ROOM_OF_AGENT) + more


def _pins(name: str, board: Board, runtime: str) -> tuple[str, ...]:
    found = _found(board.machine, board.python, board.glibc is not None)
    if runtime not in (constants.ANY_RUNTIME, *found):
        musl = f"its C library is not glibc, and {runtime} needs glibc", f"--runtime {constants.NUMPY}"
        why, hint = (board.glibc and impossible(board.machine, board.python, runtime)) or musl
        raise DeviceFailed(f"{name}: {why}", reason="no-runtime", hint=hint)
    if runtime == constants.ANY_RUNTIME:
        runtime = board.runtime or ""
    return found[runtime] if runtime in found else next(iter(found.values()))


def _check_system(name: str, board: Board, pins: tuple[str, ...]) -> None:
    wanted = []
    for package, oldest in _OLDEST_OF.items():
        version = board.system.get(package)
        major = int(version.split(".")[0]) if version and version.split(".")[0].isdigit() else -1
        if not oldest <= major < (2 if package == "numpy" and TFLITE in pins else 1000):
            wanted.append(f"python3-{package}" if board.glibc else f"py3-{package}")
    if wanted:
        raise DeviceFailed(
            f"{name}: {board.machine} needs the distribution's {' and '.join(wanted)}",
            reason="no-system-package",
            hint=f"on the board: sudo {'apt install' if board.glibc else 'apk add'} {' '.join(wanted)}",
        )

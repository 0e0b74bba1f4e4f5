"""Folder of wheels for boards, filled by the host's pip.

pip downloads only wheels with a known SHA-256 (`pinned_hashes`); the caller checks every wheel again before it sends
it. Never installs anything.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from knnkit.errors import DeviceFailed, MissingDependency, UsageError
from knnkit.provision import pinned_hashes
from knnkit.provision.pinned_hashes import normalised
from knnkit.provision.requirements import Recipe

#: Arguments after a Python: pip downloads wheels with the given SHA-256, without their dependencies.
PIP = ("-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes", "--no-input")
#: pip's message for a file with none of the required digests.
OTHER_BYTES = "DO NOT MATCH THE HASHES"
#: The file name of a wheel in pip's messages, without its URL.
WHEEL = r"[^/\s#]+\.whl"
#: Environment variable with the folder of wheels; `--wheels` overrides it.
FOLDER_VARIABLE = "KNNKIT_WHEELS"
_FETCH_SECONDS = 900.0
_fetching = threading.Lock()  # between threads (one per device); the file lock below is for other processes


def default_folder() -> Path:
    """Returns the wheel cache: $KNNKIT_WHEELS, else knnkit/wheels in the user's cache."""
    named = os.environ.get(FOLDER_VARIABLE)
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(named or f"{base}/knnkit/wheels").expanduser()


def is_named(folder: Path | None) -> bool:
    """Whether the user chose the folder of wheels, on the command line (`folder`) or by $KNNKIT_WHEELS."""
    return folder is not None or bool(os.environ.get(FOLDER_VARIABLE))


def fetch(pins: Sequence[str], recipe: Recipe, folder: Path, *, own: bool = False) -> list[Path]:
    """Returns the paths of the wheels `pins` (`name==version`) for a recipe's board; downloads those `folder` lacks.

    `own`: whether the user chose the folder; its wheels then count even if their SHA-256 is not known.

    Raises:
        UsageError: `folder` cannot be written.
        MissingDependency: a wheel must be downloaded and this Python has no pip.
        DeviceFailed: the package index has no such wheel, has a different one of that name, or cannot be reached.
    """

    def held() -> dict[str, str | None]:
        return {pin: _held(pin, recipe, folder, own) for pin in pins}

    with _fetching:
        if None in held().values():
            with _locked(folder):  # another process may have fetched them meanwhile
                _download([pin for pin, name in held().items() if name is None], recipe, folder)
        found = held()
    for pin, name in found.items():
        if name is None:
            raise DeviceFailed(
                f"no wheel of {pin} fits {describe(recipe)}", reason="no-wheel", hint=f"ls {shlex.quote(str(folder))}"
            )
    return [folder / name for name in found.values() if name is not None]


def best(pin: str, names: Iterable[str], recipe: Recipe) -> str | None:
    """Returns which of the files `names` is the wheel of `pin` (`name==version`) that fits best; None if none fits."""
    project, _, version = pin.partition("==")
    stem = f"{normalised(project)}-{version}-"
    ranked = [(rank_of(name, recipe), name) for name in names if normalised(name).startswith(stem)]
    return min(((rank, name) for rank, name in ranked if rank is not None), default=(0, None))[1]


def known(pin: str, recipe: Recipe) -> dict[str, str]:
    """Returns file name -> SHA-256 of every known wheel of `pin` (`name==version`) that runs on the board."""
    return {name: digest for name, digest in pinned_hashes.known().items() if best(pin, [name], recipe)}


def rank_of(wheel: str, recipe: Recipe) -> int | None:
    """Returns how well the file name `wheel` fits the board, from 0 (best) up; None if the wheel cannot run there.

    PEP 425 and PEP 600 define the tags in the name.
    """
    if not wheel.endswith(".whl") or wheel.count("-") not in (4, 5):
        return None
    pythons, abis, platforms = wheel[: -len(".whl")].split("-")[-3:]
    fits = [tag in platforms.split(".") for tag in platform_tags(recipe)]
    if platforms == "any":
        fits = [True]
    if True not in fits or not any(_python_fits(p, a, recipe) for p in pythons.split(".") for a in abis.split(".")):
        return None
    return fits.index(True)


def platform_tags(recipe: Recipe) -> list[str]:
    """Returns tags of wheels that run on the board, such as `manylinux_2_31_aarch64`; the newest C library first."""
    if recipe.glibc is None:
        return []
    oldest = 17 if recipe.machine in ("aarch64", "armv7l") else 5
    tags = []
    for minor in range(recipe.glibc[1], oldest - 1, -1):
        tags.append(f"manylinux_{recipe.glibc[0]}_{minor}_{recipe.machine}")
        legacy = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}.get(minor)
        if legacy:
            tags.append(f"{legacy}_{recipe.machine}")
    return tags


def describe(recipe: Recipe) -> str:
    """Returns the kind of a board in words: Python version, architecture and C library."""
    python, glibc = recipe.python, recipe.glibc
    library = f"glibc {glibc[0]}.{glibc[1]}" if glibc else "another C library than glibc"
    return f"{recipe.machine}, Python {python[0]}.{python[1]}, {library}"


def unpacked_size(wheels: Sequence[Path]) -> int:
    """Returns the size in bytes of the wheels together with all their unpacked files.

    Raises:
        DeviceFailed: a wheel is damaged.
    """
    total = 0
    for path in wheels:
        try:
            if not path.is_file():
                raise OSError("it is not a file")
            with zipfile.ZipFile(path) as content:
                total += path.stat().st_size + sum(entry.file_size for entry in content.infolist())
        except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
            raise DeviceFailed(
                f"{path} is damaged: {error}", reason="bad-wheel", hint=f"rm {shlex.quote(str(path))}"
            ) from None
    return total


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []


def _held(pin: str, recipe: Recipe, folder: Path, own: bool) -> str | None:
    names = _names(folder)
    found = best(pin, [name for name in names if name in pinned_hashes.known()], recipe)
    return found or (best(pin, names, recipe) if own else None)


def _python_fits(python: str, abi: str, recipe: Recipe) -> bool:
    major, minor = recipe.python
    if abi == "none":
        return python in (f"py{major}", f"py{major}{minor}", f"cp{major}{minor}")
    if abi == f"abi{major}":
        found = re.fullmatch(rf"cp{major}(\d+)", python)
        return found is not None and int(found[1]) <= minor
    return python == abi == f"cp{major}{minor}"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise UsageError(
            f"{folder}: {error.strerror}", hint=f"choose another folder: --wheels, {FOLDER_VARIABLE}"
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _download(pins: Sequence[str], recipe: Recipe, folder: Path) -> None:
    """Downloads the wheels `pins` with pip into a temporary folder, then moves the complete files into `folder`."""
    if not pins:
        return
    if importlib.util.find_spec("pip") is None:
        raise MissingDependency(
            f"{', '.join(pins)} must be downloaded and this Python has no pip",
            hint=f"{sys.executable} -m ensurepip; or put the wheels into {folder}",
        )
    platforms = [word for tag in platform_tags(recipe) for word in ("--platform", tag)]
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as fresh:
        command = [sys.executable, *PIP, "--disable-pip-version-check", "--implementation", "cp", *platforms]
        command += ["--python-version", f"{recipe.python[0]}.{recipe.python[1]}", "--dest", fresh]
        wanted = Path(fresh, "requirements.txt")
        wanted.write_text("".join(f"{requirement(pin, recipe)}\n" for pin in pins), encoding="utf-8")
        command += ["--requirement", str(wanted)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise _cannot(pins, recipe, folder, f"pip did not finish within {_FETCH_SECONDS:g} s") from None
        if OTHER_BYTES in done.stderr:
            raise _differs(recipe, folder, done.stderr)
        if done.returncode:
            complaint = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise _cannot(pins, recipe, folder, complaint[0] if complaint else f"pip ended with {done.returncode}")
        for path in Path(fresh).glob("*.whl"):
            path.replace(folder / path.name)


def requirement(pin: str, recipe: Recipe) -> str:
    """Returns a line of requirements for pip: `name==version --hash=sha256:…`, with each SHA-256 that is allowed."""
    return " ".join([pin, *(f"--hash=sha256:{digest}" for digest in known(pin, recipe).values())])


def _differs(recipe: Recipe, folder: Path, complaint: str) -> DeviceFailed:
    """Returns the error for pip's `complaint` about a SHA-256; does not quote it: its URLs may hold a password."""
    name = re.search(WHEEL, complaint)
    got = re.search(r"Got\s+([0-9a-f]{64})", complaint)
    return DeviceFailed(
        f"the package index has another {name[0] if name else 'wheel'} for {describe(recipe)} than PyPI: "
        f"its SHA-256 is {got[1] if got else 'not known'}; it was not used",
        reason="wheel-differs",
        hint=f"python -m pip config list shows which index pip uses; or put PyPI's wheel into {folder}",
    )


def _cannot(pins: Sequence[str], recipe: Recipe, folder: Path, why: str) -> DeviceFailed:
    return DeviceFailed(
        f"cannot download {', '.join(pins)} for {describe(recipe)}: {why}",
        reason="no-wheel",
        hint=f"download the wheels on a machine with internet, and put them into {folder}",
    )

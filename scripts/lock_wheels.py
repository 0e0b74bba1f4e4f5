"""Asks the index for the wheels of every version that a board may get, and writes knnkit/provision/wheels.sha256.

    python -m scripts.lock_wheels            # after a change of versions in knnkit/provision/recipe.py
    python -m scripts.lock_wheels --check    # writes nothing; 1 where the index would give other lines

Asks pip which wheel it would install for each Python, architecture and C library, and with which SHA-256 the index
names it. Ignores mirrors, folders and settings of this machine. Installs nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from knnkit.provision.pinned_hashes import LOCK, parse
from knnkit.provision.requirements import WHEELS, Recipe, with_pillow
from knnkit.provision.wheel_cache import platform_tags, rank_of

_INDEX = "https://pypi.org/simple"
#: The newest C library that a wheel may ask for: later ones run it as well.
_NEWEST_GLIBC = 50
_HEADER = """\
# The SHA-256 of every wheel that a board may get, as PyPI has them. Made by `python -m scripts.lock_wheels`.
# In a folder of wheels: sha256sum --check --ignore-missing wheels.sha256
"""


def kinds() -> Iterator[tuple[Recipe, str]]:
    """Yields every kind of board that knnkit supports, with each version that it may get."""
    for machine, pythons in WHEELS.items():
        for python, runtimes in pythons.items():
            recipes = [Recipe(machine, python, (2, _NEWEST_GLIBC), pins) for pins in runtimes.values()]
            for pin in sorted({pin for recipe in recipes for pin in with_pillow(recipe).pins}):
                yield Recipe(machine, python, (2, _NEWEST_GLIBC), (pin,)), pin


def wheels_of(kind: tuple[Recipe, str]) -> dict[str, str]:
    """Returns file name -> SHA-256 of all wheels that pip chooses for a board, newest C library first."""
    recipe, pin = kind
    found = {}
    for glibc in range(_NEWEST_GLIBC, 4, -1):
        older = Recipe(recipe.machine, recipe.python, (2, glibc), recipe.pins)
        if any(rank_of(name, older) is not None for name in found):
            continue  # pip would name this one again
        answer = ask(pin, older)
        if answer is None:
            break
        found[answer[0]] = answer[1]
    if not found:
        sys.exit(f"the index has no wheel of {pin} for Python {recipe.python} on {recipe.machine}")
    return found


def ask(pin: str, recipe: Recipe) -> tuple[str, str] | None:
    """Returns the wheel that pip would install; None if there is none."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_") or "CERT" in name}
    environment["PIP_CONFIG_FILE"] = os.devnull
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed", "--no-deps"]
        command += ["--only-binary=:all:", "--target", scratch, "--index-url", _INDEX, "--report", str(report)]
        command += ["--implementation", "cp", "--python-version", f"{recipe.python[0]}.{recipe.python[1]}"]
        command += [word for tag in platform_tags(recipe) for word in ("--platform", tag)]
        done = subprocess.run([*command, pin], env=environment, capture_output=True, text=True, check=False)
        if "No matching distribution found" in done.stderr:
            return None
        if done.returncode:
            sys.exit(done.stderr)
        (chosen,) = json.loads(report.read_text(encoding="utf-8"))["install"]
    about = chosen["download_info"]
    return about["url"].rpartition("/")[2], about["archive_info"]["hashes"]["sha256"]


def main() -> int:
    """Writes the file, or with `--check` prints what differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where something differs")
    check = parser.parse_args().check
    found: dict[str, str] = {}
    with ThreadPoolExecutor(4) as pool:
        for wheels in pool.map(wheels_of, kinds()):
            found.update(wheels)
    lines = {f"{digest}  {name}" for name, digest in found.items()}
    known = {f"{digest}  {name}" for name, digest in (parse(LOCK.read_text()) if LOCK.exists() else {}).items()}
    for sign, changed in (("+", lines - known), ("-", known - lines)):
        for line in sorted(changed, key=lambda text: text.split()[1]):
            print(sign, line)
    if not check:
        text = "".join(f"{line}\n" for line in sorted(lines, key=lambda text: text.split()[1]))
        LOCK.write_text(_HEADER + text, encoding="utf-8")
    return int(check and lines != known)


if __name__ == "__main__":
    sys.exit(main())

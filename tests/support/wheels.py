"""Wheels for tests: tiny ones made on the spot, and the real ones, fetched once into the wheel cache.

`python tests/support/wheels.py local aarch64-3.11-2.36` fetches for boards of that architecture, Python and glibc;
`aarch64-3.11-2.36-ai_edge_litert` with the runtime that a bare one does not get by itself.
"""

from __future__ import annotations

import hashlib
import platform
import sys
import zipfile
from pathlib import Path

from knnkit.provision import default_folder
from knnkit.provision.requirements import WHEELS, Recipe, with_pillow
from knnkit.provision.wheel_cache import fetch


def make_wheel(folder: Path, name: str, version: str, files: dict[str, str]) -> Path:
    """Writes a pure-Python wheel with these files; returns its path."""
    path, info = folder / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    about = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for entry, text in {**files, **about}.items():
            archive.writestr(zipfile.ZipInfo(entry), text)  # dated 1980: the same bytes whenever it is made
    return path


def digest(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def recipe_of(kind: str) -> Recipe:
    """The recipe for `local`, or for `MACHINE-PYTHON-GLIBC`; each may end in `-RUNTIME`."""
    libc = platform.libc_ver()[1]
    here = f"{platform.machine()}-{sys.version_info[0]}.{sys.version_info[1]}-{libc}"
    machine, python, glibc, *runtime = kind.replace("local", here).split("-")
    version, libc_version = (tuple(map(int, text.split("."))) for text in (python, glibc))
    pair, libc_pair = (version[0], version[1]), (libc_version[0], libc_version[1])
    found = WHEELS[machine][pair]
    return Recipe(machine, pair, libc_pair, found[runtime[0] if runtime else next(iter(found))])


if __name__ == "__main__":
    for word in sys.argv[1:]:
        wanted = with_pillow(recipe_of(word))
        print(*(path.name for path in fetch(wanted.pins, wanted, default_folder())), sep="\n")

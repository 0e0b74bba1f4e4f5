"""Which environments there are on a board, of what they were made, and whether they can start. Changes nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from device_agent.bootstrap.files import listed, read_json
from device_agent.bootstrap.paths import LINK, VENVS

MARKER = "knnkit.json"  # in an environment: what it was made of; written last, so that it says "complete"
CONTENTS = "wheels"  # in an environment: NAME.json for each wheel, its files and their SHA-256


def current(root: Path) -> str | None:
    """The digest of the environment in use; None without one that can start."""
    digest = link(root)
    return digest if digest is not None and works(root, digest) else None


def linked(root: Path) -> dict[str, Any] | None:
    """What the environment in use was made of, also where it cannot start any more."""
    digest = link(root)
    return marker(root, digest) if digest is not None else None


def link(root: Path) -> str | None:
    """The digest that ROOT/venv names, whatever is there."""
    try:
        return Path(os.readlink(root / LINK)).name  # noqa: PTH115 - Path.readlink came with 3.9
    except OSError:
        return None


def marker(root: Path, digest: str) -> dict[str, Any] | None:
    """What an environment was made of; None when it is not finished."""
    made_of = read_json(root / VENVS / digest / MARKER)
    return made_of if made_of is not None and made_of.get("digest") == digest and well_formed(made_of) else None


def well_formed(made_of: dict[str, Any]) -> bool:
    """Whether a marker names wheels as this script does; a person or a bad card may have changed it."""
    wheels, pins = made_of.get("wheels", []), made_of.get("pins", [])
    if not isinstance(wheels, list) or not isinstance(pins, list):
        return False
    named = [wheel for wheel in wheels if isinstance(wheel, dict)]
    return named == wheels and all(isinstance(wheel.get(key), str) for wheel in named for key in ("name", "sha256"))


def works(root: Path, digest: str) -> bool:
    """Whether a finished environment can start: its Python may have gone with an upgrade, a file with a bad card."""
    environment = root / VENVS / digest
    finished = marker(root, digest) is not None and os.access(environment / "bin" / "python", os.X_OK)
    return finished and all(map(os.path.lexists, unpacked(environment)))


def unpacked(environment: Path) -> Iterator[str]:
    """Every file that its wheels put there; as text, for there are thousands."""
    for site in (environment / "lib").glob("python3*/site-packages"):  # one: that of the Python it was made with
        for record in listed(environment / CONTENTS):
            for name in files_in(read_json(record)) or ():
                yield f"{site}/{name}"


def files_in(record: dict[str, Any] | None) -> dict[str, str] | None:
    """File -> SHA-256 of what a record says; None where it makes no sense, or leads out of the environment."""
    files = record.get("files") if record else None
    if not isinstance(files, dict) or not all(isinstance(value, str) for value in files.values()):
        return None
    return None if any(".." in name.split("/") or name.startswith("/") for name in files) else files


def environments(root: Path) -> dict[str, dict[str, Any]]:
    """Digest -> what it was made of, for every finished environment that can start."""
    names = [path.name for path in listed(root / VENVS) if works(root, path.name)]
    return {name: marker(root, name) or {} for name in names}


def site_packages(environment: Path) -> Path:
    """Where this Python looks for packages in an environment."""
    return environment / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"

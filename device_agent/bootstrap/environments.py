"""The environments on a board: finds, uses and removes them."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from device_agent.bootstrap.files import (
    PART,
    discard,
    listed,
    make_folder,
    read_json,
    remove_tree,
    safe,
    same,
    sync,
    write,
)
from device_agent.bootstrap.paths import LINK, TRUST, VENVS, Trouble
from device_agent.bootstrap.upload_dirs import busy, drop_upload, is_upload

MARKER = "knnkit.json"  # in an environment: what it was made of; written last, so that it proves it complete
CONTENTS = "wheels"  # in an environment: NAME.json for each wheel, its files and their SHA-256
#: Environments to keep: the one in use and the one before it, which a process may still be using.
KEPT = 2


def current(root: Path) -> str | None:
    """Returns the digest of the environment in use; None if there is none or it cannot start."""
    digest = link(root)
    return digest if digest is not None and works(root, digest) else None


def linked(root: Path) -> dict[str, Any] | None:
    """Returns the knnkit.json of the environment in use, even if that cannot start; None if none is in use."""
    digest = link(root)
    return marker(root, digest) if digest is not None else None


def link(root: Path) -> str | None:
    """Returns the digest that the link ROOT/venv names; None if there is no link. The environment may be missing."""
    try:
        return Path(os.readlink(root / LINK)).name  # noqa: PTH115 - Path.readlink came with 3.9
    except OSError:
        return None


def marker(root: Path, digest: str) -> dict[str, Any] | None:
    """Returns an environment's knnkit.json, which lists its content; None if unfinished or damaged."""
    made_of = read_json(root / VENVS / digest / MARKER)
    return made_of if made_of is not None and made_of.get("digest") == digest and well_formed(made_of) else None


def well_formed(made_of: dict[str, Any]) -> bool:
    """Whether each wheel in `made_of` (knnkit.json) has `name` and `sha256`."""
    wheels, pins = made_of.get("wheels", []), made_of.get("pins", [])
    if not isinstance(wheels, list) or not isinstance(pins, list):
        return False
    named = [wheel for wheel in wheels if isinstance(wheel, dict)]
    return named == wheels and all(isinstance(wheel.get(key), str) for wheel in named for key in ("name", "sha256"))


def works(root: Path, digest: str) -> bool:
    """Whether an environment is finished, and its Python and files exist. An upgrade may have removed that Python."""
    environment = root / VENVS / digest
    finished = marker(root, digest) is not None and os.access(environment / "bin" / "python", os.X_OK)
    return finished and all(map(os.path.lexists, unpacked(environment)))


def unpacked(environment: Path) -> Iterator[str]:
    """Yields the path of every file that the environment's wheels installed; as text, since there are thousands."""
    for site in (environment / "lib").glob("python3*/site-packages"):  # exactly one, of the Python that made it
        for record in listed(environment / CONTENTS):
            for name in files_in(read_json(record)) or ():
                yield f"{site}/{name}"


def files_in(record: dict[str, Any] | None) -> dict[str, str] | None:
    """Returns path -> SHA-256 of a wheel's files, from its JSON `record`; None if missing, malformed or unsafe."""
    files = record.get("files") if record else None
    if not isinstance(files, dict) or not all(isinstance(value, str) for value in files.values()):
        return None
    return None if any(".." in name.split("/") or name.startswith("/") for name in files) else files


def environments(root: Path) -> dict[str, dict[str, Any]]:
    """Returns digest -> knnkit.json of every finished environment that can start."""
    return {path.name: marker(root, path.name) or {} for path in listed(root / VENVS) if works(root, path.name)}


def site_packages(environment: Path) -> Path:
    """Returns the folder where this Python looks for packages in an environment."""
    return environment / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def switch(root: Path, digest: str) -> str | None:
    """Makes `digest` the environment in use; returns the digest of the one used before (None: none could start)."""
    before = current(root)
    if before != digest:
        if (root / LINK).is_dir() and not (root / LINK).is_symlink():
            raise Trouble("bad-root", f"{root / LINK} is a folder; knnkit needs its name for a link", "move it away")
        if before is not None:
            os.utime(root / VENVS / before / MARKER)  # `prune` keeps the one that was in use last
        part = root / (LINK + PART)
        part.symlink_to(Path(VENVS) / digest)
        part.rename(root / LINK)
        sync(root)
    return before


def add_keys(root: Path, keys: dict[str, str]) -> list[str]:
    """Writes those trusted `keys` (name -> PEM text) that are missing or differ; returns their names."""
    make_folder(root / TRUST)
    added = []
    for name, text in sorted(keys.items()):
        path, part = root / TRUST / safe(name), root / TRUST / (name + PART)
        if not same(path, hashlib.sha256(text.encode()).hexdigest()):
            write(part, text.encode())
            part.rename(path)
            added.append(name)
    sync(root / TRUST)
    return added


def tidy(root: Path) -> bool:
    """Whether there is nothing to remove: at most `KEPT` environments, no unfinished ones and no abandoned uploads."""
    finished = environments(root)
    others = (path for path in listed(root / VENVS) if path.name not in finished)
    stray = any(not (is_upload(path) and busy(path)) for path in others)
    return not stray and len(finished) <= KEPT and not os.path.lexists(root / (LINK + PART))


def clear_leftovers(root: Path) -> None:
    """Removes environments that are unfinished or cannot start, and upload folders whose connection has ended."""
    for path in listed(root / VENVS):
        if is_upload(path):
            drop_upload(path)
        elif not works(root, path.name):
            remove_tree(path)
    remove_tree(root / (LINK + PART))


def prune(root: Path, digest: str) -> None:
    """Removes all environments but `digest` and the one in use; if these are the same, keeps the one used before."""
    kept = {digest, current(root)}
    others = [root / VENVS / name for name in environments(root) if name not in kept]
    others.sort(key=lambda path: (path / MARKER).stat().st_mtime_ns, reverse=True)
    for path in others[KEPT - len(kept) :]:
        discard(path, path.with_name(path.name + PART), MARKER)

"""Files and folders of a board: what is there, whole and on the disk or not at all. Knows nothing of environments."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from device_agent.bootstrap.paths import Trouble

PART = ".part"  # at the end of a name: not finished, or on its way out


def listed(folder: Path) -> list[Path]:
    """What is in a folder, sorted; nothing when there is none."""
    return sorted(folder.iterdir()) if folder.is_dir() else []


def make_folder(path: Path) -> None:
    """A folder for its owner alone, and those above it as far as they are missing."""
    while not path.is_dir():
        make_folder(path.parent)
        with contextlib.suppress(FileNotFoundError):  # another host that failed has just removed the one above
            path.mkdir(0o700, exist_ok=True)


def remove_tree(path: Path) -> None:
    """Whatever is at `path` goes; nothing there is fine."""
    if not path.is_symlink() and path.is_dir():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def discard(path: Path, gone: Path, proof: str = "") -> None:
    """Removes a folder under another name, so that half of it is never taken for the whole; a missing one is fine.

    An overlay does not rename what lies in its lower layer: then the file `proof`, without which it does not count,
    goes first.
    """
    remove_tree(gone)
    try:
        path.rename(gone)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        gone = path
        if proof:
            remove_tree(path / proof)
            sync(path)
    remove_tree(gone)


def safe(name: str) -> str:
    """The name, when it stays inside the folder that it is put in."""
    if "\\" in name or "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise Trouble("bad-wheel", f"an unsafe path: {name!r}", "do not use this wheel")
    return name


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file; None when there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def sha256(path: Path) -> str:
    """The file's digest in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def same(path: Path, digest: str) -> bool:
    """Whether a file is there and has this SHA-256."""
    try:
        return path.is_file() and sha256(path) == digest  # a pipe would be waited for
    except OSError:
        return False


def write(path: Path, content: bytes) -> None:
    """A file that is on the disk when this returns."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_tree(top: Path) -> None:
    """Every file and folder under `top` on the disk; one sync first, so that each fsync only has to report."""
    os.sync()
    for folder, _, names in os.walk(top):
        for path in (Path(folder), *(Path(folder, name) for name in names)):
            if not path.is_symlink():
                sync(path)


def sync(path: Path) -> None:
    """A file or a folder on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

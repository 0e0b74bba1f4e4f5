"""Reads, writes and removes files on a board, durably."""

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

PART = ".part"  # at the end of a name: unfinished, or being removed


def listed(folder: Path) -> list[Path]:
    """Returns the sorted paths in a folder; [] if it does not exist."""
    return sorted(folder.iterdir()) if folder.is_dir() else []


def make_folder(path: Path) -> None:
    """Makes a folder that only its owner can read, and its missing parents."""
    while not path.is_dir():
        make_folder(path.parent)
        with contextlib.suppress(FileNotFoundError):  # another host has just removed the parent after a failure
            path.mkdir(0o700, exist_ok=True)


def remove_tree(path: Path) -> None:
    """Removes the file, link or folder `path`, if it exists."""
    if not path.is_symlink() and path.is_dir():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def discard(path: Path, gone: Path, proof: str = "") -> None:
    """Renames a folder, if it exists, to `gone`, then removes it: a half-removed one never looks complete.

    An overlay file system cannot rename a folder of its lower layer. Then the file `proof`, which marks the folder as
    complete, is removed first.
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
    """Returns `name`, a relative path, if it cannot lead out of its folder; else raises Trouble (`bad-wheel`)."""
    if "\\" in name or "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise Trouble("bad-wheel", f"unsafe name in a wheel or request: {name!r}", "get the wheel again")
    return name


def read_json(path: Path) -> dict[str, Any] | None:
    """Returns the JSON object (key -> value) in a file; None if the file does not hold one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def same(path: Path, digest: str) -> bool:
    """Whether `path` is a file with this SHA-256."""
    try:
        return path.is_file() and sha256(path) == digest  # reading a pipe would block
    except OSError:
        return False


def write(path: Path, content: bytes) -> None:
    """Writes a file; its content is on the disk when this returns."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_tree(top: Path) -> None:
    """Flushes everything under `top` to the disk. One sync comes first: it makes the many fsyncs after it fast."""
    os.sync()
    for folder, _, names in os.walk(top):
        for path in (Path(folder), *(Path(folder, name) for name in names)):
            if not path.is_symlink():
                sync(path)


def sync(path: Path) -> None:
    """Flushes a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

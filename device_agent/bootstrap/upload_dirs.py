"""`claim`: makes the upload folder of one connection."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

from device_agent.bootstrap.files import PART, discard, listed, make_folder, remove_tree, safe
from device_agent.bootstrap.paths import VENVS, resolved

INCOMING = "incoming"  # in VENVS: INCOMING.PROCESS.START.TOKEN, the wheels that one connection sends
#: Seconds without data after which an open connection counts as broken.
SILENT = 30


def claim(request: dict[str, Any]) -> dict[str, Any]:
    """Makes an upload folder, or renames one whose connection ended or is silent; returns `{"place": its name}`."""
    root = resolved(request["root"])
    own = new_upload(root, connection())
    for path in sorted(filter(is_upload, listed(root / VENVS)), key=size_of, reverse=True):
        if path.is_dir() and not path.is_symlink() and (not busy(path) or silent(path)):
            try:
                path.rename(own)
                break
            except OSError:  # another connection was faster
                continue
    make_folder(own)
    require_links(own)
    return {"place": own.name}


def require_links(folder: Path) -> None:
    """Raises OSError if the file system of `folder` has no symbolic links, before anything is sent."""
    link = folder / f"link{PART}"
    remove_tree(link)
    link.symlink_to("x")
    link.unlink()


def connection() -> str:
    """Returns the id of the process that lives as long as the connection: $KNNKIT_CONNECTION, else the parent's id."""
    return os.environ.get("KNNKIT_CONNECTION") or str(os.getppid())


def new_upload(root: Path, process: int | str) -> Path:
    """Returns an unused path for the upload folder of `process`; its name has the process's id and start time."""
    return root / VENVS / f"{INCOMING}.{process}.{started(process)}.{os.urandom(4).hex()}"


def is_upload(path: Path) -> bool:
    """Whether `path` has the name of an upload folder."""
    return path.name.partition(".")[0] == INCOMING


def busy(upload: Path) -> bool:
    """Whether the connection in the upload folder's name still lives, and is not this one."""
    _, process, start, _ = (upload.name + "...").split(".")[:4]
    return process != connection() and start != "" and started(process) == start


def silent(upload: Path) -> bool:
    """Whether `upload` has only unfinished files, and nothing was written to it for `SILENT` seconds."""
    try:
        files = listed(upload)
        newest = max(path.stat().st_mtime for path in (upload, *files))
    except OSError:
        return False
    return all(path.name.endswith(PART) for path in files) and time.time() - newest >= SILENT


def started(process: int | str) -> str:
    """Returns the start time of a process, in clock ticks since the boot; "" if it does not run."""
    try:
        condition, *fields = Path("/proc", str(process), "stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if condition in "ZX" else fields[18]


def size_of(upload: Path) -> int:
    """Returns the total size of the files in a folder, in bytes."""
    return sum(path.lstat().st_size for path in listed(upload) if path.is_file())


def drop_upload(upload: Path) -> None:
    """Removes an upload folder that is not busy; renames it first, so that no new connection can reuse it."""
    if not busy(upload):
        discard(upload, upload.with_name("gone" + PART))


def take(root: Path, name: str) -> Path:
    """Renames the upload folder `name` for this process, which may outlive the connection; returns the new path.

    Removes the suffix `PART` of the files: with finished files, the folder is not `silent`, so it stays.
    """
    own = new_upload(root, os.getpid())
    with contextlib.suppress(FileNotFoundError):  # `gather` reports it if the wheels are needed
        (root / VENVS / safe(name)).rename(own)
    for path in listed(own):
        path.rename(path.with_name(path.name.removesuffix(PART)))
    return own

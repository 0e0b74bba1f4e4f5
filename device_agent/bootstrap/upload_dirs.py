"""`claim`: a place for the wheels that a connection sends, with what another has left there. Opens no wheel."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

from device_agent.bootstrap.files import PART, discard, listed, make_folder, safe
from device_agent.bootstrap.paths import VENVS, resolved

INCOMING = "incoming"  # in VENVS: INCOMING.PROCESS.START.TOKEN, wheels under way from one connection
#: Seconds after which a connection that is there, and sends nothing, is taken for one that broke without a word.
SILENT = 30


def claim(order: dict[str, Any]) -> dict[str, Any]:
    """Makes a place for what this connection sends, with what another has left: one that is gone, or silent."""
    root = resolved(order["root"])
    own = new_place(root, connection())
    for path in sorted(filter(is_place, listed(root / VENVS)), key=size_of, reverse=True):
        if path.is_dir() and not path.is_symlink() and (not busy(path) or silent(path)):
            try:
                path.rename(own)
                break
            except OSError:  # another was quicker
                continue
    make_folder(own)
    return {"place": own.name}


def connection() -> str:
    """The process that lives as long as the connection: the transport names it, or it has started this one."""
    return os.environ.get("KNNKIT_CONNECTION") or str(os.getppid())


def new_place(root: Path, process: int | str) -> Path:
    """A name that nobody has, and that says which process it belongs to, also after a restart of the board."""
    return root / VENVS / f"{INCOMING}.{process}.{started(process)}.{os.urandom(4).hex()}"


def is_place(path: Path) -> bool:
    """Whether it is one."""
    return path.name.partition(".")[0] == INCOMING


def busy(place: Path) -> bool:
    """Whether the process that it belongs to is there; not where that is this very connection's."""
    _, process, start, _ = (place.name + "...").split(".")[:4]
    return process != connection() and start != "" and started(process) == start


def silent(place: Path) -> bool:
    """Whether nothing has come for a while of what is still under way; files that have arrived are being used."""
    try:
        files = listed(place)
        newest = max(path.stat().st_mtime for path in (place, *files))
    except OSError:
        return False
    return all(path.name.endswith(PART) for path in files) and time.time() - newest >= SILENT


def started(process: int | str) -> str:
    """When a process started, as the kernel counts; "" when there is none."""
    try:
        condition, *fields = Path("/proc", str(process), "stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if condition in "ZX" else fields[18]


def size_of(place: Path) -> int:
    """The bytes that lie there."""
    return sum(path.lstat().st_size for path in listed(place) if path.is_file())


def drop_place(place: Path) -> None:
    """Removes one that nobody sends into; by another name, since a host that comes now may take it up."""
    if not busy(place):
        discard(place, place.with_name("gone" + PART))


def take(root: Path, name: str) -> Path:
    """Makes a place this very process's: it may outlive the connection, and nobody shall take its wheels then."""
    own = new_place(root, os.getpid())
    with contextlib.suppress(FileNotFoundError):  # said below, if the wheels are needed
        (root / VENVS / safe(name)).rename(own)
    return own

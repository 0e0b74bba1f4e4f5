"""`remove`: removes knnkit's root folder, never other files."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from device_agent.bootstrap.files import PART, listed, sync
from device_agent.bootstrap.lock import refuse_if_held
from device_agent.bootstrap.paths import LINK, LOCK, VENVS, Trouble, resolved

ASIDE = ".bad"  # the agent appends it to a damaged file's name
TEMPORARY = ".tmp"  # the agent writes `.NAME.tmp`, then renames it to NAME
LOST = "lost+found"  # made by the file system at a mount point


def remove(request: dict[str, Any]) -> dict[str, Any]:
    """Removes the request's root folder; returns `removed` (was it there?) and the paths `left`.

    Raises Trouble if a file's name is not in the request's `known` (`not-ours`), or a deploy runs (`locked`).
    """
    root = resolved(request["root"])
    gone = root.with_name(root.name + ".removed" + PART)
    left: list[str] = []
    clear(gone, left)
    if not root.is_dir():
        return answer(root, left, removed=False)
    own = [path for path in listed(root) if not (path.name == LOST and os.path.ismount(root))]
    others = sorted(path.name for path in own if own_name(path) not in request["known"])
    if others:
        message = f"{root} also holds {', '.join(others[:20])}; nothing was removed"
        raise Trouble("not-ours", message, "move those files away first")
    for path in (root / LOCK, root / VENVS):
        refuse_if_held(path)
    try:
        root.rename(gone)
        sync(root.parent)
    except OSError:  # a mount point, an overlay, or a read-only parent. The link to the agent is removed first
        for path in sorted(own, key=lambda path: path.name != LINK):
            clear(path, left)
        clear(root, left, only=True)
    clear(gone, left)
    link = Path(request["root"]).expanduser()
    if link.is_symlink():
        clear(link, left)
    return answer(root, left, removed=bool(own) or not root.is_dir())


def answer(root: Path, left: list[str], *, removed: bool) -> dict[str, Any]:
    """Returns a dict: `removed` (was it there?); if paths are left, `root` and `left` ("PATH: reason" each)."""
    return {"removed": removed, **({"root": str(root), "left": left} if left else {})}


def clear(path: Path, left: list[str], *, only: bool = False) -> None:
    """Removes a file, or a folder with its contents; with `only`, only an empty folder.

    Adds "PATH: reason" to `left` for each path that cannot be removed.
    """
    folder = not path.is_symlink() and path.is_dir()
    if folder and not only:
        with contextlib.suppress(OSError):
            path.chmod(0o700)
        with failing(path, left):
            for inside in listed(path):
                clear(inside, left)
    if os.path.lexists(path) and not any(line.startswith((f"{path}/", f"{path}:")) for line in left):
        with failing(path, left):
            path.rmdir() if folder else path.unlink()


@contextlib.contextmanager
def failing(path: Path, left: list[str]) -> Iterator[None]:
    """Runs a `with` block that removes `path`; if it raises OSError, adds "PATH: reason" to `left`."""
    try:
        yield
    except OSError as error:
        denied = f"the login user may not write {path.parent}"
        why = {errno.EBUSY: "it is a mount point", errno.EACCES: denied, errno.EPERM: denied}
        left.append(f"{path}: {why.get(error.errno or 0, error.strerror)}")


def own_name(path: Path) -> str:
    """Returns the name that the agent gave to a file first: `state.json` for `.state.json.tmp` and `state.json.bad`."""
    name = path.name
    if name.startswith(".") and name.endswith(TEMPORARY):  # the power failed before the agent renamed it
        return name[1 : -len(TEMPORARY)]
    return name.split(PART)[0].split(ASIDE)[0]

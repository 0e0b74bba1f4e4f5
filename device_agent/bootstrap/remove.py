"""`remove`: takes the root away by one rename; never what is not knnkit's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from device_agent.bootstrap.files import PART, listed, remove_tree, sync
from device_agent.bootstrap.lock import refuse_if_held
from device_agent.bootstrap.paths import LOCK, VENVS, Trouble, resolved

ASIDE = ".bad"  # what the agent adds to the name of a file that was in the way
TEMPORARY = ".tmp"  # likewise, with a dot before the name, of a file that it is writing


def remove(order: dict[str, Any]) -> dict[str, Any]:
    """Takes the root away; refuses one that holds something that is not knnkit's, or that is being changed."""
    root = resolved(order["root"])
    gone = root.with_name(root.name + ".removed" + PART)
    remove_tree(gone)
    if not root.is_dir():
        return {"removed": False}
    strangers = sorted(path.name for path in listed(root) if own_name(path) not in order["known"])
    if strangers:
        message = f"{root} also holds {', '.join(strangers[:5])}; nothing was removed"
        raise Trouble("not-ours", message, "move that away first")
    for path in (root / LOCK, root / VENVS):
        refuse_if_held(path)
    root.rename(gone)
    link = Path(order["root"]).expanduser()
    if link.is_symlink():
        link.unlink()
    sync(root.parent)
    remove_tree(gone)
    return {"removed": True}


def own_name(path: Path) -> str:
    """What a file would be called if it were neither half-written nor set aside by the agent."""
    name = path.name
    if name.startswith(".") and name.endswith(TEMPORARY):  # a power cut came before the agent renamed it
        return name[1 : -len(TEMPORARY)]
    return name.split(PART)[0].split(ASIDE)[0]

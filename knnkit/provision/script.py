"""The script that a board runs: the package `onboard` as one text. Same sources, same bytes. Runs nothing itself.

    python3 -I - COMMAND < script

First stands the loader as it is; then one call gives it every module, a line each, and the order: that may be longer
than a command line, of which Dropbear takes 9,000 bytes. What `knnkit` and
`knnkit.provision` import on the host is not on the board, and nothing there needs it: they are empty.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

_PACKAGE = "knnkit.provision.onboard"


def script(*order: str) -> bytes:
    """Returns what goes to the standard input of the board's Python; its last line has the order, as JSON."""
    return f"{_head()}\n{', '.join(map(repr, order))}))\n".encode()


@cache
def _head() -> str:
    sources = onboard()
    loader = sources.pop(f"{_PACKAGE}.loader")
    sources.update(dict.fromkeys(["knnkit", "knnkit.provision"], ""))
    table = json.dumps(sources, indent=0, sort_keys=True)  # for these, JSON is Python
    return f"{loader}\n\nsys.exit(run({table}, {_PACKAGE + '.main'!r},"


def onboard() -> dict[str, str]:
    """Returns module -> source of everything in the package."""
    files = {
        file.name: file.read_text(encoding="utf-8")
        for file in resources.files(_PACKAGE).iterdir()
        if file.name.endswith(".py")
    }
    return {f"{_PACKAGE}.{name[:-3]}".replace(".__init__", ""): text for name, text in files.items()}

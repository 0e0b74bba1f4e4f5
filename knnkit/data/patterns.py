"""Finds the files of a list of names and patterns."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from knnkit.errors import DataError


def expand(sources: Sequence[Path]) -> tuple[Path, ...]:
    """Returns the files of names and patterns (`data/*.csv`, `data/**/*.csv`): those of a pattern sorted, each once.

    Raises:
        DataError: a pattern fits no file.
    """
    found: dict[Path, None] = {}
    for source in sources:
        if source.exists() or not glob.has_magic(str(source)):
            found[source] = None
            continue
        names = glob.glob(str(source), recursive=True)  # noqa: PTH207 (the pattern may be absolute)
        paths = sorted(path for path in map(Path, names) if path.is_file())
        if not paths:
            raise DataError(f"{source}: no file fits this pattern", hint="patterns in deploy.yaml start at the file")
        found.update(dict.fromkeys(paths))
    return tuple(found)

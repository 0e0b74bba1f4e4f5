"""Finds the files of a list of names and patterns."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from knnkit.errors import FILE, DataError

#: A part of a pattern that names what stands there.
PART = re.compile(r"\{([A-Za-z_]\w*)\}")


def expand(sources: Sequence[Path]) -> tuple[Path, ...]:
    """Returns the files with these names or matching these patterns (`data/*.csv`), each once.

    The files of a pattern are sorted. `**/` matches any folders; a name in braces (`sounds/{word}/*.wav`) acts as `*`.

    Raises:
        DataError: a pattern matches no file.
    """
    found: dict[Path, None] = {}
    for source in sources:
        if not source.exists():
            source = Path(PART.sub("*", str(source)))
        if source.exists() or not glob.has_magic(str(source)):
            found[source] = None
            continue
        names = glob.glob(str(source), recursive=True)  # noqa: PTH207 (the pattern may be absolute)
        paths = sorted(path for path in map(Path, names) if path.is_file())
        if not paths:
            said = f"{source}: no file matches this pattern"
            raise DataError(said, hint="patterns are relative to deploy.yaml", key=FILE)
        found.update(dict.fromkeys(paths))
    return tuple(found)

"""Finds the files of a list of names and patterns."""

from __future__ import annotations

import glob
import itertools
import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from knnkit.errors import FILE, DataError

#: A part of a pattern that names what stands there.
PART = re.compile(r"\{([A-Za-z_]\w*)\}")

#: Most files that are looked at for a hint.
_MOST = 1000


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


def require_utf8(file: Path) -> None:
    """Checks that a file's name can be written into deploy.yaml and into a release.

    Raises:
        DataError: the name has a byte that is not UTF-8.
    """
    if any("\ud800" <= letter <= "\udfff" for letter in str(file)):
        raise DataError(f"{file}: the name is not UTF-8 text", hint="rename the file: mv OLD NEW", key=FILE)


def inside(folder: Path, suffixes: Collection[str]) -> str:
    """Returns a pattern for the files in a folder: those of the most frequent depth and suffix, of `suffixes` if any.

    Looks three folders deep, and at most at `_MOST` files; without any, the pattern is `FOLDER/*.csv`.
    """
    found = itertools.islice((path for depth in range(3) for path in folder.glob("*/" * depth + "*.*")), _MOST)
    files = [path for path in found if path.is_file() and not path.name.startswith(".")]
    files = [path for path in files if path.suffix.lower() in suffixes] or files
    counts = Counter((len(path.relative_to(folder).parts), path.suffix) for path in files)
    (depth, suffix), _ = (counts.most_common(1) or [((1, ".csv"), 0)])[0]
    return f"{folder}/{'*/' * (depth - 1)}*{suffix}"

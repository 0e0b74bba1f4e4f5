"""Finds the files of a list of names and patterns."""

from __future__ import annotations

import difflib
import glob
import itertools
import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from knnkit.errors import FILE, DataError, KnnkitError

#: A part of a pattern that names what stands there.
PART = re.compile(r"\{([A-Za-z_]\w*)\}")

#: Suffixes of tables of text, and of all tables.
TEXTS = (".csv", ".tsv", ".txt")
SUFFIXES = (*TEXTS, ".parquet", ".npz")
#: Most files that are looked at for a hint.
_MOST = 1000


def expand(sources: Sequence[Path], suffixes: Collection[str] = SUFFIXES) -> tuple[Path, ...]:
    """Returns the files that `sources` name, or match if they are patterns (`data/*.csv`), each once.

    The files of a pattern are sorted. `**/` matches any folders; a name in braces (`sounds/{word}/*.wav`) acts as `*`.
    If a name is that of a folder, the error's hint is a pattern for the files in it with one of `suffixes`.

    Raises:
        DataError: a pattern matches no file, or a name is that of a folder.
    """
    found: dict[str, Path] = {}
    for source in sources:
        if source.is_dir():
            raise is_folder(source, suffixes)
        folder, pattern = split(source)
        pattern = PART.sub("*", pattern)
        if source.exists() or not glob.has_magic(pattern):
            found.setdefault(place(source), source)
            continue
        names = glob.glob(str(Path(glob.escape(str(folder)), pattern)), recursive=True)  # noqa: PTH207 (may be "**")
        paths = sorted(path for path in map(Path, names) if path.is_file())
        if not paths:
            said = f"{source}: no file matches this pattern"
            raise DataError(said, hint="patterns are relative to the folder of deploy.yaml", key=FILE)
        for path in paths:
            found.setdefault(place(path), path)
    return tuple(found.values())


def place(path: Path) -> str:
    """Returns the absolute path: the same for all names of a file, except links."""
    return os.path.normpath(path.absolute())


def split(source: Path) -> tuple[Path, str]:
    """Splits a pattern; returns the deepest folder that exists (its name may have `[`), and the pattern after it."""
    folder = next((folder for folder in source.parents if folder.is_dir()), Path())
    return folder, str(source.relative_to(folder))


def require_utf8(file: Path) -> None:
    """Checks that a file's name can be written into deploy.yaml and into a release.

    Raises:
        DataError: the name has a byte that is not UTF-8.
    """
    if any("\ud800" <= letter <= "\udfff" for letter in str(file)):
        raise DataError(f"{file}: the name is not UTF-8 text", hint="rename the file: mv OLD NEW", key=FILE)


def nearest(file: Path, suffixes: Collection[str], other: str = "") -> str:
    """Returns a hint for a missing file: the most similar name in its folder with one of `suffixes`; else `other`.

    If `other` is "", the hint is where relative paths start.
    """
    if "$" in str(file):
        return "variables such as $HOME are not replaced; ~ is the home folder"
    try:
        names = [entry.name for entry in file.parent.iterdir() if entry.suffix.lower() in suffixes]
    except OSError:
        return f"the folder {file.parent} {'cannot be read' if file.parent.exists() else 'does not exist'}"
    here = "paths in deploy.yaml are relative to its folder, paths on the command line to the current folder"
    close = difflib.get_close_matches(file.name, names, n=1)
    return f"did you mean {close[0]}?" if close else other or here


def unreadable(
    path: Path, error: OSError, suffixes: Collection[str], kind: type[KnnkitError] = DataError
) -> KnnkitError:
    """Returns an error of class `kind`: `path` cannot be read; the hint has a similar name with one of `suffixes`."""
    if isinstance(error, FileNotFoundError):
        return kind(f"{path}: no such file", hint=nearest(path, suffixes), key=FILE)
    hint = "name a file in it, not the folder" if path.is_dir() else ""
    return kind(f"{path}: cannot be read: {error.strerror or error}", hint=hint, key=FILE)


def is_folder(path: Path, suffixes: Collection[str]) -> DataError:
    """Returns the error that `path` is a folder; its hint is a pattern for the files in it with one of `suffixes`."""
    from knnkit.data.bad_cells import quoted  # loads numpy, which commands that read no rows do without

    hint = f"files: {quoted(inside(path, suffixes))} names the files in it"
    return DataError(f"{path} is a folder, not a file", hint=hint, key=FILE)


def inside(folder: Path, suffixes: Collection[str]) -> str:
    """Returns the pattern, such as `FOLDER/*/*.wav`, that matches most of a folder's files with one of `suffixes`.

    If no file has one of these, it matches most of all files; in an empty folder it is `FOLDER/*.csv`. Looks three
    folders deep, and at `_MOST` files at most.
    """
    found = itertools.islice((path for depth in range(3) for path in folder.glob("*/" * depth + "*.*")), _MOST)
    files = [path for path in found if path.is_file() and not path.name.startswith(".")]
    files = [path for path in files if path.suffix.lower() in suffixes] or files
    counts = Counter((len(path.relative_to(folder).parts), path.suffix) for path in files)
    (depth, suffix), _ = (counts.most_common(1) or [((1, ".csv"), 0)])[0]
    return f"{folder}/{'*/' * (depth - 1)}*{suffix}"

"""Lists files of sounds, pictures and arrays with their labels.

The label of a file is its folder, a part of its path, or a cell of a table of paths. Does not open the listed files.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from device_agent.shared.embedding.decode import TO_PNG, TO_WAV
from device_agent.shared.embedding.files import IN_FOLDERS, left_out
from device_agent.shared.file_hints import with_file
from knnkit.data import listing
from knnkit.data.bad_cells import quoted
from knnkit.data.columns import find
from knnkit.data.dataset import Dataset, label_array
from knnkit.data.patterns import PART, SUFFIXES, expand, inside, place, split
from knnkit.errors import FILE, DataError

#: Parts of a pattern: {name}, a sign for any text, a set of characters such as [0-9] or [!a], or plain text.
_TOKEN = re.compile(rf"{PART.pattern}|(\*\*/|(?:^|(?<=/))\*\*$|\*|\?)|(\[!?\]?[^\]]*\])|([^{{*?[]+|.)")
#: Suffix of files that a model takes -> a hint for files of other kinds.
_CONVERSIONS = {".wav": TO_WAV, ".png": TO_PNG, ".npy": "in Python, numpy.save('FILE.npy', values)"}
_SIGNS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


@dataclass(frozen=True)
class RawFiles:
    """Files with labels."""

    paths: tuple[Path, ...]
    names: tuple[str, ...]  # their paths from a common folder
    labels: tuple[str, ...]
    groups: tuple[str, ...] | None  # None if `split` has none
    source: str
    others: str = ""  # about files of other kinds that a pattern matched; "" without any

    def dataset(self) -> Dataset:
        """Returns labelled rows with 0 features; stages compute the features from the files later.

        Raises:
            DataError: a label is not plain text.
        """
        groups = None if self.groups is None else np.array(self.groups)
        labels = label_array(list(self.labels), self.source)
        return Dataset(
            np.empty((len(self.paths), 0), np.float32), labels, (), self.source, groups, np.array(self.names)
        )


def are_raw(sources: Sequence[Path], path: str | None, takes_files: bool) -> bool:
    """Whether training data is in files of sounds, pictures or arrays, or in a table with their paths (key `path`).

    If the model `takes_files` of sounds or pictures, a pattern may match any files but tables.
    """
    kinds = {source.suffix.lower() for source in sources}
    return path is not None or kinds <= {*IN_FOLDERS} or (takes_files and not kinds.intersection(SUFFIXES))


def list_files(
    sources: Sequence[Path], label: str, path: str | None, group: str | None, suffixes: Sequence[str] = IN_FOLDERS
) -> RawFiles:
    """Returns the files that match patterns, or whose paths are in a table, with their labels.

    Args:
        sources: names and patterns of files; with `path`, one CSV file.
        label: name of the pattern's part (`{name}`), or of the column, with the label; without parts, the folder is
            the label.
        path: name of the CSV file's column with the paths; None: `sources` are patterns.
        group: name of the part or column with the group; None: no groups.
        suffixes: of the files that the model takes; other files that match a pattern are only counted.

    Raises:
        DataError: no file matches, or a part or column is missing.
    """
    if path is not None:
        return _of_table(sources[0], label, path, group)
    named = {place(file): (file, source) for source in sources for file in expand([source], suffixes)}
    matched = dict(named.values())
    found = [(file, _parts(file, of, label)) for file, of in matched.items() if file.suffix.lower() in suffixes]
    paths = tuple(file for file, _ in found)
    others = left_out(file.name for file in matched if file.suffix.lower() not in suffixes)
    if not paths:
        near = inside(split(sources[0])[0], suffixes)
        hint = f"files: {quoted(near)}"
        if not near.lower().endswith(tuple(suffixes)):  # there are none
            hint = with_file(next(how for kind, how in _CONVERSIONS.items() if kind in suffixes), min(matched))
        raise DataError(f"{sources[0]}: no {', '.join(suffixes)} file; {others}", hint=hint, key=FILE)
    groups = None if group is None else tuple(_part(parts, group, sources[0], "split") for _, parts in found)
    labels = tuple(_part(parts, label, sources[0], "label") for _, parts in found)
    return RawFiles(paths, relative_names(paths), labels, groups, str(sources[0]), others)


def _parts(file: Path, source: Path, label: str) -> dict[str, str]:
    """Returns name -> part of the path for each `{name}` in the pattern `source`; without any: {label: its folder}."""
    folder, rest = split(source)
    if not PART.search(rest):
        return {label: file.parent.name}
    pattern = ""
    for name, sign, signs, text in _TOKEN.findall(rest):
        if name:
            pattern += f"(?P={name})" if f"(?P<{name}>" in pattern else f"(?P<{name}>[^/]+)"
        elif signs:
            pattern += fnmatch.translate(signs).removeprefix("(?s:").rpartition(")")[0]
        else:
            pattern += _SIGNS.get(sign) or re.escape(text)
    fits = re.fullmatch(pattern, str(file.relative_to(folder)))
    if fits is None:
        hint = "each {name} stands for a part of one folder or file name; if it occurs twice, for the same text"
        raise DataError(f"{file} does not fit the pattern {source}", hint=hint)
    return fits.groupdict()


def _part(parts: dict[str, str], name: str, source: Path, key: str) -> str:
    if name not in parts:
        known = ", ".join(sorted(parts))
        said = f"{source}: {key} names {name!r}, and the pattern has {known}"
        near = difflib.get_close_matches(name, parts, n=1, cutoff=0.0)[0]
        hint = f"split: {{group: {near}}}" if key == "split" else f"label: {near}"
        raise DataError(said, hint=hint, key=key if key == "split" else f"data/{key}")
    return parts[name]


def _of_table(file: Path, label: str, path: str, group: str | None) -> RawFiles:
    header, table = listing.read(file, [name for name in (path, label, group) if name])
    places = {
        key: find(header, name, file, key) for key, name in (("path", path), ("label", label), ("split", group)) if name
    }
    for line, row in table:
        if not (file.parent / row[places["path"]]).is_file():
            said = f"{file}, line {line}: {file.parent / row[places['path']]}: no such file"
            raise DataError(said, hint=f"paths are relative to the folder of {file.name}")
    rows = [row for _, row in table]
    paths = tuple(file.parent / row[places["path"]] for row in rows)
    groups = tuple(row[places["split"]] for row in rows) if group else None
    return RawFiles(paths, relative_names(paths), tuple(row[places["label"]] for row in rows), groups, str(file))


def relative_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """Returns the paths, relative to the deepest folder that contains them all."""
    paths = [path.absolute() for path in paths]
    common = max(set.intersection(*(set(path.parents) for path in paths)), key=lambda folder: len(folder.parts))
    return tuple(path.relative_to(common).as_posix().encode("utf-8", "replace").decode() for path in paths)

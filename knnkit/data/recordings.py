"""Cuts labelled windows from recordings.

A recording is a CSV file, or all lines of a CSV file with the same recording name. The device's code cuts the windows,
so a board cuts a stream in the same way. Bad lines are counted, and no window contains one. A window whose samples have
different labels, or none, is left out of training. Never puts samples of two recordings into one window.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.features.categories import key_of
from device_agent.shared.file_hints import with_file
from device_agent.shared.protocol.constants import counted
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.input_info import Window
from device_agent.shared.tabular.csv_dialect import short
from device_agent.shared.tabular.reader import Parsed
from device_agent.shared.windows.window_parser import WindowParser
from knnkit.data import listing, precision
from knnkit.data.csv_file import open_text, text_blocks
from knnkit.data.dataset import Dataset, label_array, require_label
from knnkit.data.patterns import TEXTS, expand, require_utf8, unreadable
from knnkit.data.raw_files import relative_names
from knnkit.errors import FILE, DataError

#: Parts of the names of columns of times.
_TIMES = ("time", "stamp", "date", "second")
#: Bad lines and broken windows of one message.
_SHOWN = 3
FOLDER = "folder"
_FILE = "file"


@dataclass(frozen=True)
class Labels:
    """Where the label of a window comes from."""

    column: str  # name of the label column
    #: "folder": the folder of a file is its label. A path: this CSV file has the column `file` and the label column.
    #: None: the recordings have the label column.
    by_file: Path | str | None = None


@dataclass(frozen=True)
class Cut:
    """Windows of recordings as rows, messages about data that is not used, and a line that counts the windows."""

    windows: Dataset
    warnings: tuple[str, ...]
    counts: str


@dataclass(frozen=True)
class _Samples:
    """The samples of one file, and its windows."""

    lines: list[int]  # line number of each sample
    cells: dict[str, list[str]]  # column to keep -> its text
    rows: NDArray[np.float64]  # the windows
    last: NDArray[np.int64]  # index of each window's last sample
    bad: int = 0  # lines that cannot be read
    jumps: int = 0  # steps of time that no window spans
    step: float = 0.0  # usual step of time


@dataclass(frozen=True)
class _Windows:
    """Windows of one file."""

    rows: NDArray[np.float64]
    labels: list[str]
    names: list[str]  # recordings
    groups: list[str]
    ids: list[str]  # file and lines of each window: `walks/1.csv 2-129`
    mixed: int  # windows with two labels or none, which are left out
    bad: int  # lines that cannot be read
    jumps: int  # steps of time that no window spans
    step: float  # usual step of time


def load(sources: Sequence[Path], window: Window, labels: Labels, group: str | None = None) -> Cut:
    """Returns the windows of all recordings in the files as rows, whose features are `window.feature_names`.

    `Dataset.beside` holds each window's cell in the column `group`, or its recording if `group` is None; `Dataset.ids`
    holds its file, from the folder that contains all files, and its line numbers.

    Raises:
        DataError: a file or column is missing, a recording has two groups, or no window is complete.
    """
    paths = expand(sources)
    own = _labels_of(labels, paths)
    warnings: list[str] = []
    files = zip(paths, relative_names(paths))
    found = [_cut(path, name, window, labels.column, own.get(path), group, warnings) for path, name in files]
    source = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    if mixed := sum(each.mixed for each in found):
        warnings.append(f"{source}: {mixed:,} windows with samples of two labels, or without a label, are left out")
    all_labels, names, groups, ids = (
        [text for each in found for text in getattr(each, key)] for key in ("labels", "names", "groups", "ids")
    )
    if not all_labels:
        said = f"{source}: no window of {window.rows} samples with one label is complete"
        raise DataError("\n".join([*warnings[:_SHOWN], said]), hint=_without_windows(found, window))
    for path, cut in zip(paths, found):
        _require_one_group(cut.names, cut.groups, str(path))
    rows = precision.float32_if_enough(np.concatenate([each.rows for each in found]))
    beside, each = (np.array(groups), np.array(ids)), Counter(names).values()
    counts = f"{len(names):,} windows of {counted(len(each), 'recording')}, {min(each):,} to {max(each):,} of each"
    made = Dataset(rows, label_array(all_labels, source), window.feature_names, source, *beside)
    return Cut(made, tuple(warnings), counts)


def _cut(
    path: Path, file: str, window: Window, label: str, own: str | None, group: str | None, warnings: list[str]
) -> _Windows:
    """Cuts the windows of one file; adds bad lines and gaps to `warnings`.

    `file` is the file's name in ids. `own` is the label of all its samples; None: the column `label` has their labels.
    `group` is the column with their groups; None: each recording is a group.
    """
    columns = (None if own is not None else label, window.recording, group)
    keep = list(dict.fromkeys(name for name in columns if name is not None))
    found = _read(path, window, keep, warnings)
    count, last = len(found.lines), found.last

    def column(name: str | None, other: str) -> NDArray[Any]:
        return np.array([other] * count if name is None else found.cells[name])

    labels, names = column(columns[0], own or ""), column(window.recording, str(path))
    changes = np.cumsum(np.append(True, labels[1:] != labels[:-1])[:count])
    pure = (changes[last] == changes[last - window.rows + 1]) & (labels[last] != "")
    last, groups = last[pure], column(group, "") if group else names
    ids = [f"{file} {found.lines[end - window.rows + 1]}-{found.lines[end]}" for end in last.tolist()]
    for place in last[np.unique(labels[last], return_index=True)[1]].tolist():
        require_label(str(labels[place]), f"{path}, line {found.lines[place]}")
    texts = [values[last].tolist() for values in (labels, names, groups)]
    broken = int((~pure).sum()), found.bad, found.jumps, found.step
    return _Windows(found.rows[pure], texts[0], texts[1], texts[2], ids, *broken)


def _read(path: Path, window: Window, keep: Sequence[str], warnings: list[str]) -> _Samples:
    """Reads one file, with the columns `keep` as text; adds to `warnings` bad lines, gaps, and a lack of windows."""
    parser = WindowParser(window, "csv", ignore_extra=True, keep=keep)
    found = _Samples([], {name: [] for name in keep}, np.empty((0, window.size)), np.empty(0, np.int64))
    rows, places, bad = [found.rows], [found.last], list[tuple[int, str]]()
    for samples in _samples(path, window, parser, keep):
        bad += samples.errors.values()
        if len(samples.rows):
            for name, values in zip(keep, samples.kept):
                found.cells[name].extend(values)
            names = found.cells[window.recording][len(found.lines) :] if window.recording else None
            cut = parser.cut(samples.rows, samples.lines, names)
            rows.append(cut.rows)
            places.append(np.array(cut.ends, np.int64) + len(found.lines))
            found.lines.extend(samples.lines)
    warnings += [f"{path}, line {number}: {said}" for number, said in bad[:_SHOWN]]
    if gaps := parser.gaps.describe():
        warnings.append(f"{path}: {gaps}")
    if not any(map(len, places)):
        warnings.append(f"{path}: no window of {window.rows} samples is complete: it has {len(found.lines):,} samples")
    joined = np.concatenate(rows), np.concatenate(places)
    return _Samples(found.lines, found.cells, *joined, len(bad), parser.gaps.times, parser.gaps.step)


def _without_windows(found: Sequence[_Windows], window: Window) -> str:
    usual = "lower `rows` of `window`, or add samples"
    if sum(each.jumps for each in found):
        step = float(np.median([each.step for each in found]))
        if window.gap is not None and step > window.gap:
            return f"the usual step of {window.time} is {step:g}: gap: {1.5 * step:g}"
        said = f"`gap: {window.gap:g}` of `window` is the longest step of {window.time}"
        return f"{said}: give a longer one if samples are so far apart; or {usual}"
    return f"correct these lines, or name other `columns`; or {usual}" if any(each.bad for each in found) else usual


def _other_time(header: str) -> str:
    """Returns a hint for a key `time` of `window` that names no column; `header` is the header line of the file."""
    words = re.findall(r"[^,;\t']+", header)
    own = next(
        (word for name in _TIMES for word in words if name in word.casefold()), "t" if "t" in words else "COLUMN"
    )
    return f"time: {own.strip()} in `window`; the header is {header}"


def _samples(path: Path, window: Window, parser: WindowParser, keep: Sequence[str]) -> Iterator[Parsed]:
    require_utf8(path)
    if path.suffix.lower() not in TEXTS:
        hint = "export it as CSV, a line for each sample"
        raise DataError(f"{path}: a recording is a CSV file", hint=hint, key=FILE)
    try:
        with open_text(path) as stream:
            for block in text_blocks(stream):
                yield from map(parser.read, parser.blocks(block))
    except BadInput as error:
        names = ", ".join(keep)
        hint = f"`columns` of `window` names the numbers{f'; also needed here: {names}' if names else ''}"
        if "the header has no column" in str(error):
            first = _first_line(path)
            hint += f"; the header is {first}"
            if window.time and f"column {window.time!r}" in str(error):
                raise DataError(f"{path}: {error!s}", hint=_other_time(first), key="input/window/time") from None
            if FOLDER in keep:
                hint = f"labels: {FOLDER} in place of label: {FOLDER}"
        if "FILE" in error.hint:  # the file is not CSV
            hint = with_file(error.hint, path)
        raise DataError(f"{path}: {error!s}", hint=hint) from None
    except OSError as error:
        raise unreadable(path, error, TEXTS) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not {error.encoding.upper()} text", hint="save it as CSV (UTF-8)") from None


def _first_line(path: Path) -> str:
    with open_text(path) as stream:
        line = next(text_blocks(stream), b"").partition(b"\n")[0]
    return short(line.decode("utf-8", "replace").removeprefix("\ufeff"))


def _labels_of(labels: Labels, paths: Sequence[Path]) -> dict[Path, str]:
    """Returns file -> label, from its folder or the CSV file of labels; {} if the recordings have a label column."""
    if labels.by_file is None:
        return {}
    if labels.by_file == FOLDER:
        return {path: path.absolute().parent.name for path in paths}
    listed = Path(labels.by_file)
    header, lines = listing.read(listed, (_FILE, labels.column))
    lacking = next((name for name in (_FILE, labels.column) if name not in header), None)
    if lacking is not None:
        said = f"{listed}: no column {lacking!r}; there are {', '.join(header)}"
        raise DataError(said, hint=f"a file with the labels of recordings begins with the line {_FILE},{labels.column}")
    at, of = header.index(labels.column), header.index(_FILE)
    found: dict[Path, str] = {}
    for number, line in lines:
        first = found.setdefault((listed.parent / line[of]).resolve(), line[at])
        if first != line[at]:
            said = f"{listed}, line {number}: {line[of]} has the label {line[at]!r}, and {first!r} in a line above"
            raise DataError(said, hint="leave one of the two lines out")
    lost = next((path for path in paths if not found.get(path.resolve())), None)
    if lost is not None:
        hint = f"add a line to {listed}; paths in it are relative to {listed.parent}"
        raise DataError(f"{listed}: there is no label for {lost}", hint=hint)
    return {path: found[path.resolve()] for path in paths}


def _require_one_group(names: Sequence[str], groups: Sequence[str], source: str) -> None:
    """Raises DataError if windows of one recording (`names`) are in two `groups`: a split would then divide it."""
    seen: dict[str, str] = {}
    for name, group in zip(names, groups):
        if key_of(seen.setdefault(name, group)) != key_of(group):
            said = f"{source}: the recording {name!r} has windows of two groups, {seen[name]!r} and {group!r}"
            raise DataError(said, hint="split: {group: COLUMN} by a column that is the same in a whole recording")

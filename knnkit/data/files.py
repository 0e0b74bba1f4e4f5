"""Reader of labelled rows from CSV, Parquet and NPZ files.

Every error names the file, the line or row, and the column, and what was found there. Never fills a cell, never drops a
row, never unpickles, and never unpacks an archive that does not fit the machine.
"""

from __future__ import annotations

import math
import os
import shlex
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.queries import default_names
from device_agent.shared.release import zip_limits
from device_agent.shared.safe_files import open_ordinary
from knnkit.data import arrow_table, precision
from knnkit.data.bad_cells import quoted
from knnkit.data.columns import NO_FEATURE, NO_ID, Wanted, choose, find
from knnkit.data.csv_file import load_csv
from knnkit.data.dataset import Dataset, dataset, label_array
from knnkit.data.patterns import SUFFIXES, expand, inside, nearest, require_utf8, unreadable
from knnkit.data.policy import PLAIN, Policy, sorted_levels
from knnkit.errors import FILE, DataError, needs

_SHEETS = (".xlsx", ".xls", ".ods")
#: Suffix of a compressed file -> command that unpacks it; suffix of another table -> what of pandas reads it.
_PACKED = {".gz": "gzip -dk", ".bz2": "bzip2 -dk", ".xz": "xz -dk", ".zst": "zstd -d"}
_PANDAS = {
    **dict.fromkeys((".jsonl", ".ndjson"), "read_json({!r}, lines=True)"),
    **dict.fromkeys((".feather", ".arrow"), "read_feather({!r})"),
    ".json": "read_json({!r})",
}

#: Most members of an archive, and most bytes of its directory.
_MAX_MEMBERS, _MAX_DIRECTORY = 65_535, 16 * 1024 * 1024
#: All exceptions of numpy, zipfile and skops for a broken archive, or one that is too large for the memory.
BROKEN = (*zip_limits.BROKEN, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError, SyntaxError)


def load(
    path: str | Path, label: str, features: Sequence[str] | None = None, policy: Policy = PLAIN, *, wide: bool = False
) -> Dataset:
    """Reads the labelled rows of a `.csv`, `.tsv`, `.txt`, `.parquet` or `.npz` file.

    In a text or Parquet file `label` is a column, and every other column is a feature. In an NPZ file `label` is an
    array (n,), and the features are the only two-dimensional array, or, without one, every other array as a column.
    `features` names the features instead, also by patterns (`acc_*`); other columns of a text or Parquet file are then
    not read. `policy` says how cells are read; `wide` keeps float64 even if float32 holds all rows exactly.

    Raises:
        DataError: the file or a column is missing, or a cell is not a finite number; the message counts all such cells.
    """
    return _load(Path(path), Wanted(label, features, policy=policy, wide=wide))


def _load(file: Path, wanted: Wanted) -> Dataset:
    require_utf8(file)
    if file.is_dir():
        raise DataError(
            f"{file} is a folder, not a file", hint=f"name one of its files, {inside(file, SUFFIXES)}", key=FILE
        )
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        hint = "export it as CSV" if suffix in _SHEETS else f"give it as {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        if suffix in _PACKED and file.with_suffix("").suffix.lower() in SUFFIXES:
            hint = f"{_PACKED[suffix]} {shlex.quote(str(file))}, and name {file.stem}"
        elif suffix in _PANDAS:
            code = f"import pandas; pandas.{_PANDAS[suffix].format(str(file))}"
            code += f".to_parquet({file.stem + '.parquet'!r}, index=False)"
            hint = f"python -c {shlex.quote(code)}"
        said = f"{file}: the format of {suffix or 'a file without suffix'} is not supported"
        raise DataError(said, hint=hint, key=FILE)
    if not file.is_file():
        if file.exists():
            hint = f"write what it gives into a file: cat {shlex.quote(str(file))} > rows{suffix}"
            raise DataError(f"{file}: not an ordinary file", hint=hint, key=FILE)
        raise DataError(f"{file}: no such file", hint=nearest(file, SUFFIXES), key=FILE)
    try:
        if suffix == ".npz":
            return _load_npz(file, wanted)
        return _load_parquet(file, wanted) if suffix == ".parquet" else load_csv(file, wanted)
    except OSError as error:
        raise unreadable(file, error, SUFFIXES) from None
    except MemoryError:
        raise DataError(f"{file}: not enough memory to read it", hint="give fewer rows, or fewer columns") from None


def load_all(sources: Sequence[Path], wanted: Wanted) -> Dataset:
    """Reads the labelled rows of files and patterns (`data/*.csv`), one after the other.

    The columns are those of the first file; a later file may have more, such as those that `promote` adds.

    Raises:
        DataError: a file or column is missing, a cell is not a finite number, a file lacks a column of the first file,
            or no file has the id column.
    """
    paths, policy, wide = expand(sources), wanted.policy, wanted.wide
    if len(paths) == 1:
        return _load(paths[0], wanted)
    lacking: list[DataError] = []

    def read(path: Path, wanted: Wanted) -> Dataset:
        """Reads one of several files; if it lacks the id column, its rows get the id ""."""
        try:
            return _load(path, wanted)
        except DataError as error:
            if error.reason == NO_FEATURE and path != paths[0]:
                name = quoted(error.key.removeprefix("data/features/"))
                error.hint = f"give it the columns of {paths[0].name}, or leave the column out: drop: [{name}]"
            if error.reason != NO_ID:
                raise
            lacking.append(error)
        found = _load(path, replace(wanted, ids=None))
        return replace(found, ids=np.full(len(found.rows), ""))

    wanted = replace(wanted, wide=True)
    first = read(paths[0], wanted)
    named = policy.with_text(first.text_columns)
    own = first.feature_names[: len(first.feature_names) - len(policy.targets)]  # the targets come last
    wanted = replace(wanted, features=own, policy=replace(named, drop=()))
    others = [read(path, wanted) for path in paths[1:]]
    if len(lacking) == len(paths):
        raise lacking[0]
    return _joined([first, *others], named, f"{paths[0]} and {len(others)} more", wide=wide)


def _joined(parts: Sequence[Dataset], policy: Policy, source: str, *, wide: bool = False) -> Dataset:
    """Joins the rows of files with the same columns, in order; a category gets the same code in all files."""
    first = parts[0]
    levels = {
        place: tuple(dict.fromkeys(text for part in parts for text in (part.levels or {})[place]))
        for place in first.levels or ()  # all parts have the same columns of categories
    }
    tables = [part.rows.copy() for part in parts]
    for table, part in zip(tables, parts):
        for place, texts in levels.items():
            codes = np.array([texts.index(text) for text in (part.levels or {})[place]] or [0], table.dtype)
            there = ~np.isnan(table[:, place])
            table[there, place] = codes[table[there, place].astype(int)]
    rows: NDArray[np.floating[Any]] = np.concatenate(tables)
    levels = sorted_levels(rows, levels, policy, first.feature_names)
    kept = ([getattr(part, key) for part in parts] for key in ("beside", "ids"))
    beside, ids = (None if column[0] is None else np.concatenate(column) for column in kept)
    columns = zip(*((part.labels, *part.more_labels) for part in parts))
    labels, *more = (label_array([text for part in column for text in part.tolist()], source) for column in columns)
    if policy.is_plain and not wide:
        rows = precision.float32_if_enough(rows)
    files = np.repeat(np.arange(len(parts)), [len(part.rows) for part in parts])
    how: dict[str, Any] = {"levels": levels or None, "files": files, "more_labels": tuple(more)}
    how["missing_words"] = frozenset[str]().union(*(part.missing_words for part in parts))
    if all(part.lines is not None for part in parts):
        how["lines"] = np.concatenate([part.lines for part in parts if part.lines is not None])
    how["file_names"] = tuple(part.source for part in parts)
    return Dataset(rows, labels, first.feature_names, source, beside, ids, **how)


def _load_parquet(file: Path, wanted: Wanted) -> Dataset:
    with needs("reading Parquet needs pyarrow"):
        import pyarrow.parquet
    try:
        with pyarrow.parquet.ParquetFile(file) as opened:
            return arrow_table.load(opened.schema_arrow, opened.read, file, wanted)
    except pyarrow.ArrowException as error:
        hint = "write it with pyarrow.parquet or pandas.to_parquet; CSV needs the suffix .csv"
        raise DataError(f"{file}: not a Parquet file: {error}", hint=hint, key=FILE) from None


def _load_npz(file: Path, wanted: Wanted) -> Dataset:
    try:
        strange = next((name for name in members_that_fit(file) if not name.endswith(".npy")), None)
        if strange is not None:
            raise ValueError(f"{strange!r} is not an array")
        with np.load(file, allow_pickle=False) as archived:
            arrays = {name: archived[name] for name in archived.files}
    except BROKEN as error:
        said, hint = str(error) or type(error).__name__, "numpy.savez(FILE, rows=rows, labels=labels) writes one"
        if "allow_pickle" in said:  # such as text from pandas; loading it could run a stranger's code
            said, hint = "it holds Python objects", "np.savez(..., labels=labels.astype(str)) writes text"
        raise DataError(f"{file}: not an NPZ file of plain arrays: {said}", hint=hint) from None
    label, policy = wanted.label, wanted.policy
    own = policy.targets or (label, *policy.labels)
    for each in own:
        find(list(arrays), each, file, "target" if policy.targets else "label")
    labels, *further = answers = [arrays.pop(name) for name in own]
    odd = [name for name, array in zip(own, answers) if array.shape != labels.shape]
    if odd or not labels.ndim:
        said = f"{odd[0]!r} has another shape than {own[0]!r}" if odd else f"{own[0]!r} is one value, not an array"
        raise DataError(f"{file}: {said}", hint="one cell for each row")
    names, keys = arrays.pop("feature_names", None), wanted.texts
    texts = [None if name is None else _text(arrays, name, len(labels), file, key) for key, name in keys.items()]
    for name in set(keys.values()) - {None, *(wanted.features or ())}:
        arrays.pop(str(name), None)
    tables = [name for name, array in arrays.items() if array.ndim >= 2]
    if len(tables) == 1:
        rows: Any = arrays[tables[0]]
        rows = rows.reshape(len(rows), math.prod(rows.shape[1:]))  # an image is a row of its pixels
        header = default_names(rows.shape[1]) if names is None else tuple(map(str, names.ravel().tolist()))
    elif tables or not arrays or any(array.ndim != 1 or len(array) != len(labels) for array in arrays.values()):
        found = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "nothing"
        one = tables[0] if tables else "rows"
        code = f"import numpy as np; f = np.load({str(file)!r}); "
        code += f"np.savez({file.stem + '-clean.npz'!r}, {one}=f[{one!r}], {label}=f[{label!r}])"
        said = f"{file}: expected one array of rows in addition to {label!r}, found {found}"
        raise DataError(said, hint=f"python -c {shlex.quote(code)}" if tables else "an array of shape (rows, features)")
    else:
        rows, header = np.column_stack(list(arrays.values())), tuple(arrays)
    if len(header) == rows.shape[1] and (wanted.features is not None or policy.drop or not policy.is_plain):
        _, chosen = choose([*header, *own], wanted, file)  # `arrays` no longer has the labels
        rows, header = rows[:, chosen], tuple(header[place] for place in chosen)
    for what, array in (("features", rows), *(("targets", array) for array in answers if policy.targets)):
        if not (np.issubdtype(array.dtype, np.number) or array.dtype == bool) or np.iscomplexobj(array):
            hint = "an array of numbers" if tables or array.dtype.kind not in "US" else _as_parquet(file)
            raise DataError(f"{file}: the {what} hold {array.dtype}, not numbers", hint=hint)
    if policy.categories and not isinstance(policy.categories, str):
        hint = "give the rows as CSV or Parquet" if tables else _as_parquet(file)
        raise DataError(f"{file}: the arrays of an NPZ file hold numbers, and no categories", hint=hint)
    if policy.targets and labels.shape == rows.shape[:1]:
        rows, header = np.column_stack([rows, *answers]), (*header, *own)
    made = dataset(rows, labels, header, str(file), policy, wide=wanted.wide)
    more = () if policy.targets else tuple(label_array(array.tolist(), str(file)) for array in further)
    return replace(made, beside=texts[0], ids=texts[1], more_labels=more)


def _as_parquet(file: Path) -> str:
    """Returns a command that writes the arrays of an NPZ file, all of one dimension, as columns of a Parquet file."""
    code = f"import numpy, pandas; rows = pandas.DataFrame(dict(numpy.load({str(file)!r}))); "
    code += f"rows.to_parquet({file.stem + '.parquet'!r}, index=False)"
    return f"python -c {shlex.quote(code)}"


def _text(arrays: dict[str, NDArray[Any]], name: str, count: int, file: Path, key: str) -> NDArray[Any]:
    find(list(arrays), name, file, key)
    if arrays[name].shape != (count,):
        said = f"{file}: {name!r} has shape {arrays[name].shape}, but there are {count} labels"
        raise DataError(said, hint="one cell for each label")
    return arrays[name].astype(str)


def members_that_fit(file: Path, **limits: int) -> list[str]:
    """Returns the names of a zip archive's members, after checking that their unpacked sizes fit into the memory.

    Args:
        file: the archive.
        limits: name of a member, with `_` for `.` (`schema_json`) -> its largest unpacked size in bytes. Only
            the memory limits other members.

    Raises:
        ValueError: there are too many members, or they are too large.
    """
    with open_ordinary(file, follow=True) as opened:
        zip_limits.require_small(opened, entries=_MAX_MEMBERS, directory=_MAX_DIRECTORY)
        with zipfile.ZipFile(opened) as members:
            entries = members.infolist()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > memory:
        raise ValueError(f"it unpacks to {unpacked:,} bytes; this machine has {memory:,} bytes of memory")
    for entry in entries:
        limit = limits.get(entry.filename.replace(".", "_"), unpacked)
        if entry.file_size > limit:
            raise ValueError(f"{entry.filename} has {entry.file_size:,} bytes; at most {limit:,} are read")
    return [entry.filename for entry in entries]

"""Labelled rows from a CSV, Parquet or NPZ file.

Every complaint names the file, the line or row, and the column, and what was found there.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knnkit.errors import DataError, MissingDependency
from knnkit.model.dataset import Dataset, dataset, label_array, require_distinct

SUFFIXES = (".csv", ".tsv", ".parquet", ".npz")


def load(path: str | Path, label: str, features: Sequence[str] | None = None) -> Dataset:
    """Reads the labelled rows of a `.csv`, `.tsv`, `.parquet` or `.npz` file.

    In a CSV or Parquet file `label` is a column and every other column a feature. In an NPZ file `label` is an array
    (n,), and the features are the one two-dimensional array, or, without one, every other array as a column.
    `features` names the columns to use, in that order; other columns of a CSV or Parquet file may then hold anything.

    Raises:
        DataError: there is no such file or column, or a cell is not a finite number.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{file}: cannot tell what {suffix or 'no suffix'} is", hint=f"one of {', '.join(SUFFIXES)}")
    if not file.is_file():
        raise DataError(f"{file}: no such file", hint=_nearest_file(file))
    try:
        if suffix == ".npz":
            return _load_npz(file, label, features)
        if suffix == ".parquet":
            return _load_parquet(file, label, features)
        return _load_csv(file, label, features, "\t" if suffix == ".tsv" else ",")
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from None


def _load_csv(file: Path, label: str, features: Sequence[str] | None, delimiter: str) -> Dataset:
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, delimiter=delimiter, strict=True)
            header = [name.strip() for name in next(reader, [])]
            if not header:
                raise DataError(f"{file}: the file is empty", hint="line 1 names the columns, the others are rows")
            require_distinct(header, f"{file}, line 1")
            at, chosen = _choose(header, label, features, file)
            rows, labels = _read_cells(reader, header, at, chosen, file)
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: not a CSV line: {error}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from None
    if not rows:
        raise DataError(f"{file}: there is a header, and no rows", hint="each line after the header is a row")
    names = tuple(header[column] for column in chosen)
    return Dataset(np.array(rows, dtype=np.float32), label_array(labels, str(file)), names, str(file))


def _read_cells(
    reader: Any, header: list[str], at: int, chosen: list[int], file: Path
) -> tuple[list[NDArray[np.float32]], list[str]]:
    rows, labels = [], []
    for cells in reader:
        if not cells:
            continue
        where = f"{file}, line {reader.line_num}"
        if len(cells) != len(header):
            raise DataError(f"{where}: {len(cells)} cells, but the header has {len(header)}")
        label = cells[at].strip()
        if not label:
            raise DataError(f"{where}: the label ({header[at]!r}) is empty")
        labels.append(label)
        rows.append(_numbers([cells[column] for column in chosen], [header[column] for column in chosen], where))
    return rows, labels


def _numbers(cells: list[str], names: list[str], where: str) -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):
            row = np.array([float(cell) for cell in cells], dtype=np.float32)
    except ValueError:
        row = np.full(len(cells), np.nan, dtype=np.float32)
    if np.isfinite(row).all():
        return row
    for name, cell in zip(names, cells):
        _require_number(cell, f"{where}, column {name!r}")
    return row


def _require_number(cell: str, where: str) -> None:
    try:
        with np.errstate(over="ignore"):
            value = np.float32(float(cell))
    except ValueError:
        if not cell.strip():
            raise DataError(f"{where}: the cell is empty", hint="drop the row, or fill the cell") from None
        hint = "every column but the label is a feature, unless features: names them"
        raise DataError(f"{where}: {cell!r} is not a number", hint=hint) from None
    if not np.isfinite(value):
        raise DataError(f"{where}: {cell} is not a finite float32 number", hint="drop the row, or fill the cell")


def _load_parquet(file: Path, label: str, features: Sequence[str] | None) -> Dataset:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependency(f"reading Parquet needs pyarrow: {error}", hint="pip install 'knnkit[build]'") from None
    try:
        table = pyarrow.parquet.read_table(file)
    except pyarrow.ArrowException as error:
        raise DataError(f"{file}: not a Parquet file: {error}") from None
    header = list(table.column_names)
    require_distinct(header, str(file))
    names = [header[column] for column in _choose(header, label, features, file)[1]]
    columns = []
    for name in names:
        column = table.column(name)
        kind = column.type
        if not (pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) or pyarrow.types.is_boolean(kind)):
            raise DataError(f"{file}, column {name!r}: it holds {kind}, not numbers", hint="drop or encode the column")
        if column.null_count:
            row = column.is_null().to_pylist().index(True)
            hint = "drop the row, or fill the cell"
            raise DataError(f"{file}, row {row}, column {name!r}: the cell is empty", hint=hint)
        columns.append(np.asarray(column.to_numpy(), dtype=np.float64))
    labels = table.column(label)
    if labels.null_count:
        raise DataError(f"{file}, row {labels.is_null().to_pylist().index(True)}: the label ({label!r}) is empty")
    return dataset(np.column_stack(columns), labels.to_pylist(), names, str(file))


def _load_npz(file: Path, label: str, features: Sequence[str] | None) -> Dataset:
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, KeyError) as error:
        raise DataError(f"{file}: not an NPZ file of plain arrays: {error}") from None
    _find(list(arrays), label, file, "label")
    labels = arrays.pop(label)
    names = arrays.pop("feature_names", None)
    tables = [name for name, array in arrays.items() if array.ndim == 2]
    if len(tables) == 1:
        rows: Any = arrays[tables[0]]
        header = None if names is None else tuple(map(str, names))
    elif tables or not arrays or any(array.ndim != 1 or len(array) != len(labels) for array in arrays.values()):
        found = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "nothing"
        raise DataError(f"{file}: beside {label!r} expected one two-dimensional array, found {found}")
    else:
        rows, header = np.column_stack(list(arrays.values())), tuple(arrays)
    if not (np.issubdtype(rows.dtype, np.number) or rows.dtype == bool) or np.iscomplexobj(rows):
        raise DataError(f"{file}: the features hold {rows.dtype}, not numbers")
    whole = dataset(rows, labels, header, str(file))
    if features is None:
        return whole
    chosen = [_find(list(whole.feature_names), name, file, "features") for name in features]
    return dataset(whole.rows[:, chosen], whole.labels, tuple(features), str(file))


def _choose(header: list[str], label: str, features: Sequence[str] | None, file: Path) -> tuple[int, list[int]]:
    at = _find(header, label, file, "label")
    if features is None:
        chosen = [column for column in range(len(header)) if column != at]
    else:
        chosen = [_find(header, name, file, "features") for name in features]
    if at in chosen:
        raise DataError(f"{file}: {label!r} is the label; it cannot be a feature, too")
    if not chosen:
        raise DataError(f"{file}: {label!r} is the only column; there is no feature")
    return at, chosen


def _find(header: list[str], name: str, file: Path, key: str) -> int:
    if name in header:
        return header.index(name)
    close = difflib.get_close_matches(name, header, n=1, cutoff=0.5)
    if not close:
        close = [other for other in header if other.casefold() == name.casefold()]
    names = ", ".join(header[:20]) + (", ..." if len(header) > 20 else "")
    hint = f"did you mean {close[0]!r} ({key}: in deploy.yaml)?" if close else f"set {key}: to one of them"
    raise DataError(f"{file}: no column {name!r}; there are {names}", hint=hint)


def _nearest_file(file: Path) -> str:
    try:
        names = [entry.name for entry in file.parent.iterdir() if entry.suffix.lower() in SUFFIXES]
    except OSError:
        return f"the folder {file.parent} cannot be read"
    close = difflib.get_close_matches(file.name, names, n=1)
    return f"did you mean {close[0]}?" if close else "relative paths start at deploy.yaml"

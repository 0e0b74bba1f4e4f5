"""Parquet file of rows that were collected from devices.

One file holds the rows of one model: its raw columns, device, time, kind, label, answer, distance, id and digest. Rows
with other columns, of another release, get another file. If a raw column has one of these names, the name of knnkit's
column begins with `_`. Labels that people give are lines of a journal beside the file, saved to disk before
`change_label` returns. `read` returns them too, and the next `merge` writes them into the file. Only one process at a
time can change a folder. Never drops a row.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from device_agent.shared.safe_files import open_ordinary, whole_file
from knnkit.data.patterns import nearest
from knnkit.errors import DataError, KnnkitError, UsageError, needs, unwritten

Cell = float | str | None
_OURS = ("id", "device", "time", "kind", "label", "answer", "distance", "digest")
_KEY = b"knnkit"
_JOURNAL = ".labels.jsonl"


@dataclass(frozen=True)
class FieldRow:
    """A row that was collected from a device."""

    id: str  # unique
    device: str  # name of the device
    time: int  # seconds since 1970 by the device's clock
    kind: str  # enrolled, unknown, uncertain or random
    label: str | None  # None until a person gives one
    answer: str | None  # the device's label; None for a taught row
    distance: float | None  # of the k-th neighbour; None for a taught row
    digest: str  # of the device's release
    cells: tuple[Cell, ...]  # of the raw columns


@dataclass(frozen=True)
class Columns:
    """The name of a model, and its raw columns `names`; those in `categories` hold text."""

    model: str
    names: tuple[str, ...]
    categories: tuple[str, ...] = ()

    def ours(self, name: str) -> str:
        """Returns the name in the file of knnkit's column `name`: with `_` before it if a raw column has that name."""
        while name in self.names:
            name = f"_{name}"
        return name


@dataclass(frozen=True)
class Collection:
    """The rows in a collected file, with the labels from its journal."""

    path: Path
    columns: Columns
    rows: tuple[FieldRow, ...]


def read(path: Path, hint: str = "name a .parquet file that knnkit collect wrote") -> Collection:
    """Reads a file that `merge` wrote, and its journal of labels; `hint` is for the error if `merge` did not.

    Raises:
        UsageError: the file is missing, or `merge` did not write it.
        MissingDependency: pyarrow is not installed.
    """
    parquet = _parquet()
    import pyarrow

    try:
        with open_ordinary(path, follow=True) as opened, parquet.ParquetFile(opened) as file:
            table = file.read()
        known = json.loads((table.schema.metadata or {})[_KEY])
        columns = Columns(known["model"], tuple(known["columns"]), tuple(known["categories"]))
        found = {name: table.column(columns.ours(name)).to_pylist() for name in _OURS}
        cells = [table.column(name).to_pylist() for name in columns.names]
    except FileNotFoundError:
        raise UsageError(
            f"{path}: no such file", hint=nearest(path, (".parquet",), "knnkit collect writes it")
        ) from None
    except (OSError, pyarrow.ArrowException, LookupError, TypeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno:  # pyarrow's own have none
            raise unwritten(f"{path} cannot be read", error, hint=hint) from None
        said = "another program wrote it" if isinstance(error, LookupError) else str(error)
        raise UsageError(f"{path} is not a file of knnkit collect: {said}", hint=hint) from None
    given = _given(path)
    rows = [FieldRow(*values) for values in zip(*(found[name] for name in _OURS), zip(*cells))]
    labelled = tuple(replace(row, label=given.get(row.id, row.label)) for row in rows)
    return Collection(path, columns, labelled)


def file_for(folder: Path, columns: Columns) -> Path:
    """Returns the file in `folder` for rows with these columns: MODEL.parquet.

    If that has other columns, returns MODEL-2.parquet, or the next number of which there is no file with others.
    """
    names = itertools.chain([columns.model], (f"{columns.model}-{number}" for number in itertools.count(2)))
    paths = (folder / f"{name}.parquet" for name in names)
    return next(path for path in paths if not path.exists() or _read_whole(path).columns == columns)


def _read_whole(path: Path) -> Collection:
    return read(path, f"mv {shlex.quote(str(path))} {shlex.quote(f'{path}.bad')}, and collect again")


def merge(path: Path, columns: Columns, rows: Iterable[FieldRow]) -> int:
    """Writes into the file the rows whose id it lacks, and the journal's labels; returns the number of added rows.

    Raises:
        DataError: the file holds rows with other columns.
        UsageError: `merge` did not write the file, or it cannot be written.
    """
    with alone(path.parent) as folder:
        there = _read_whole(path) if path.exists() else Collection(path, columns, ())
        if there.columns != columns:  # `file_for` chose it, and another process wrote it meanwhile
            said = f"{path} holds rows with other columns than those of the devices' releases"
            raise DataError(said, hint="type the same command again")
        merged = {row.id: row for row in there.rows}
        for row in rows:
            merged.setdefault(row.id, row)
        new = len(merged) - len(there.rows)
        if new or _journal(path).exists():
            _write(path, columns, tuple(merged.values()))
            os.fsync(folder)
            _journal(path).unlink(missing_ok=True)
    return new


def change_label(path: Path, row: str, before: str | None, label: str | None) -> str | None:
    """Replaces the label `before` of the row with id `row` by `label`; changes nothing if it has another label.

    Returns the label of the row after the call. None stands for no label. The change is saved to disk.

    Raises:
        UsageError: the label cannot be written.
    """
    with alone(path.parent) as folder:
        found = next((each.label for each in read(path).rows if each.id == row), before)
        if found != before:
            return found
        line = json.dumps({"id": row, "label": label}).encode() + b"\n"
        descriptor = os.open(_journal(path), os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            torn = size and os.pread(descriptor, 1, size - 1) != b"\n"
            rest = b"\n" * bool(torn) + line
            while rest:  # a disk that is nearly full takes a part of it, and then fails
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
            os.fsync(folder)
        except OSError as error:
            raise _unwritten(path, error) from None
        finally:
            os.close(descriptor)
    return label


def _journal(path: Path) -> Path:
    return path.with_name(f"{path.name}{_JOURNAL}")


def _given(path: Path) -> dict[str, str | None]:
    """Returns id -> last label (None: withdrawn) of the rows in the journal; ignores a line that a crash cut short."""
    found: dict[str, str | None] = {}
    with contextlib.suppress(FileNotFoundError):
        for line in _journal(path).read_bytes().splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError):
                entry = json.loads(line)
                found[str(entry["id"])] = None if entry["label"] is None else str(entry["label"])
    return found


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[int]:
    """Holds an exclusive lock on the folder; yields the folder's file descriptor."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _write(path: Path, columns: Columns, rows: Sequence[FieldRow]) -> None:
    parquet = _parquet()
    import pyarrow

    kinds = {"time": pyarrow.int64(), "distance": pyarrow.float64()}
    arrays = {
        columns.ours(name): pyarrow.array([getattr(row, name) for row in rows], kinds.get(name, pyarrow.string()))
        for name in _OURS
    }
    for place, name in enumerate(columns.names):
        kind = pyarrow.string() if name in columns.categories else pyarrow.float64()
        arrays[name] = pyarrow.array([row.cells[place] for row in rows], kind)
    known = {"model": columns.model, "columns": columns.names, "categories": columns.categories}
    table = pyarrow.table(arrays).replace_schema_metadata({_KEY: json.dumps(known)})
    try:
        with whole_file(path) as file:
            os.fchmod(file.fileno(), 0o600)
            parquet.write_table(table, file)
    except OSError as error:
        raise _unwritten(path, error) from None


def _unwritten(path: Path, error: OSError) -> KnnkitError:
    return unwritten(str(path), error, hint=f"df -h {shlex.quote(str(path.parent))}")


def _parquet() -> Any:
    with needs("Parquet needs pyarrow"):
        import pyarrow.parquet
    return pyarrow.parquet

"""Adds labelled rows from the field to the training data.

Appends them to a separate CSV file, field/MODEL.csv beside deploy.yaml, and lists it under `data: files:`. Never writes
the user's own files. Each row has the columns of the model, its label, its id, and its origin: device, time, kind and
release. A row is added only once, by its id.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from device_agent.shared.protocol.versions import utc
from device_agent.shared.safe_files import whole_file
from knnkit.config.parse import Build, FileData, GroupSplit, TimeSplit
from knnkit.data.collected import Cell, Collection, FieldRow
from knnkit.data.dataset import require_label
from knnkit.errors import DataError, UsageError
from knnkit.training.source import Material

FOLDER = "field"
ID = "row_id"
_ORIGIN = ("device", "time", "kind", "digest")
_NAMED = 6  # columns that a message names
_CSV = "deploy.yaml with data: {file: train.csv, label: species}"


@dataclass(frozen=True)
class Promotion:
    """Rows to add to the training data of one model.

    Attributes:
        path: the CSV file.
        rows: the rows that will be new in the file.
        waiting: number of rows without a label, which are not added.
        there: number of labelled rows that the file has already.
        differing: ids of rows that the file has with another label.
        id_column: the column of ids in the file; `data.id` of deploy.yaml must name it.
        content: the whole new content of the file.
        fresh: a CSV file of the new rows alone.
    """

    path: Path
    rows: tuple[FieldRow, ...]
    waiting: int
    there: int
    differing: tuple[str, ...]
    id_column: str
    content: bytes
    fresh: bytes


def plan(build: Build, material: Material, found: Collection, folder: Path) -> Promotion:
    """Returns the rows to add to the training data of `build`; changes nothing.

    Raises:
        UsageError: the rows belong to another model, or its training data is not in files.
        DataError: the rows have other columns, or a label that the training data cannot have.
    """
    data = build.model.data
    if found.columns.model != build.model.name:
        hint = f"name the file of {build.model.name}, or --model {found.columns.model}"
        raise UsageError(f"{found.path} holds rows of {found.columns.model}, not of {build.model.name}", hint=hint)
    if not isinstance(data, FileData) or data.target:
        raise UsageError("rows can be added only if `data` names files of labelled rows", hint=_CSV)
    if build.model.input is not None:
        said = f"{found.path} holds what `input` of {build.model.name} made of samples, sounds or pictures, not these"
        raise UsageError(said, hint="record them again, and put the files beside those that `data` names")
    names = columns_of(material)
    ours, theirs = set(names), set(found.columns.names)
    if ours != theirs:
        odd = [f"they lack {name!r}" for name in sorted(ours - theirs)] + [
            f"they have {name!r}" for name in sorted(theirs - ours)
        ]
        said = f"{found.path}: the rows have other columns than the training data: {', '.join(odd[:_NAMED])}"
        hint = "collect again, into another folder, once the devices run a release of this deploy.yaml"
        raise DataError(said, hint=hint)
    labelled = [row for row in found.rows if row.label is not None]
    _check_labels(found.path, material, labelled)
    header = _Header(build, data, names)
    path = folder / FOLDER / f"{build.model.name}.csv"
    before = path.read_bytes() if path.exists() else b""
    known = _known(path, before, header)
    new = tuple(row for row in labelled if row.id not in known)
    differing = tuple(row.id for row in labelled if known.get(row.id, row.label) != row.label)
    return Promotion(
        path, new, len(found.rows) - len(labelled), len(labelled) - len(new), differing, header.id,
        before + header.lines(found.columns.names, new, first=not before),
        header.lines(found.columns.names, new, first=True),
    )  # fmt: skip


def write(promotion: Promotion) -> None:
    """Writes the file atomically; its earlier lines keep their bytes."""
    promotion.path.parent.mkdir(exist_ok=True)
    with whole_file(promotion.path) as file:
        file.write(promotion.content)


def columns_of(material: Material) -> tuple[str, ...]:
    """Returns the raw columns of a model's rows."""
    if material.table is None:
        return material.training.feature_names
    return tuple(column.name for column in material.table.columns)


class _Header:
    """The columns of the file."""

    def __init__(self, build: Build, data: FileData, names: Sequence[str]) -> None:
        split = build.model.split
        self._group = split.group if isinstance(split, GroupSplit) else None
        self._time = split.time if isinstance(split, TimeSplit) else None
        self.label, self.names = data.label_column, tuple(names)
        beside = [name for name in (self._group, self._time) if name is not None and name not in names]
        taken = {*names, self.label, *beside}
        self.id = data.id or _free(ID, taken)
        self._origin = [_free(name, {*taken, self.id}) for name in _ORIGIN]
        self.all = [*names, self.label, *beside, *([self.id] if self.id not in names else []), *self._origin]

    def lines(self, order: Sequence[str], rows: Iterable[FieldRow], *, first: bool) -> bytes:
        """Returns the CSV lines of rows, with cells in this order; begins with the header if the file is new."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.all, lineterminator="\n")
        if first:
            writer.writeheader()
        for row in rows:
            when = utc(row.time)
            origin = dict(zip(self._origin, (row.device, when, row.kind, row.digest)))
            beside = {name: value for name, value in ((self._group, row.device), (self._time, when)) if name}
            cells = {name: _shown(cell) for name, cell in zip(order, row.cells)}
            writer.writerow({**origin, **beside, **cells, self.label: row.label, self.id: row.id})
        return text.getvalue().encode()


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name = f"_{name}"
    return name


def _shown(cell: Cell) -> str:
    return "" if cell is None else cell if isinstance(cell, str) else f"{cell!r}".removesuffix(".0")


def _check_labels(path: Path, material: Material, rows: Sequence[FieldRow]) -> None:
    numbers = material.training.labels.dtype.kind in "iu"
    for row in rows:
        label = str(row.label)
        require_label(label, f"{path}, row {row.id}")
        if numbers and not label.lstrip("-").isdecimal():
            hint = f"knnkit label {path}, with a whole number"
            raise DataError(
                f"{path}, row {row.id}: the label {label!r} is not a whole number, as all others are", hint=hint
            )


def _known(path: Path, content: bytes, header: _Header) -> dict[str, str]:
    """Returns id -> label of the rows in the file.

    Raises:
        DataError: the file has other columns than the rows to add, or an incomplete last line.
    """
    if not content:
        return {}
    try:
        rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
        there = next(csv.reader([content.decode().splitlines()[0]]))
    except (ValueError, csv.Error) as error:
        raise DataError(
            f"{path}: {error}", hint=f"move {path} away; the rows in it are lost for the next build"
        ) from None
    if there != header.all or not content.endswith(b"\n"):
        hint = f"end {path} with a newline, or move it away and promote all rows again"
        raise DataError(f"{path} has other columns than the rows to add, or its last line is not complete", hint=hint)
    return {row[header.id]: row[header.label] for row in rows}

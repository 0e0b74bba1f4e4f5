"""Adds labelled rows from the field to the training data.

Appends them to a separate CSV file, field/MODEL.csv beside deploy.yaml, and lists it under `data: files:`. Never writes
the user's own files. Each row has the columns of the model, its label, its id, and its origin: device, time, kind and
release. A row is added only once, by its id.
"""

from __future__ import annotations

import csv
import io
import math
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from device_agent.shared.enrolment.enrolled import label_of
from device_agent.shared.protocol.table_info import Table
from device_agent.shared.protocol.versions import utc
from device_agent.shared.safe_files import whole_file
from knnkit.config.parse import Build, FileData, GroupSplit, TimeSplit
from knnkit.data.collected import Cell, Collection, Columns, FieldRow, alone
from knnkit.data.columns import NO_ID
from knnkit.data.dataset import require_label
from knnkit.errors import DataError, UsageError
from knnkit.training import source
from knnkit.training.rows import FIELD
from knnkit.training.source import Material

ID = "row_id"
_ORIGIN = ("device", "time", "kind", "digest")
_NAMED = 6  # columns that a message names
_CSV = "deploy.yaml with data: {file: train.csv, label: species}"


@dataclass(frozen=True)
class Promotion:
    """Rows to add to the training data of one model."""

    path: Path  # the CSV file of rows from the field
    rows: tuple[FieldRow, ...]  # the rows that will be added to the file
    waiting: int  # number of rows without a label, which are not added
    gaps: Mapping[str, int]  # column -> labelled rows that are not added, because this cell is not known
    there: int  # number of labelled rows that the training data already has
    differing: tuple[str, ...]  # ids of rows that the training data already has, with another label
    #: labelled rows whose cells are those of another row with another label; () for targets.
    contradicting: tuple[FieldRow, ...]
    id_column: str  # name of the file's id column; `data.id` of deploy.yaml must name it
    before: bytes  # content of the file before the rows are added
    content: bytes  # content of the file after the rows are added
    fresh: bytes  # content of a CSV file with only the added rows


def check(build: Build, found: Collection) -> FileData:
    """Returns `data` of `build` if rows like those of `found` can be added to it; reads no training data.

    Raises:
        UsageError: the rows belong to another model, or the training data of `build` is not in files of rows.
    """
    data = build.model.data
    if found.columns.model != build.model.name:
        hint = f"name the file of {build.model.name}, or leave --model out"
        raise UsageError(f"{found.path} holds rows of {found.columns.model}, not of {build.model.name}", hint=hint)
    if not isinstance(data, FileData):
        raise UsageError("rows can be added only if `data` names files of labelled rows", hint=_CSV)
    if build.model.input is not None:
        said = f"{found.path} holds features, not the samples, sounds or pictures that {build.model.name} is trained on"
        raise UsageError(said, hint="record the inputs again, and add their files to those that `data` names")
    if not data.target and len(data.label) > 1:
        said = f"{found.path} holds one label for each row, but `label` names {len(data.label)} columns"
        raise UsageError(said, hint="add the rows to a file that `data` names, with a cell in each of these columns")
    return data


def plan(build: Build, material: Material, found: Collection, folder: Path) -> Promotion:
    """Returns which rows of `found` must be added to `material`, the training data of `build`; changes no file.

    `folder` is the folder that contains deploy.yaml.

    Raises:
        UsageError: the rows belong to another model, or the training data of `build` is not in files.
        DataError: the rows have other columns, or a label that the training data cannot have.
    """
    data = check(build, found)
    names = columns_of(material)
    if data.id in names:
        said = f"`id` names {data.id!r}, a feature, and a row from the field has an id of its own"
        raise UsageError(said, hint="name another column in `id`, or leave id out")
    ours, theirs = set(names), set(found.columns.names)
    if ours != theirs:
        odd = [f"they lack {name!r}" for name in sorted(ours - theirs)] + [
            f"they have {name!r}" for name in sorted(theirs - ours)
        ]
        said = f"{found.path}: the rows do not have the columns of the training data: {', '.join(odd[:_NAMED])}"
        hint = "deploy this deploy.yaml, then collect again: rows with its columns get a file of their own"
        raise DataError(said, hint=hint)
    labelled = [row for row in found.rows if row.label is not None]
    gaps = {row.id: gap for row in labelled if (gap := _gap(row, found.columns, material.table))}
    waiting, labelled = len(found.rows) - len(labelled), [row for row in labelled if row.id not in gaps]
    header = _Header(build, data, names)
    _check_labels(found.path, material, labelled, header)
    path = _path(build, folder)
    before = _content(path)
    known = _ids_of(material) | _known(path, before, header)
    new = tuple(row for row in labelled if row.id not in known)
    meant = {row.id: header.label(header.meaning(str(row.label))) for row in labelled}
    differing = tuple(name for name, label in meant.items() if (known.get(name) or label) != label)
    twins = () if data.target else _contradicting(labelled)
    return Promotion(
        path, new, waiting, Counter(gaps.values()), len(labelled) - len(new), differing, twins, header.id, before,
        before + header.lines(found.columns.names, new, first=not before),
        header.lines(found.columns.names, new, first=True),
    )  # fmt: skip


def _gap(row: FieldRow, columns: Columns, table: Table | None) -> str:
    """Returns the first column whose cell in `row` is not known, so that training would invent it; "" if none.

    A row that a device kept by itself has no text for a category that its release did not know: it is not a missing
    cell. A missing cell can be added only if the table fills it.
    """
    filled = {column.name for column in table.columns if column.fill is not None} if table else set()
    filled -= set(columns.categories) if row.kind != "enrolled" else set()
    return next((name for name, cell in zip(columns.names, row.cells) if cell is None and name not in filled), "")


def _contradicting(rows: Sequence[FieldRow]) -> tuple[FieldRow, ...]:
    labels: dict[tuple[Cell, ...], set[str | None]] = {}
    for row in rows:
        labels.setdefault(row.cells, set()).add(row.label)
    return tuple(row for row in rows if len(labels[row.cells]) > 1)


def write(promotion: Promotion) -> None:
    """Writes the CSV file atomically, with the new rows after its earlier lines.

    Raises:
        DataError: the file was changed since the rows were planned.
    """
    promotion.path.parent.mkdir(exist_ok=True)
    with alone(promotion.path.parent):
        if _content(promotion.path) != promotion.before:
            raise DataError(
                f"{promotion.path} was changed by another process meanwhile", hint="type the same command again"
            )
        with whole_file(promotion.path) as file:
            file.write(promotion.content)


def load(build: Build, folder: Path) -> tuple[Build, Material]:
    """Returns `build` and its training data, both without the file of rows from the field if that is lost or empty.

    deploy.yaml may name a lost file, and an id column that only this file had: `promote` writes it again.
    """
    data, path = build.model.data, _path(build, folder)
    rest = tuple(each for each in data.files if each.resolve() != path.resolve()) if isinstance(data, FileData) else ()
    if not isinstance(data, FileData) or rest == data.files or _content(path):
        return build, source.load(build)
    found = _with_data(build, data, files=rest)
    try:
        return found, source.load(found)
    except DataError as error:
        if error.reason != NO_ID:
            raise
    return found, source.load(_with_data(build, data, files=rest, id=None))


def _with_data(build: Build, data: FileData, **changes: object) -> Build:
    model = build.model.model_copy(update={"data": data.model_copy(update=changes)})
    return build.model_copy(update={"model": model})


def _path(build: Build, folder: Path) -> Path:
    return folder / FIELD / f"{build.model.name}.csv"


def _content(path: Path) -> bytes:
    found = path.read_bytes() if path.exists() else b""
    return found if b"\n" in found.strip() else b""


def _ids_of(material: Material) -> dict[str, str]:
    """Returns id -> "" for all rows of the training data that have an id, in any file; labels are not needed here."""
    parts = [part for part in (material.training, material.spare, material.held_out) if part is not None]
    return {str(name): "" for part in parts if part.ids is not None for name in part.ids.tolist() if name}


def columns_of(material: Material) -> tuple[str, ...]:
    """Returns the names of the raw columns of a model's rows."""
    if material.table is None:
        return material.training.feature_names
    return tuple(column.name for column in material.table.columns)


class _Header:
    """Columns of the CSV file of rows from the field; converts rows to its lines, and labels to its cells."""

    def __init__(self, build: Build, data: FileData, names: Sequence[str]) -> None:
        split = build.model.split
        self._group = split.group if isinstance(split, GroupSplit) else None
        self._time = split.time if isinstance(split, TimeSplit) else None
        self.targets, self.labels, self._thousands = data.target, data.target or data.label, data.thousands
        beside = [name for name in (self._group, self._time) if name is not None and name not in (data.id, *names)]
        taken = {*names, *self.labels, *beside}
        self.id = data.id or _free(ID, taken)
        self._origin = [_free(name, {*taken, self.id}) for name in _ORIGIN]
        self.all = [*names, *self.labels, *beside, self.id, *self._origin]

    def lines(self, order: Sequence[str], rows: Iterable[FieldRow], *, first: bool) -> bytes:
        """Returns rows as CSV; `order` names the columns of their cells. `first`: whether to write the header."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.all, lineterminator="\n")
        if first:
            writer.writeheader()
        for row in rows:
            when = utc(row.time)
            origin = dict(zip(self._origin, (row.device, when, row.kind, row.digest)))
            beside = {name: value for name, value in ((self._group, row.device), (self._time, when)) if name}
            cells = {name: self._shown(cell) for name, cell in zip(order, row.cells)}
            writer.writerow({**origin, **beside, **cells, **self.meaning(str(row.label)), self.id: row.id})
        return text.getvalue().encode()

    def meaning(self, label: str) -> dict[str, str]:
        """Returns the cells of a label: column -> cell.

        With several label columns or targets, `label` is text such as `height=3.5, width=2`; {} for any other text.
        """
        found = {self.labels[0]: label} if len(self.labels) == 1 else _values(f"{label}, ", self.labels) or {}
        return {name: self._number(value) for name, value in found.items()} if self.targets else found

    def label(self, cells: Mapping[str, str]) -> str:
        """Returns the label in a row of the file (column -> cell): for several columns, as `height=3.5, width=2`."""
        values = [cells[name] for name in self.labels]
        return values[0] if len(values) == 1 else ", ".join(map("=".join, zip(self.labels, values)))

    def _shown(self, cell: Cell) -> str:
        if cell is None or isinstance(cell, str):
            return cell or ""
        return self._number(f"{cell!r}".removesuffix(".0"))

    def _number(self, text: str) -> str:
        """Returns a number without points if these separate thousands in the user's files: `1234e-3` for `1.234`."""
        mantissa, _, exponent = text.partition("e")
        whole, point, digits = mantissa.partition(".")
        return text if self._thousands != "." or not point else f"{whole}{digits}e{int(exponent or 0) - len(digits)}"


def _values(pairs: str, names: Sequence[str]) -> dict[str, str] | None:
    """Parses "a=3.5, b=2, " to name -> value, in any order; None unless each of `names` occurs once, and no other.

    A name may hold `, ` and `=`; a value may not hold `, `. The `, ` at the end may be left out.
    """
    for name in names:
        if pairs.startswith(f"{name}="):
            value, _, rest = pairs[len(name) + 1 :].partition(", ")
            found = _values(rest, [each for each in names if each != name])
            if found is not None:
                return {name: value, **found}
    return None if pairs or names else {}


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name = f"_{name}"
    return name


def _check_labels(path: Path, material: Material, rows: Sequence[FieldRow], header: _Header) -> None:
    known = np.unique(material.training.labels).tolist()
    for row in rows:
        label = str(row.label)
        if header.targets:
            _check_values(f"{path}, row {row.id}", header, label)
            continue
        require_label(label, f"{path}, row {row.id}")
        if label_of(label, known) is None:
            there = shlex.quote(f"OTHER/{path.name}")
            hint = f"knnkit collect --output OTHER, then knnkit label {there}; give it a whole number"
            raise DataError(
                f"{path}, row {row.id}: the label {label!r} is not a whole number, as all others are", hint=hint
            )


def _check_values(place: str, header: _Header, label: str) -> None:
    try:
        found = header.meaning(label)
        good = found.keys() == set(header.targets) and all(math.isfinite(float(value)) for value in found.values())
    except ValueError:
        good = False
    if not good:
        said = f"{place}: {label!r} is not a value of each target: {', '.join(header.targets)}"
        raise DataError(said, hint="teach the device that row again, with --value")


def _known(path: Path, content: bytes, header: _Header) -> dict[str, str]:
    """Returns id -> label of the rows in the CSV file `content`; sets `header.all` to the file's order of columns."""
    if not content:
        return {}
    away = f"or move {path} away, and promote all rows again"
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        table = [(reader.line_num, row) for row in reader]
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file: {error}", hint=f"correct it, {away}") from None
    (_, there), *rows = table or [(0, [])]
    if sorted(there) != sorted(header.all):
        odd = [f"lacks {name!r}" for name in header.all if name not in there]
        odd += [f"has {name!r}" for name in there if name not in header.all]
        odd = odd or ["has a column twice"]
        said = f"{path} has other columns than the rows to add: it {', it '.join(odd[:_NAMED])}"
        raise DataError(said, hint=f"save it with these columns, separated by commas, {away}")
    for line, row in rows:
        if row and len(row) != len(there):
            said = f"{path}, line {line}: the header has {len(there)} cells, this line {len(row)}"
            raise DataError(said, hint=f"complete that line or remove it, {away}")
    if not content.endswith(b"\n"):
        raise DataError(f"{path}: the last line does not end with a newline", hint=f"add a newline, {away}")
    header.all = there
    found = [dict(zip(there, row)) for _, row in rows if row]
    return {cells[header.id]: header.label(cells) for cells in found}

"""Labelled rows from a file of text: commas, semicolons or tabs between the columns, UTF-8 or UTF-16.

What separates the columns is what makes the label one of them, and the same rules hold for numbers as on a device
(`csv_dialect`). A row whose cells are all empty is none. Never fills a cell, and never drops a row.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.tabular import csv_dialect
from device_agent.shared.tabular.csv_dialect import SEPARATORS, Decimals
from knnkit.data.columns import as_yaml, choose
from knnkit.data.dataset import Dataset, label_array, require_distinct, require_label
from knnkit.errors import DataError

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
#: Longest line that may be the header, in characters.
_MAX_HEADER = 1 << 20
_FILL = "drop the row, or fill the cell"
_CELLS = "a cell that holds what separates the columns stands in quotes"


def load_csv(file: Path, label: str, features: Sequence[str] | None) -> Dataset:
    """Reads the rows of a file of text with a header line.

    Raises:
        DataError: there is no such column, or a cell is not a finite number; with file, line and column.
        OSError: it cannot be read.
    """
    try:
        with file.open(newline="", encoding=_encoding(file)) as stream:
            return _Reader(file, stream, label).read(label, features)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}: not {error.encoding.upper()} text: byte {error.start} is {error.object[error.start]:#04x}",
            hint="save it as UTF-8, or: iconv -f WINDOWS-1252 -t UTF-8 FILE > train.csv",
        ) from None


def _encoding(file: Path) -> str:
    with file.open("rb") as stream:
        start = stream.read(8)
    if start.startswith(_UTF_16):
        return "utf-16"
    try:
        csv_dialect.text_of(start[:4] if start.startswith((b"PK", b"PAR1", b"\x1f\x8b", b"\xd0\xcf")) else b"")
    except BadInput as error:
        raise DataError(f"{file}: {error}", hint=error.hint) from None
    return "utf-8-sig"


class _Reader:
    """The records of one file, and in which line each of them begins."""

    def __init__(self, file: Path, stream: TextIO, label: str) -> None:
        self._file = file
        self._before = 0
        first = stream.readline(_MAX_HEADER)
        if first.strip() in ("sep=,", "sep=;", "sep="):  # by which a spreadsheet tells itself what follows
            self._before, start = 1, len(first)
            first = stream.readline(_MAX_HEADER)
        else:
            start = 0
        self._separator = _separator(first.rstrip("\r\n"), label)
        stream.seek(0)
        stream.read(start)
        self._lines = csv.reader(
            stream, delimiter=self._separator, strict=True, skipinitialspace=self._separator != "\t"
        )

    def read(self, label: str, features: Sequence[str] | None) -> Dataset:
        records = self._records()
        header = [name.strip() for name in next(records, ("", []))[1]]
        while header and not header[-1]:
            header.pop()  # a spreadsheet had something there once
        if not header:
            raise DataError(f"{self._file}: the file is empty", hint="line 1 names the columns, the others are rows")
        require_distinct(header, f"{self._file}, line {self._before + 1}")
        at, chosen = choose(header, label, features, self._file)
        rows, labels = self._cells(records, header, at, chosen)
        if not rows:
            raise DataError(f"{self._file}: there is a header, and no rows", hint="each line after the header is a row")
        names = tuple(header[column] for column in chosen)
        return Dataset(np.array(rows, dtype=np.float32), label_array(labels, str(self._file)), names, str(self._file))

    def _records(self) -> Iterator[tuple[str, list[str]]]:
        """Yields where each record begins, and its cells."""
        while True:
            where = f"{self._file}, line {self._lines.line_num + self._before + 1}"
            try:
                cells = next(self._lines, None)
            except csv.Error as error:
                hint = "is there a quote that is not closed, or a cell with a quote in its middle?"
                raise DataError(f"{where}: not a CSV line: {error}", hint=hint) from None
            if cells is None:
                return
            yield where, cells

    def _cells(
        self, records: Iterator[tuple[str, list[str]]], header: list[str], at: int, chosen: list[int]
    ) -> tuple[list[NDArray[np.float32]], list[str]]:
        rows: list[NDArray[np.float32]] = []
        labels, names, decimals = [], [header[column] for column in chosen], Decimals(self._separator)
        for where, cells in records:
            if not any(map(str.strip, cells)):
                continue
            cells = csv_dialect.without_tail(cells, len(header))
            if len(cells) != len(header):
                raise DataError(f"{where}: {len(cells)} cells, but the header has {len(header)}", hint=_CELLS)
            label = cells[at].strip()
            if not label:
                raise DataError(f"{where}: the label ({header[at]!r}) is empty", hint=_FILL)
            require_label(label, where)
            labels.append(label)
            written = [cells[column] for column in chosen]
            pointed = self._pointed(decimals, written, where)
            rows.append(_numbers(pointed, written, names, where, first=not rows))
        return rows, labels

    def _pointed(self, decimals: Decimals, cells: list[str], where: str) -> list[str]:
        if self._separator == ",":
            return cells
        try:
            return decimals.pointed(cells)
        except BadInput as error:
            raise DataError(f"{where}: {error}", hint=error.hint) from None


def _separator(header: str, label: str) -> str:
    """What makes the label a column; where nothing does, what stands there most often, for the complaint to come."""
    return csv_dialect.separator_of_header(header, [label]) or max(SEPARATORS, key=header.count)


def _numbers(
    cells: list[str], written: list[str], names: list[str], where: str, *, first: bool = False
) -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):
            row = np.array([float(cell) for cell in cells], dtype=np.float32)
    except ValueError:
        row = np.full(len(cells), np.nan, dtype=np.float32)
    if np.isfinite(row).all() and all(cell.isascii() and "_" not in cell for cell in cells):
        return row
    otherwise = _without_text(cells, names) if first else f"{_FILL}; a column of text? features: names those to use"
    for name, cell, text in zip(names, cells, written):
        _require_number(cell, text, f"{where}, column {name!r}", otherwise)
    return row


def _without_text(cells: list[str], names: list[str]) -> str:
    """Returns the key that leaves out the columns of text, as the first row shows them."""
    numbers = [name for name, cell in zip(names, cells) if csv_dialect.is_number(cell, ",")]
    if not numbers:
        return "every column but the label is a feature: there is none of numbers"
    return f"features: {as_yaml(numbers)} beside `label` in deploy.yaml (--features of knnkit init) leaves out text"


def _require_number(cell: str, written: str, where: str, otherwise: str) -> None:
    try:
        with np.errstate(over="ignore"):
            value = np.float32(csv_dialect.number(cell))
    except ValueError:
        if not cell.strip():
            raise DataError(f"{where}: the cell is empty", hint=_FILL) from None
        shown = written if len(written) <= 40 else written[:37] + "..."
        said, hint = "", otherwise
        plain = csv_dialect.in_ascii(cell)
        if plain is not None:
            said, hint = f": write {plain}, with the digits 0 to 9", "a column of text? features: names those to use"
        elif csv_dialect.is_number(cell, ";"):
            said, hint = ": a decimal comma", "separate the columns by semicolons, or write decimal points"
        elif "," in written and "." in written:
            said = ": leave out the sign between thousands"
        raise DataError(f"{where}: {shown!r} is not a number{said}", hint=hint) from None
    if not np.isfinite(value):
        raise DataError(f"{where}: {cell} is not a finite float32 number", hint=_FILL)

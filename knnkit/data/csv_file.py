"""Reader of labelled rows from CSV files.

Columns are separated by commas, semicolons or tabs: by the one with which the label is a column. UTF-8 or UTF-16. The
device's reader (`device_agent.shared.tabular.csv_reader`) reads the numbers, so that training rows and rows to classify
are read alike. Lines whose cells are all empty are skipped. Never fills a cell, and never drops a row.
"""

from __future__ import annotations

import csv
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.tabular import csv_dialect
from device_agent.shared.tabular.csv_reader import BadCell, Block, Columns
from knnkit.data import precision
from knnkit.data.columns import as_yaml, choose, find
from knnkit.data.dataset import Dataset, label_array, require_distinct, require_label
from knnkit.errors import DataError

#: Bytes of a block of text, and number of blocks parsed at the same time: numpy releases Python's lock.
_BLOCK, _THREADS = 1 << 18, min(4, os.cpu_count() or 1)
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")

#: Blocks of whole lines, each with a thread's result.
Blocks = Iterator[tuple[bytes, Future[Block | None] | None]]
_FILL = "drop the row, or fill the cell"


def load_csv(
    file: Path,
    label: str,
    features: Sequence[str] | None,
    beside: str | None = None,
    ids: str | None = None,
    *,
    wide: bool = False,
) -> Dataset:
    """Reads the rows of a text file with a header line; as float64 if they are `wide`, or float32 may not hold them.

    Raises:
        DataError: a column is missing, or a cell is not a finite number; the message has file, line and column.
        OSError: it cannot be read.
    """
    try:
        found = None if wide else _load(file, label, features, beside, ids, np.float32)
        if found is None or precision.is_suspect(found.rows):  # rare: reading twice takes half the memory otherwise
            found = _load(file, label, features, beside, ids, np.float64)
        return found if wide else replace(found, rows=precision.float32_if_enough(found.rows))
    except UnicodeDecodeError as error:
        said = f"not {error.encoding.upper()} text: byte {error.start} is {error.object[error.start]:#04x}"
        raise DataError(f"{file}: {said}", hint="save it as CSV (UTF-8)") from None


def _load(
    file: Path,
    label: str,
    features: Sequence[str] | None,
    beside: str | None,
    ids: str | None,
    dtype: type[np.floating[Any]],
) -> Dataset:
    with _open(file) as stream, ThreadPoolExecutor(_THREADS) as pool:
        return _CsvFile(file, stream, pool, dtype).read(label, features, beside, ids)


class _CsvFile:
    """One text file: blocks of simple lines are parsed as a whole, all others record by record."""

    def __init__(self, file: Path, stream: IO[Any], pool: ThreadPoolExecutor, dtype: type[np.floating[Any]]) -> None:
        self._file, self._pool, self._dtype = file, pool, dtype
        self._blocks: Blocks = zip(_text_blocks(stream), repeat(None))
        self._block, self._at = b"", 0  # the current block, and the bytes of it that are parsed
        self._found: Future[Block | None] | None = None
        self._line = 0  # lines parsed so far

    def read(self, label: str, features: Sequence[str] | None, beside: str | None, ids: str | None) -> Dataset:
        header, separator = self._take_header(label)
        self._label, chosen = choose(header, label, features, self._file, beside, ids)
        keys = {"split": beside, "id": ids}
        self._beside = [find(header, name, self._file, key) for key, name in keys.items() if name is not None]
        self._columns = Columns(separator, len(header), chosen, [self._label, *self._beside], self._dtype)
        self._header, self._known = header, set[str]()
        self._blocks = self._read_ahead(self._blocks)
        parts, labels = [np.empty((0, len(chosen)), self._dtype)], list[str]()
        self._cells = [list[str]() for _ in self._beside]  # of the columns beside
        while self._has_more():
            rows, more = self._take_block() or self._take_records(first=not labels)
            parts.append(rows)
            labels += more
        if not labels:
            raise DataError(f"{self._file}: there is a header, and no rows", hint="each line after the header is a row")
        names = tuple(header[column] for column in chosen)
        cells = iter(self._cells)
        columns = [None if name is None else np.array(next(cells)) for name in (beside, ids)]
        return Dataset(np.concatenate(parts), label_array(labels, str(self._file)), names, str(self._file), *columns)

    def _take_header(self, label: str) -> tuple[list[str], str]:
        """Returns the names of the columns, and the separator."""
        while self._has_more():
            self._block, self._line = csv_dialect.skip_preamble(self._block, self._line)
            if self._block:
                break
        start = self._text(self._block.partition(b"\n")[0])
        # The separator with which the label is a column; if there is none, the most frequent one, for the error.
        separator = csv_dialect.separator_of_header(start, [label]) or max(csv_dialect.SEPARATORS, key=start.count)
        self._records = csv_dialect.reader(self._lines(), separator)
        where = self._where(self._line + 1)
        header = csv_dialect.header_names(self._take_record())
        if not header:
            raise DataError(f"{self._file}: the file is empty", hint="line 1 names the columns, the others are rows")
        require_distinct(header, where)
        return header, separator

    def _read_ahead(self, blocks: Blocks) -> Blocks:
        """Yields blocks in order, each with a thread's result."""
        waiting: deque[tuple[bytes, Future[Block | None]]] = deque()
        for block, _ in blocks:
            waiting.append((block, self._pool.submit(self._columns.read_block, block)))
            if len(waiting) > _THREADS:
                yield waiting.popleft()
        yield from waiting

    def _has_more(self) -> bool:
        if self._at == len(self._block):
            (self._block, self._found), self._at = next(self._blocks, (b"", None)), 0
        return bool(self._block)

    def _lines(self) -> Iterator[str]:
        while self._has_more():
            end = self._block.index(b"\n", self._at)
            line, self._at = self._text(self._block[self._at : end]), end + 1
            self._line += 1
            yield line + "\n"

    def _take_block(self) -> tuple[NDArray[Any], list[str]] | None:
        """Parses the rest of the block as a whole; None if it has a line that is not simple."""
        ahead = self._found if self._at == 0 else None
        found = ahead.result() if ahead else self._columns.read_block(self._block[self._at :])
        if found is None:
            return None
        rows, (cells, *beside) = found
        labels = [self._checked_label(cell, line) for line, cell in enumerate(cells, self._line + 1)]
        for cells_of, column in zip(self._cells, beside):
            cells_of += map(str.strip, column)
        self._line, self._at = self._line + len(rows), len(self._block)
        return rows, labels

    def _take_records(self, *, first: bool) -> tuple[NDArray[Any], list[str]]:
        """Parses the rest of the block, and the rest of a record that continues after it."""
        rows: list[list[float]] = []
        labels: list[str] = []
        while self._at < len(self._block):
            line = self._line + 1
            fields = self._take_record()
            if not any(map(str.strip, fields)):
                continue
            fields = csv_dialect.without_tail(fields, self._columns.count)
            if len(fields) != self._columns.count:
                said = f"{self._where(line)}: {len(fields)} cells, but the header has {self._columns.count}"
                raise DataError(said, hint="a cell that contains the separator must be in quotes")
            labels.append(self._checked_label(fields[self._label], line))
            for cells, place in zip(self._cells, self._beside):
                cells.append(fields[place].strip())
            rows.append(self._numbers(fields, self._where(line), first=first and not rows))
        return np.array(rows, np.float64).astype(self._dtype).reshape(-1, len(self._columns.numbers)), labels

    def _take_record(self) -> list[str]:
        where = self._where(self._line + 1)
        try:
            return next(self._records, [])
        except csv.Error as error:
            hint = "is there a quote that is not closed, or a cell with a quote in its middle?"
            raise DataError(f"{where}: not a CSV line: {error}", hint=hint) from None

    def _checked_label(self, cell: str, line: int) -> str:
        label = cell.strip()
        if label not in self._known:
            if not label:
                name = self._header[self._label]
                raise DataError(f"{self._where(line)}: the label ({name!r}) is empty", hint=_FILL)
            require_label(label, self._where(line))
            self._known.add(label)
        return label

    def _numbers(self, fields: list[str], where: str, *, first: bool) -> list[float]:
        try:
            return self._columns.read_fields(fields)
        except BadCell as error:
            place = self._columns.numbers[error.index]
            name, cell = self._header[place], fields[place]
            said, hint = str(error), error.hint
            if error.is_number:
                said, hint = f"{cell} is not a finite float32 number", _FILL
            elif not cell.strip():
                hint = _FILL
            elif not hint and first:
                hint = self._without_text(fields)
            hint = hint or f"{_FILL}; a column of text? features: names those to use"
            raise DataError(f"{where}, column {name!r}: {said}", hint=hint) from None
        except BadInput as error:
            raise DataError(f"{where}: {error}", hint=error.hint) from None

    def _text(self, line: bytes) -> str:
        try:
            return csv_dialect.text_of(line)
        except BadInput as error:
            where = self._where(self._line + 1) if self._line else self._file  # line 1: the whole file
            raise DataError(f"{where}: {error}", hint=error.hint) from None

    def _where(self, line: int) -> str:
        return f"{self._file}, line {line}"

    def _without_text(self, fields: list[str]) -> str:
        """Returns a hint with the key that leaves out the text columns, judged by the first row."""
        separator, places = self._columns.separator, self._columns.numbers
        names = [self._header[place] for place in places if csv_dialect.is_number(fields[place], separator)]
        if not names:
            return "every column but the label is a feature, and none of them holds numbers"
        return f"features: {as_yaml(names)} beside `label` in deploy.yaml (--features of knnkit init) leaves out text"


def _open(file: Path) -> IO[Any]:
    with file.open("rb") as start:
        wide = start.read(2) in _UTF_16
    return file.open(newline="", encoding="utf-16") if wide else file.open("rb")


def _text_blocks(stream: IO[Any]) -> Iterator[bytes]:
    """Yields blocks of whole lines of an open text or binary file, as UTF-8 with a newline after each line."""
    while found := stream.read(_BLOCK) + stream.readline():
        block = found.encode() if isinstance(found, str) else found
        if b"\r" in block:
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        yield block if block.endswith(b"\n") else block + b"\n"

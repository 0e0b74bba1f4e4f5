"""Reader of labelled rows from CSV files.

Columns are separated by commas, semicolons or tabs: whichever makes the label a column. UTF-8 or UTF-16. The device's
reader (`device_agent.shared.tabular.csv_reader`) reads the numbers, so that training rows and rows to classify are read
alike. Lines whose cells are all empty are skipped. Never fills a cell, and never drops a row.
"""

from __future__ import annotations

import codecs
import csv
import os
import re
import shlex
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.features.cells import Cells
from device_agent.shared.file_hints import cleaned, with_file
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.safe_files import open_ordinary
from device_agent.shared.tabular import csv_dialect
from device_agent.shared.tabular.csv_reader import Block
from knnkit.data import precision
from knnkit.data.bad_cells import NO_LABEL, SHAPE, BadCells, between_thousands
from knnkit.data.columns import Wanted, choose, find, header_in_comment, names_the_row, skip_title
from knnkit.data.dataset import Dataset, label_array, require_distinct, require_label
from knnkit.data.policy import Learner, sorted_levels
from knnkit.errors import DataError

#: Bytes of a block of text, and number of blocks parsed at the same time: numpy releases Python's lock.
_BLOCK, _THREADS = 1 << 18, min(4, os.cpu_count() or 1)
_WIDE = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

#: Blocks of whole lines, each with a thread's result.
Blocks = Iterator[tuple[bytes, Future[Block | None] | None]]
#: Longest header that a hint writes out.
_LONGEST = 300


def load_csv(file: Path, wanted: Wanted) -> Dataset:
    """Reads the labelled rows of a text file with a header line; float64 if `wanted.wide`, or if float32 is too coarse.

    Raises:
        DataError: a column is missing, or a cell is not a finite number; the message has file, line and column.
        OSError: the file cannot be read.
    """
    try:
        if isinstance(wanted.policy.categories, str):
            texts = _open_and_read(file, wanted, np.float32).bad.text_columns()
            wanted = replace(wanted, policy=wanted.policy.with_text(texts))
        wide = wanted.wide or not wanted.policy.is_plain  # a table is applied to float64 rows
        found = None if wide else _open_and_read(file, wanted, np.float32).dataset()
        if found is None or precision.may_hide(found.rows):  # rare: reading twice takes half the memory otherwise
            found = _open_and_read(file, wanted, np.float64).dataset()
        return found if wide else replace(found, rows=precision.float32_if_enough(found.rows))
    except UnicodeDecodeError as error:
        said = f"not {error.encoding.upper()} text: byte {error.start} is {error.object[error.start]:#04x}"
        raise DataError(f"{file}: {said}", hint="save it as CSV (UTF-8)") from None


def _open_and_read(file: Path, wanted: Wanted, dtype: type[np.floating[Any]]) -> _CsvFile:
    with open_text(file) as stream, ThreadPoolExecutor(_THREADS) as pool:
        found = _CsvFile(file, stream, pool, wanted, dtype)
        found.read()
        return found


class _CsvFile:
    """Parser of one text file: parses a block of lines in one call if possible, else one line after the other."""

    def __init__(
        self, file: Path, stream: IO[Any], pool: ThreadPoolExecutor, wanted: Wanted, dtype: type[np.floating[Any]]
    ) -> None:
        self._file, self._pool, self._wanted, self._dtype = file, pool, wanted, dtype
        self._policy = wanted.policy
        self.bad = BadCells(str(file), targets=wanted.policy.targets, given=vars(wanted.policy))
        self._blocks: Blocks = zip(text_blocks(stream), repeat(None))
        self._block, self._at, self._line = b"", 0, 0  # the current block, its parsed bytes, and all parsed lines
        self._found: Future[Block | None] | None = None

    def read(self) -> None:
        header, separator = self._take_header(self._wanted.label)
        self._at_labels, chosen = choose(header, self._wanted, self._file)
        chosen += self._at_labels if self._policy.targets else []
        named = self._wanted.texts.items()
        self._beside = [find(header, name, self._file, key) for key, name in named if name is not None]
        self._learner = Learner(self._policy, [header[place] for place in chosen], self.bad)
        texts = [*self._at_labels, *self._beside]
        self._columns = Cells(separator, len(header), chosen, self._learner, texts, self._dtype)
        self._header, self._known = header, set[str]()
        self._blocks = self._read_ahead(self._blocks)
        self._rows, self._labels = np.empty((0, len(chosen)), self._dtype), [list[str]() for _ in self._at_labels]
        self._lines_of = [np.empty(0, np.int64)]  # of the rows
        self._widths, self._odd = Counter[int](), list[str]()  # of lines with another number of cells than the header
        self._cells = [list[str]() for _ in self._beside]  # of the columns beside
        while self._has_more():
            rows = self._take_block()
            rows = self._take_records() if rows is None else rows
            # In place, so that the rows of the file are in memory once; only their last pages move.
            before = len(self._rows)
            self._rows.resize((before + len(rows), len(chosen)), refcheck=False)
            self._rows[before:] = rows
        count = len(self._rows)
        self.bad.rows, self.bad.features, self.bad.filter = count, len(chosen), self._filter()
        if not count and self.bad.only_without_label:
            self.bad.advice = "no line has a label: name another column (label: in deploy.yaml)"
        if self._widths.total() > count:
            self.bad.advice = self._with_names(self._widths.most_common(1)[0][0] - len(header))
        if not (count or self.bad):
            raise DataError(f"{self._file}: there is a header, but no rows", hint="each line after the header is a row")

    def dataset(self) -> Dataset:
        """Returns the rows that `read` has parsed."""
        if self.bad:
            raise self.bad.error()
        names, rows = self._learner.names, self._rows
        levels = sorted_levels(rows, self._learner.levels(), self._wanted.policy, names)
        cells = iter(self._cells)
        beside, ids = (None if name is None else np.array(next(cells)) for name in self._wanted.texts.values())
        labels, *more = (label_array(column, str(self._file)) for column in self._labels)
        how: dict[str, Any] = {"levels": levels or None, "missing_words": frozenset(self._learner.met)}
        how |= {"more_labels": tuple(more), "lines": np.concatenate(self._lines_of)}
        return Dataset(rows, labels, names, str(self._file), beside, ids, **how)

    def _take_header(self, label: str) -> tuple[list[str], str]:
        """Parses the header line, which has the column `label`; returns the names of the columns and the separator."""
        while self._has_more():
            self._block, self._line = csv_dialect.skip_preamble(self._block, self._line)
            block, (self._block, above) = self._block, csv_dialect.skip_above_header(self._block, [label])
            self._block, titles = skip_title(self._block, label)
            self._line += above + titles
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
        header = header if label in header else header_in_comment(block, header, separator)
        self._start = self._line, start, separator
        try:
            require_distinct(header, where)
        except DataError as error:
            raise DataError(str(error), hint=self._renamed(header, error.hint)) from None
        self._require_label(label, header)
        return header, separator

    def _require_label(self, label: str, header: list[str]) -> None:
        """Raises DataError if `header` lacks `label` because line 1 is a row of cells, or has an unknown separator."""
        line, start, separator = self._start
        if label in header:
            return
        texts = [name for name in header if not csv_dialect.is_number(name, separator)]
        if len(header) > 1 and len(texts) <= 1:
            names = [label if name in texts else f"column_{place}" for place, name in enumerate(header, 1)]
            names[-1] = names[-1] if texts else label
            hint = f"put a header line above line {line}: {self._sed(f'{line}i {separator.join(names)}')}"
            raise DataError(f"{self._file}: no column {label!r}; there are {', '.join(header)}", hint=hint)
        there, clean = shlex.quote(str(self._file)), cleaned(str(self._file))
        if label in (name.strip("'") for name in header):
            said = f"{self._file}: no column {label!r}; the cells are in single quotes"
            raise DataError(said, hint=f"""remove them: tr -d "'" < {there} > {clean}""")
        for sign in "|", " ", ":":
            found = start.split(sign if sign != " " else None)
            bare = [name.strip("'\"") for name in found]
            if len(header) == 1 and label in bare and len(found) > 1:
                said = f"{self._file}: no column {label!r}; the columns are separated by {sign!r}"
                command = f"tr '{sign}' ';' < {there} > {clean}"
                if sign == " ":  # one or more, also before the first column
                    command = f"sed -E 's/^ +| +$//g; s/ +/;/g' < {there} > {clean}"
                if label not in found:  # names in quotes
                    command = command.replace(" >", """ | tr -d "'\\"" >""")
                raise DataError(said, hint=f"separate them by semicolons: {command}")

    def _renamed(self, header: list[str], hint: str) -> str:
        """Returns `hint`, followed by a command that gives each column of `header` a different name."""
        line, _, separator = self._start
        names: list[str] = []
        for place, name in enumerate(header, 1):
            name = name or f"column_{place}"
            names.append(name if name not in names else f"{name}_{place}")
        text = separator.join(names)
        if header[0] == "" and names[1:] == header[1:]:  # R and pandas write row names so
            return f"{hint}; or: {self._sed(f'{line}s/^[^{separator}]*/{names[0]}/')}"
        if any(separator in name or '"' in name or not name.isprintable() for name in names) or len(text) > _LONGEST:
            return hint
        script = re.sub(r"[\\/&]", r"\\\g<0>", text)
        return f"{hint}; or: {self._sed(f'{line}s/.*/{script}/')}"

    def _with_names(self, more: int) -> str:
        """Returns a command that adds `more` column names to the header; "" if `more` is not positive."""
        line, start, separator = self._start
        if more == 1 and names_the_row(self._odd, self._widths.total(), self._at_labels, separator):
            return f"name the column of row names, too: {self._sed(f'{line}s/^/row{separator}/')}"
        names = separator.join(f"more_{place}" for place in range(1, more + 1))
        ends = start.rstrip("\r ").endswith(separator)
        script = f"{line}s/{f'{separator}*' * ends}\\r*$/{separator}{names}/"
        return "" if more < 1 else f"name each column in the header: {self._sed(script)}"

    def _filter(self) -> str:
        """Returns a command that copies only the lines that have a label and the right number of cells."""
        name, separator, clean = str(self._file), self._start[2], shlex.split(cleaned(str(self._file)))[0]
        code = (
            f"import csv; r = csv.reader(open({name!r}, newline='', encoding='utf-8-sig'), delimiter={separator!r}); "
        )
        code += f"w = csv.writer(open({clean!r}, 'w', newline='', encoding='utf-8'), delimiter={separator!r}); "
        there = " and ".join(f"x[{place}].strip()" for place in self._at_labels)
        code += f"w.writerows(x for x in r if len(x) == {self._columns.count} and {there})"
        return f"python -c {shlex.quote(code)}"

    def _sed(self, script: str) -> str:
        return f"sed {shlex.quote(script)} {shlex.quote(str(self._file))} > {cleaned(str(self._file))}"

    def _read_ahead(self, blocks: Blocks) -> Blocks:
        """Yields the blocks in order, each with the future result of a thread that parses it."""
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

    def _take_block(self) -> NDArray[Any] | None:
        """Returns the (n, d) rows of the rest of the block, parsed in one call; None: parse them line by line."""
        ahead = self._found if self._at == 0 else None
        found = ahead.result() if ahead else self._columns.read_block(self._block[self._at :])
        if found is None:
            return None
        rows, texts = found
        own, beside = texts[: len(self._labels)], texts[len(self._labels) :]
        if not all(cell.strip() for column in own for cell in set(column)):
            return None
        for labels, column in zip(self._labels, own):
            labels += [self._checked_label(cell, line) for line, cell in enumerate(column, self._line + 1)]
        for cells_of, column in zip(self._cells, beside):
            cells_of += map(str.strip, column)
        self._lines_of.append(np.arange(self._line + 1, self._line + 1 + len(rows)))
        self._line, self._at = self._line + len(rows), len(self._block)
        return rows

    def _take_records(self) -> NDArray[Any]:
        """Returns the (n, d) rows of the rest of the block, parsed one by one; the last may end in the next block."""
        rows, lines = list[list[float]](), list[int]()
        while self._at < len(self._block):
            line = self._line + 1
            fields = self._take_record()
            if not any(map(str.strip, fields)):
                continue
            fields = csv_dialect.without_tail(fields, self._columns.count)
            if len(fields) != self._columns.count:
                self._widths[len(fields)] += 1
                self._odd = fields
                said = f"the header has {self._columns.count} cells, this line {len(fields)}"
                self.bad.add_line(line, SHAPE, f"{said}; a cell that contains the separator must be in quotes")
                continue
            empty = next((place for place in self._at_labels if not fields[place].strip()), None)
            if empty is not None:
                said = f"the {'target' if self._policy.targets else 'label'} ({self._header[empty]!r}) is empty"
                above = self._labels[0] or any(csv_dialect.is_number(cell.strip(), ",") for cell in fields)
                self.bad.add_line(line, NO_LABEL, said if above else f"{said}; a line of units?")
                continue
            for labels, place in zip(self._labels, self._at_labels):
                labels.append(self._checked_label(fields[place], line))
            for cells, place in zip(self._cells, self._beside):
                cells.append(fields[place].strip())
            rows.append(self._numbers(fields, line))
            lines.append(line)
        self._lines_of.append(np.array(lines, np.int64))
        return np.array(rows, np.float64).astype(self._dtype).reshape(-1, len(self._columns.numbers))

    def _take_record(self) -> list[str]:
        where = self._where(self._line + 1)
        try:
            return next(self._records, [])
        except csv.Error as error:
            hint = "close an open quotation mark, or double one inside a cell"
            raise DataError(f"{where}: not a CSV line: {error}", hint=hint) from None

    def _checked_label(self, cell: str, line: int) -> str:
        label = cell.strip()
        if label not in self._known and not self._policy.targets:
            require_label(label, self._where(line))
            self._known.add(label)
        return label

    def _numbers(self, fields: list[str], line: int) -> list[float]:
        self._learner.place = line
        try:
            return self._columns.read_fields(fields)
        except BadInput as error:
            hint = error.hint
            if isinstance(error, csv_dialect.DoubtfulComma):
                hint = f"for a decimal comma, {between_thousands('.')}; for thousands, {between_thousands(',')}"
            raise DataError(f"{self._where(line)}: {error}", hint=hint) from None

    def _text(self, line: bytes) -> str:
        try:
            return csv_dialect.text_of(line)
        except BadInput as error:
            where = self._where(self._line + 1) if self._line else self._file  # line 1: the whole file
            raise DataError(f"{where}: {error}", hint=with_file(error.hint, self._file)) from None

    def _where(self, line: int) -> str:
        return f"{self._file}, line {line}"


def open_text(file: Path) -> IO[Any]:
    """Opens a text file for reading: UTF-16 and UTF-32 in text mode, others in binary mode; OSError for a pipe."""
    with open_ordinary(file, follow=True) as stream:
        start = stream.read(4)
    wide = next((encoding for mark, encoding in _WIDE if start.startswith(mark)), None)
    return file.open(newline="", encoding=wide) if wide else file.open("rb")


def text_blocks(stream: IO[Any]) -> Iterator[bytes]:
    """Yields blocks of complete lines of an open file, as UTF-8; LF, CRLF, CR or CRCRLF after a line becomes LF."""
    while found := stream.read(_BLOCK) + stream.readline():
        block = found.encode() if isinstance(found, str) else found
        if b"\r" in block:
            block = block.replace(b"\r\r\n", b"\n").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        yield block if block.endswith(b"\n") else block + b"\n"

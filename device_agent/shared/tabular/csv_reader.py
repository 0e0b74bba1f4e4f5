"""Parses blocks of CSV lines into rows.

A block of plain cells is read at once. Any other block (a number in quotes, a word, a wrong count) is read line by
line, and each bad line gets an error with its number and column. Both methods give the same numbers, correctly rounded.
Queries (`CsvParser`) and training rows both use `Columns`. No I/O; every value returned is finite.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.console.lists import listed
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.tabular import csv_dialect
from device_agent.shared.tabular.csv_dialect import Decimals, fields_of, short, text_of
from device_agent.shared.tabular.fields import Layout
from device_agent.shared.tabular.float_parser import TOO_LARGE, read_table
from device_agent.shared.tabular.reader import Line, Parsed, Parser, line_by_line, more, plain_numbers, unlike_finite
from device_agent.shared.tabular.units import WITHOUT_FORMULAS, is_formula, unit_of, without_units

_TRUTH = {word.encode(): b"%d" % number for word, number in csv_dialect.TRUTH.items()}
#: Hint for a header with more columns than the model has.
LEAVES_OUT = "--ignore-extra leaves out the columns that the model does not have"
#: Hint for a decimal comma in a file whose columns have commas between them.
DECIMAL_COMMA = "write decimal points, or separate the columns by semicolons"
#: The numbers of whole lines, (n_lines, n_numbers), and the cells of each column of text.
Block = tuple[NDArray[Any], list[list[str]]]


class BadCell(BadInput):
    """A cell that is not a finite number.

    Attributes:
        index: index of its column among the number columns.
        is_number: True if the cell is a number, but infinite or too large for float32.
    """

    def __init__(self, index: int, message: str, hint: str = "", *, is_number: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.index, self.is_number = index, is_number


class Columns:
    """The columns of one table: which are numbers, which are text, and their format.

    Args:
        numbers: positions of the number columns, in the order of the result.
        texts: positions of the columns to return as text; columns in neither list are ignored.
        dtype: dtype of the numbers, np.float32 or np.float64; may be changed between blocks.

    Attributes:
        numeric: indices in `numbers` of the columns with numbers in the file; the others hold categories.
    """

    def __init__(
        self,
        separator: str,
        count: int,
        numbers: Sequence[int],
        texts: Sequence[int] = (),
        dtype: type[np.floating[Any]] = np.float32,
    ) -> None:
        self.separator, self.count, self.numbers = separator, count, numbers
        self._texts, self.dtype = texts, dtype
        self.numeric: Sequence[int] = range(len(numbers))
        self._others = sorted(set(range(count)).difference(numbers))
        side_by_side = list(numbers) == list(range(numbers[0], numbers[0] + len(numbers)))
        self._chosen = slice(numbers[0], numbers[0] + len(numbers)) if side_by_side else np.array(numbers)
        self._decimals = Decimals(separator)

    def read_block(self, block: bytes) -> Block | None:
        """Returns the numbers and text cells of a block; None if the caller must use `read_fields` for each line."""
        quoted = b'"' in block
        if self._others and not (_is_text(block) and not (quoted and self.separator == "\t" and b' "' in block)):
            return None
        cut = sorted({*self._others, *self._texts}) if quoted else self._texts
        sign = self._decimals.sign
        layout = Layout(self.count, self._chosen, self.separator, sign, self.dtype)
        found = read_table(block, layout, partial(_read_fields, decimal=sign), cut)
        if found is None:
            return None
        cells = dict(zip(cut, found[1]))
        if quoted and not all(map(_is_plain, (cell for column in cells.values() for cell in column))):
            return None
        return found[0], [[cell.strip(b'"').decode() for cell in cells[place]] for place in self._texts]

    def read_fields(self, fields: Sequence[str]) -> list[float]:
        """Returns the numbers in the number columns of one line, from its fields.

        Raises:
            BadCell: the field of a number column is not a number, or not finite in float32.
            BadInput: the numbers have different decimal signs.
        """
        written = [fields[place] for place in self.numbers]
        return [
            self._read_cell(index, cell, text)
            for index, (cell, text) in enumerate(zip(self._decimals.pointed(written), written))
        ]

    def are_cells(self, fields: Sequence[str]) -> bool:
        """Whether the fields of all number columns look like numbers; if not, the separator may be wrong."""
        return all(csv_dialect.is_number(fields[place], self.separator) for place in self.numbers)

    def is_row(self, fields: Sequence[str]) -> bool:
        """Whether the fields of a line without numbers are cells of the model, not names of columns."""
        return False

    def _read_cell(self, index: int, cell: str, written: str) -> float:
        try:
            value = csv_dialect.number(cell)
        except ValueError:
            if not written.strip():
                raise BadCell(index, "the cell is empty") from None
            why, hint = _because(cell, written, self.separator)
            raise BadCell(index, f"{short(written)} is not a number{why}", hint) from None
        if not abs(value) < TOO_LARGE:
            raise BadCell(index, unlike_finite(value, written), is_number=True)
        return value


def _is_text(block: bytes) -> bool:
    """Whether a block is UTF-8 without the control bytes of other file formats."""
    if any(control in block for control in csv_dialect.CONTROLS):
        return False
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_plain(cell: bytes) -> bool:
    """Whether a cell has no quotes, or is quoted as a whole."""
    return b'"' not in cell or (cell[:1] == cell[-1:] == b'"' and len(cell) > 1 and cell.count(b'"') == 2)


def _read_fields(fields: list[bytes], decimal: str) -> list[float]:
    try:
        plain = plain_numbers(fields, decimal)
    except ValueError:
        plain = plain_numbers([_TRUTH.get(field.strip().lower(), field) for field in fields], decimal)
    return [float(field.replace(b",", b".")) for field in plain] if decimal == "," else list(map(float, plain))


def _because(cell: str, written: str, separator: str) -> tuple[str, str]:
    """Returns two texts: the reason, to put after "... is not a number", and a hint; both "" if the reason is unknown.

    `written` is the cell in the file; in `cell`, points replace its commas.
    """
    plain = csv_dialect.in_ascii(cell)
    if plain is not None:
        return f": write {plain}, with the digits 0 to 9", csv_dialect.to_ascii(written)
    if "," in written and "." in written:
        return ": leave out the thousands separator", ""
    if "," in written and csv_dialect.is_number(written, ";"):
        if separator != ",":  # the comma stands between thousands
            return ": the comma does not separate thousands", "write decimal points"
        return ": a decimal comma needs semicolons or tabs between the columns", DECIMAL_COMMA
    return "", ""


class CsvParser(Parser):
    """Parses rows of numbers with commas, semicolons or tabs between them, with or without a header line.

    With a header, columns are matched by feature name, in any order. The first line that fits the model decides the
    separator. Cells of the columns in `keep` are returned as text.
    """

    def __init__(self, names: tuple[str, ...], dtype: type[np.floating[Any]] = np.float32, **options: Any) -> None:
        super().__init__(names, dtype, **options)
        self._extra = list[str]()
        self._separated, self._first_row = False, 0  # the line after the header
        # Without a header, only the features are known by their places.
        self._unknown = [name for name in self._keep if name not in self._names]
        self._kept = [self._names.index(name) for name in self._keep if name in self._names]
        self._columns = self._make_columns(",", len(names), range(len(names)))

    def _make_columns(self, separator: str, count: int, numbers: Sequence[int]) -> Columns:
        return Columns(separator, count, numbers, self._kept)

    def parse(self, block: bytes) -> Parsed:
        """Parses a block that ends with a newline."""
        if self.header is None:
            block = self._take_header(block)
        found = None
        if not self._unknown:
            self._columns.dtype = self.dtype
            found = self._columns.read_block(block.replace(b"\r\n", b"\n") if b"\r" in block else block)
        if found is None:
            parsed = line_by_line(self, block, self._parse_line)
        else:
            first, self.line = self.line + 1, self.line + len(found[0])
            self._separated = self._separated or len(found[0]) > 0
            cells = [[cell.strip() for cell in column] for column in found[1]]
            parsed = Parsed(found[0], len(found[0]), kept=cells, lines=range(first, self.line + 1))
        if self.header is None and len(parsed.rows):
            self.header = False
        if self._extra:
            self.left_out.note(self._extra, parsed.count)
        return parsed

    # --- the header -----------------------------------------------------------------------------------------------
    def _take_header(self, block: bytes) -> bytes:
        """Takes the first line as the header if it names a feature; returns the block from its first row on."""
        block, self.line = csv_dialect.skip_preamble(block, self.line)
        whole, (block, above) = block, csv_dialect.skip_above_header(block, (*self._names, *self._unknown))
        line, _, rest = block.partition(b"\n")
        try:
            text = text_of(line.strip(b"\r "))
            separator = csv_dialect.separator_of_header(text, self._names)
        except BadInput:
            separator = None
        found = [] if separator is None else csv_dialect.header_names(fields_of(text, separator))
        is_row = all(csv_dialect.is_number(name, ";") for name in found) and not {*self._names} <= {*found}
        if separator is None or is_row:  # names of columns may be numbers, too
            if self._hash_begins_rows():
                return whole
            self.line += above
            return block
        self.header = True
        self.line += above + 1
        self._match(separator, found)
        return rest

    def _hash_begins_rows(self) -> bool:
        """Whether a line that begins with `#` may be a row, and not a comment."""
        return False

    def _match(self, separator: str, names: list[str]) -> None:
        counts = Counter(names)  # a header may have as many names as a line holds
        missing = [name for name in (*self._names, *self._unknown) if name not in counts]
        extra = [name for name in counts if name not in self._places]
        twice = [name for name, count in counts.items() if name and count > 1]
        if missing:
            near = csv_dialect.alike(missing[0], names)
            raise BadInput(
                f"line {self.line}: the header has no column {missing[0]!r}{more(missing)}"
                + (f"; {near!r} is similar, but not the same name" if near else ""),
                hint=f"the model has the columns {listed(self._names)}"
                + (f"; --keep asks for {listed(self._keep)}" if self._keep else ""),
            )
        if twice:
            said = f"line {self.line}: the header names the column {short(twice[0])} twice"
            raise BadInput(said, hint="rename one of the two columns, or leave it out of the file")
        if extra and not self._ignore_extra:
            said = f"column {names.index('') + 1} of the header has no name" if "" in extra else ""
            if named := list(filter(None, extra)):
                said = f"the model has no column {short(named[0])}{more(named)}"
            raise BadInput(f"line {self.line}: {said}", hint=f"{LEAVES_OUT}; --keep copies one to the answers")
        self._separated, self._first_row, self._extra = True, self.line + 1, list(filter(None, extra))
        self._unknown, self._kept = [], [names.index(name) for name in self._keep]
        self._columns = self._make_columns(separator, len(names), [names.index(name) for name in self._names])

    # --- the rows -------------------------------------------------------------------------------------------------
    def _parse_line(self, line: bytes) -> Line:
        text = text_of(line)
        columns = self._columns if self._separated else self._separate(text)
        fields = csv_dialect.without_tail(fields_of(text, columns.separator), columns.count)
        self._require_row(fields)
        try:
            return columns.read_fields(fields), [fields[place].strip() for place in self._kept]
        except BadCell as error:
            place = columns.numbers[error.index]
            where = f"column {place + 1} ({short(self._names[error.index])})"
            hint = self._hint_for(fields, place, error.hint) if error.index in columns.numeric else error.hint
            raise BadInput(f"{where}: {error}", hint=hint) from None

    def _hint_for(self, fields: list[str], place: int, hint: str) -> str:
        """Returns the hint for the field at `place`, which is not a number: `hint`, or how to remove its unit.

        If the line has the units of all columns, the hint begins with how to leave this line out.
        """
        if self.line == self._first_row and not any(
            csv_dialect.is_number(cell, ";") or unit_of(cell) for cell in fields
        ):
            units = f"is it a line of units? leave it out: sed {self.line}d FILE > rows.csv"
            return f"{units}; else: {hint}" if hint else units
        if fields[place].strip() == self._names[self._columns.numbers.index(place)]:
            return f"a header is read only above all rows; leave it out: sed {self.line}d FILE > rows.csv"
        if is_formula(fields[place]):
            return f"leave the number of each formula: {WITHOUT_FORMULAS} FILE > rows.csv"
        unit = unit_of(fields[place])
        return hint or (f"remove the unit {unit!r}: {without_units([unit])} FILE > rows.csv" if unit else "")

    def _separate(self, text: str) -> Columns:
        """Returns the model's columns with the separator that divides `text`, a row without a header, into numbers.

        Uses them for the next lines, too. If no separator gives numbers, returns columns for this line only, with a
        separator that gives the right number of fields if there is one: reading the line then fails at the bad field.

        Raises:
            BadInput: two separators give numbers, but different ones.
        """
        right, fitting, in_text = self._columns, list[Columns](), False
        for place, separator in enumerate(csv_dialect.SEPARATORS):
            if separator != "," and separator not in text:
                continue
            columns = self._make_columns(separator, self._columns.count, self._columns.numbers)
            with contextlib.suppress(BadInput):
                fields = csv_dialect.without_tail(fields_of(text, separator), columns.count)
                if len(fields) == columns.count:
                    right = columns
                    if columns.are_cells(fields):
                        fitting.append(columns)
                        later = csv_dialect.SEPARATORS[place + 1 :]
                        in_text = in_text or any(sign in field.strip() for sign in later for field in fields)
        if in_text and len(fitting) > 1:
            said = " and ".join(repr(columns.separator) for columns in fitting)
            said = f"the separator is unclear: {said} give different cells"
            raise BadInput(said, hint="write a header line above the rows")
        if fitting:
            self._columns, self._separated = fitting[0], True
        return fitting[0] if fitting else right

    def _require_row(self, fields: list[str]) -> None:
        hint = f"the model has the columns {listed(self._names)}"
        if len(fields) != self._columns.count:
            comment = "leave comments out: sed '/^#/d' FILE > rows.csv" if fields and fields[0][:1] == "#" else ""
            if len(fields) > self._columns.count and not self.header:
                hint += "; under a header line, --ignore-extra leaves out other columns"
            raise BadInput(
                f"expected {self._columns.count} columns, found {len(fields)}{self._why_no_header(fields)}",
                hint=comment or ("" if self.header else hint),
            )
        if self._unknown:
            way = "begin with a header line, or name the columns: JSON lines with keys"
            raise BadInput(f"no header line says which column is {self._unknown[0]!r} (--keep)", hint=way)
        if not any(map(str.strip, fields)):
            raise BadInput("all cells of the line are empty", hint="remove the line")
        if self.line == 1 and (why := self._why_no_header(fields)):
            raise BadInput(f"not numbers{why}", hint=hint)

    def _why_no_header(self, fields: list[str]) -> str:
        """Returns ", and no header either: REASON" for a first line without any number; "" for any other line."""
        if self.header or self.line > 1 or any(csv_dialect.is_number(text, ";") for text in fields):
            return ""
        if len(fields) == self._columns.count and self._columns.is_row(fields):
            return ""
        names = [text.strip() for text in fields]
        near = next(((own, found) for own in self._names if (found := csv_dialect.alike(own, names))), None)
        reason = f"{near[1]!r} is not the column {near[0]!r}" if near else "the line names no column of the model"
        return f", and no header either: {reason}"

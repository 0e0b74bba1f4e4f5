"""Detects separator and decimal sign of a text table.

Spreadsheets separate columns with commas, semicolons or tabs, and may write a decimal comma if commas do not separate.
Ambiguous input is an error: a comma that may also be a thousands separator, or text in another encoding. Host and
device both use this module, so that training rows and queries are read alike. No I/O; never accepts a number that can
be read in two ways.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence

from device_agent.shared.protocol.errors import BadInput

#: Column separators, the likeliest first.
SEPARATORS = (",", ";", "\t")
_SHEET = "save the table as CSV (UTF-8)"
_MEDIA = "this model takes rows; a model takes pictures or sounds if deploy.yaml has `input` for it"
#: First bytes of files that users mistake for CSV: (magic, what it is, how to convert it).
_FOREIGN = (
    (b"\xff\xfe\0\0", "UTF-32 text", "iconv -f UTF-32 -t UTF-8 FILE > rows.csv"),  # begins like UTF-16
    (b"\0\0\xfe\xff", "UTF-32 text", "iconv -f UTF-32 -t UTF-8 FILE > rows.csv"),
    (b"\xff\xfe", "UTF-16 text", "iconv -f UTF-16 -t UTF-8 FILE > rows.csv"),
    (b"\xfe\xff", "UTF-16 text", "iconv -f UTF-16 -t UTF-8 FILE > rows.csv"),
    (b"PK\x03\x04", "a spreadsheet or a zip archive", _SHEET),
    (b"\xd0\xcf\x11\xe0", "an old spreadsheet", _SHEET),
    (b"\x1f\x8b", "compressed with gzip", "gzip -dc FILE > rows.csv"),
    (b"BZh9", "compressed with bzip2", "bzip2 -dc FILE > rows.csv"),
    (b"\xfd7zXZ", "compressed with xz", "xz -dc FILE > rows.csv"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "zstd -dc FILE > rows.csv"),
    (b"\x93NUMPY", "an array in NPY", "numpy.savetxt writes CSV"),
    (b"\x80\x04\x95", "a pickle", "save the table as CSV, from the program that wrote the pickle"),
    (b"SQLite format 3", "an SQLite database", "sqlite3 -header -csv FILE 'SELECT * FROM NAME' > rows.csv"),
    (b"\x89HDF\r", "HDF5", "save the table as CSV"),
    (b"ARROW1\0", "Arrow (Feather)", "pyarrow.feather.read_table and pyarrow.csv.write_csv make CSV of it"),
    (b"%PDF-", "a PDF", "save the table as CSV"),
    (b"version https://git-lfs", "a pointer of Git LFS to the file", "git lfs pull"),
    (b"<?xml", "XML", _SHEET),
    (b"<!DOCTYPE", "a page in HTML, perhaps that of a login", _SHEET),
    (b"<html", "a page in HTML, perhaps that of a login", _SHEET),
    (b"\0\x05\x16\x07", "macOS metadata of another file", "take the file whose name does not begin with ._"),
    (b"\x89PNG", "a picture (PNG)", _MEDIA),
    (b"\xff\xd8\xff", "a picture (JPEG)", _MEDIA),
    (b"PAR1\x15", "Parquet", "convert the file to CSV"),  # a cell of text may begin with the first four
)
#: Each of these formats has one of these bytes near its start; CSV never has them.
CONTROLS = (b"\0", b"\r", b"\x03", b"\x15", b"\x1f")
#: The byte order mark of UTF-8, and first lines that set a spreadsheet's separator (the last is `sep=` and a tab).
_MARK = b"\xef\xbb\xbf"
_SEPARATOR_LINES = (b"sep=,", b"sep=;", b"sep=")
#: Lines above a header that are looked at.
_MAX_ABOVE = 20
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")


def skip_preamble(block: bytes, line: int = 0) -> tuple[bytes, int]:
    """Returns the block from its first header or row on, and the number of lines of the file before that.

    Skips blank lines, a byte order mark, and `sep=;` in the first line of the file. `line` is the number of lines of
    the file before the block.
    """
    while block:
        first, _, rest = block.partition(b"\n")
        first = first.removeprefix(_MARK).strip()
        if first and not (line == 0 and first in _SEPARATOR_LINES):
            break
        block, line = rest, line + 1
    return block.removeprefix(_MARK), line


def skip_above_header(block: bytes, names: Iterable[str]) -> tuple[bytes, int]:
    """Returns the block from its header on (the line with all `names` as columns), and the number of lines above it.

    The lines above the header may be units, a title, and comments that begin with `#`; the header may begin with `#`,
    too, unless one without it follows. If none of the first `_MAX_ABOVE` lines is a header, or a row stands above the
    header, skips only comments.
    """
    wanted, skipped, commented = set(names), list[bytes](), None
    rest, above = block, 0
    while rest and above < _MAX_ABOVE:
        line, _, after = rest.partition(b"\n")
        if commented and line.strip() and not line.startswith(b"#") and not _separator_of(line, wanted):
            break
        bare = line.lstrip(b"#").lstrip()
        for text in (bare, line) if line.startswith(b"# ") else dict.fromkeys((line, bare)):  # `#a` may be a name
            if separator := _separator_of(text, wanted):
                below = after.lstrip(b"\r\n ").partition(b"\n")[0]
                if not any(_is_row(each, text, below, separator, wanted) for each in skipped):
                    if not line.startswith(b"#"):
                        return text + b"\n" + after, above
                    commented = commented or (text + b"\n" + after, above)
        if line.count(b'"') % 2:  # a name goes on in the next line
            break
        skipped.append(line)
        rest, above = after, above + 1
    if commented:
        return commented
    above = 0
    while block.startswith(b"#"):
        block, above = block.partition(b"\n")[2], above + 1
    return block, above


def _separator_of(line: bytes, wanted: set[str]) -> str:
    """Returns the separator with which all names `wanted` are fields of a line; "" if there is none."""
    fields = ((each, _fields(line, each)) for each in SEPARATORS)
    return next((each for each, found in fields if wanted <= {field.strip() for field in found}), "")


def _is_row(line: bytes, header: bytes, below: bytes, separator: str, wanted: set[str]) -> bool:
    """Whether a line above a header is a row: it has numbers where the line `below` the header has some.

    Without a line below, all its fields must be numbers. Empty fields may be anything. A line of words is one, too, if
    `header` has a number beside the names `wanted`: then the line is the header, and a cell of `header` has that name.
    """
    names = header_names(_fields(header, separator))
    count = len(names)
    found, like = (without_tail(_fields(each, separator), count) for each in (line, below))
    kinds = [is_number(field, separator) for field in found]
    if not any(kinds) and any(is_number(name, separator) for name in {*names} - wanted):
        return len(found) == count
    usual = [is_number(field, separator) for field in like] or [True] * count
    alike = (a == b or not (x.strip() and y.strip()) for a, b, x, y in zip(kinds, usual, found, like or found))
    return len(found) == count == len(usual) and any(kinds) and all(alike)


def _fields(line: bytes, separator: str) -> list[str]:
    """Returns the fields of a line; [] if it cannot be read."""
    try:
        return fields_of(text_of(line.strip(b"\r ")), separator)
    except BadInput:
        return []


def text_of(line: bytes) -> str:
    """Decodes a line as text.

    Raises:
        BadInput: the line is not UTF-8 text, contains NUL or a carriage return, or begins like another file format;
            the hint says how to convert the file.
    """
    for magic, what, conversion in _FOREIGN:
        if line.startswith(magic):
            raise BadInput(f"not a line of CSV: the file is {what}", hint=conversion)
    if b"\0" in line:
        if line.startswith(b"RIFF"):
            raise BadInput("not a line of CSV: the file is a sound (WAV)", hint=_MEDIA)
        if line[4:8] == b"TFL3":
            raise BadInput("not a line of CSV: the file is a model (TFLite)", hint="name the file of the rows")
        hint = "remove zero bytes: tr -d '\\000' < FILE > rows.csv"
        if 3 * line.count(b"\0") > len(line):
            wide = "UTF-32" if 5 * line.count(b"\0") > 3 * len(line) else "UTF-16"
            order = "BE" if line.startswith(b"\0") else "LE"
            hint = f"is it {wide} without a byte order mark? iconv -f {wide}{order} -t UTF-8 FILE > rows.csv"
        raise BadInput("not a line of CSV: the line contains a zero byte", hint=hint)
    if b"\r" in line:
        hint = "if its lines end with CR alone: tr '\\r' '\\n' < FILE > rows.csv"
        raise BadInput("not a line of CSV: the line contains a carriage return", hint=hint)
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        hint = "save the file as UTF-8, or: iconv -f WINDOWS-1252 -t UTF-8 FILE > rows.csv"
        byte = line[error.start]
        raise BadInput(f"not a line of CSV: not UTF-8 text: byte {error.start} is {byte:#04x}", hint=hint) from None


def reader(lines: Iterable[str], separator: str) -> Iterator[list[str]]:
    """Yields the fields of each record; raises csv.Error if a quote is not closed, or in the wrong place."""
    return csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=separator != "\t")


def fields_of(text: str, separator: str) -> list[str]:
    """Returns the fields of a line.

    Raises:
        BadInput: a quote is not closed, or is in the wrong place.
    """
    try:
        return next(reader([text], separator), [])
    except csv.Error as error:
        hint = "close the quotation mark; double one inside a cell; give rows with line breaks in a cell as JSON lines"
        raise BadInput(f"not a line of CSV: {error}", hint=hint) from None


def separator_of_header(text: str, names: Iterable[str]) -> str | None:
    """Returns the separator with which a header line has the most of `names` as columns; None if it has none."""
    wanted = set(names)
    best, most = None, 0
    for separator in SEPARATORS:
        try:
            found = sum(field.strip() in wanted for field in fields_of(text, separator))
        except BadInput:
            continue
        if found > most:
            best, most = separator, found
    return best


def without_tail(fields: list[str], columns: int) -> list[str]:
    """Returns `fields` without empty ones at the end, which spreadsheets add; the first `columns` stay in any case."""
    end = len(fields)
    while end > columns and not fields[end - 1].strip():
        end -= 1
    return fields[:end]


def header_names(fields: list[str]) -> list[str]:
    """Returns the column names in the fields of a header line: stripped of blanks, without empty ones at the end."""
    return without_tail([field.strip() for field in fields], 0)


def has_controls(text: str) -> bool:
    """Whether a text has control characters below U+0020 other than tabs; `str.strip` would remove some of them."""
    return not text.isprintable() and any(each < " " and each != "\t" for each in text)


def number(text: str) -> float:
    """Returns the value of a field: a number with a decimal point and digits 0 to 9, `nan`, `inf`; true is 1, false 0.

    Raises:
        ValueError: the field is anything else, even if `float` would read it: `1_0`, digits of another script, or a
            number beside a control character.
    """
    if has_controls(text) or "_" in text or not (text.isascii() or text.strip().isascii()):
        raise ValueError("not a number")
    truth = TRUTH.get(text.strip().lower())
    return float(text) if truth is None else truth


def in_ascii(text: str) -> str | None:
    """Returns `text`, a number with digits or signs of another script, in ASCII; None for any other text."""
    if text.strip().isascii():
        return None
    plain = "".join(str(int(c)) if c.isdecimal() else _SIGNS_IN_ASCII.get(c, c) for c in text.strip())
    try:
        number(plain)
    except ValueError:
        return None
    return plain


def to_ascii(text: str) -> str:
    """Returns a command that writes the digits and signs of a number `text` in ASCII; `in_ascii` reads that number."""
    odd = dict.fromkeys(sign for sign in text.strip() if not sign.isascii())
    parts = [f"s/{sign}/{_SIGNS_IN_ASCII[sign]}/g" for sign in odd if sign in _SIGNS_IN_ASCII]
    zeros = dict.fromkeys(ord(digit) - int(digit) for digit in odd if digit.isdecimal())
    parts += [f"s/{chr(zero + digit)}/{digit}/g" for zero in zeros for digit in range(10)]
    return f"sed '{';'.join(parts)}' FILE > rows.csv"


def is_number(text: str, separator: str) -> bool:
    """Whether a field looks like a number (in any script) or a truth value; used to distinguish rows from headers.

    `separator` is the character between columns: if it is not a comma, a comma may be the decimal sign.
    """
    try:
        float(text if separator == "," else text.replace(",", ".", 1))
    except ValueError:
        return text.strip().lower() in TRUTH
    return True


#: Truth values, as programs write them in any case, and their numbers.
TRUTH = {"false": 0.0, "true": 1.0}


class DoubtfulComma(BadInput):
    """A number has a comma that may be a decimal sign or a thousands separator."""


class Decimals:
    """The decimal sign of a file: a point if commas separate the columns, else the first sign found in a number.

    Args:
        thousands: the thousands separator; "" if it is not stated.

    Attributes:
        sign: "." or ","; "" until a number with a decimal sign has been read.
    """

    def __init__(self, separator: str, thousands: str = "") -> None:
        self._commas_separate = separator == ","
        self._comma_is_usual = separator == ";" or thousands not in ("", ",")  # a comma can only be decimal
        self.sign = "." if self._commas_separate else ""
        self._first = ""  # the number that decided the sign

    def pointed(self, fields: Sequence[str]) -> list[str]:
        """Returns the fields of a line with decimal points instead of decimal commas; sets `sign` once it is known.

        Raises:
            DoubtfulComma: a comma may be a thousands separator.
            BadInput: a number has another decimal sign than an earlier number.
        """
        if self._commas_separate:
            return list(fields)
        pointed = [field.replace(",", ".") for field in fields]
        if not all(is_number(field, ";") for field in fields):
            return pointed  # reading them raises the error
        commas = [field for field in fields if "," in field]
        if commas and not self.sign and not self._comma_is_usual and all(map(is_grouped, commas)):
            hint = "write numbers with a decimal point, and nothing between thousands"
            raise DoubtfulComma(f"{commas[0].strip()!r}: is it a decimal comma, or a thousands separator?", hint=hint)
        for sign, other in (",.", ".,"):
            used = next((field for field in fields if sign in field), None)
            if used is not None and (self.sign == other or any(other in field for field in fields)):
                rival = next((field for field in fields if other in field), self._first).strip()
                hint = f"write all numbers with one sign, as in {used.strip().replace(sign, other)!r}"
                raise BadInput(f"{used.strip()!r} has {_SIGNS[sign]}, but {rival!r} has {_SIGNS[other]}", hint=hint)
        if not self.sign and (decimal := next((field for field in fields if "," in field or "." in field), "")):
            self.sign, self._first = "," if "," in decimal else ".", decimal
        return pointed


#: The Arabic decimal separator, and Unicode minus, plus and full stop.
_SIGNS_IN_ASCII = {"\u066b": ".", "\u2212": "-", "\uff0d": "-", "\uff0b": "+", "\uff0e": "."}
_SIGNS = {",": "a decimal comma", ".": "a decimal point"}


def is_grouped(text: str) -> bool:
    """Whether the commas in a number may separate thousands: in `1,234`, but not in `0,234` or `1,23`."""
    return _GROUPED.fullmatch(text.strip()) is not None


def alike(name: str, names: Iterable[str]) -> str | None:
    """Returns the first of `names` that differs from `name` only in case, blanks and punctuation; else None."""
    plain = _letters(name)
    return next((other for other in names if other != name and plain and _letters(other) == plain), None)


def _letters(name: str) -> str:
    from unicodedata import normalize

    return "".join(filter(str.isalnum, normalize("NFKC", name).casefold()))


def short(text: str) -> str:
    """Returns a text in quotes, at most 40 characters long, for a message."""
    return repr(text if len(text) <= 40 else text[:37] + "...")

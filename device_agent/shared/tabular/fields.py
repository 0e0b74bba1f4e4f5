"""Finds all fields of a text block by vectorised scans.

Lines have one separator between fields; numbers may have a decimal sign and an exponent. Does not parse numbers, and
returns columns of text unchanged.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.record import record

Places = NDArray[np.intp]
Mask = NDArray[np.bool_]

#: All columns.
ALL = slice(None)
#: Stands for the characters after the dot in a field without a dot; more than any parsed number has.
NO_DOT = 61
NEWLINE, _BLANK, _E = b"\n E"
_UPPER_CASE = np.uint8(0xDF)
_MOST_BLANKS = 16


@record
class Layout:
    """How lines of fields are written."""

    columns: int  # number of fields of each line
    numbers: Places | slice = ALL  # positions of the number columns, in the order of the result
    separator: str = ","  # the character between fields
    decimal: str = "."  # the decimal sign; "" if none is allowed
    dtype: type[np.floating[Any]] = np.float32  # dtype of the result, np.float32 or np.float64
    #: whether to leave `+1`, `01`, `.5`, `5.` and `-0` to the caller; JSON rejects or reads them differently.
    strict: bool = False


@record
class Fields:
    """Positions of the fields of a text; each array has one entry per field."""

    starts: Places  # position of the first character that is not a blank
    stops: Places  # position after the number, without its exponent
    ends: Places  # position of the separator or newline
    #: number of characters after the dot, before `stops`; `NO_DOT` without a dot. None if no field has a dot or an
    #: exponent.
    after: Places | None = None

    def cut(self, text: bytes, which: slice | Places) -> list[bytes]:
        """Returns the text of the fields with the indices `which`."""
        return [text[start:end] for start, end in zip(self.starts[which].tolist(), self.ends[which].tolist())]

    def choose(self, layout: Layout) -> Fields:
        """Returns only the fields of the number columns, line by line."""

        def of(part: Places) -> Places:
            return part.reshape(-1, layout.columns)[:, layout.numbers].ravel()

        after = None if self.after is None else of(self.after)
        return Fields(of(self.starts), of(self.stops), of(self.ends), after)


def find_fields(text: bytes, codes: NDArray[np.uint8], layout: Layout) -> Fields:
    """Returns all fields of `text`; `codes` are its bytes as an array."""
    found = (codes == ord(layout.separator)) | (codes == NEWLINE)
    after, has_decimals = None, layout.decimal and layout.decimal.encode() in text
    if has_decimals or b"e" in text or b"E" in text:
        if has_decimals:
            found |= codes == ord(layout.decimal)
        found |= codes & _UPPER_CASE == _E
        ends, stops, after = _sort(np.flatnonzero(found), codes, layout)
    else:
        ends = stops = np.flatnonzero(found)
    return Fields(find_starts(ends, codes, _MOST_BLANKS if b" " in text else 0), stops, ends, after)


def _sort(marks: Places, codes: NDArray[np.uint8], layout: Layout) -> tuple[Places, Places, Places]:
    """Returns where each field ends, where its number without exponent ends, and how many digits follow its dot.

    `marks` are the positions of all separators, newlines, decimal signs and letters e, `codes` the bytes of the text.
    """
    kinds = codes.take(marks)
    dots, letters = kinds == ord(layout.decimal or "\0"), kinds >= _E
    end = np.flatnonzero(~(dots | letters))
    stop = end - letters.take(end - 1)
    ends, stops = marks.take(end), marks.take(stop)
    return ends, stops, np.where(dots.take(stop - 1), stops - marks.take(stop - 1) - 1, NO_DOT)


def find_starts(ends: Places, codes: NDArray[np.uint8], blanks: int = 0) -> Places:
    """Returns where each field begins, after at most `blanks` blanks; `ends` are the positions where fields end."""
    starts = np.empty_like(ends)
    starts[0] = 0
    np.add(ends[:-1], 1, out=starts[1:])
    for _ in range(blanks):
        blank = codes.take(starts) == _BLANK
        if not blank.any():
            break
        starts += blank
    return starts


def check_layout(last: Mask, columns: int) -> None:
    """Raises ValueError unless all lines have `columns` fields; `last` is True for the last field of each line."""
    if np.count_nonzero(last) * columns != len(last) or not last[columns - 1 :: columns].all():
        raise ValueError("a line has a different number of fields")

"""Where the fields of a block of text lie, found on all of its characters at once.

Takes lines of fields with one separator between them, in which numbers may have a sign before their decimals and an
exponent. Reads no number, and cuts columns of text out as they are.
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
#: The number of characters after the dot where there is no dot: more than any number has that is read.
NO_DOT = 61
NEWLINE, _BLANK, _E = b"\n E"
_UPPER_CASE = np.uint8(0xDF)
_MOST_BLANKS = 16


@record
class Layout:
    """How lines of fields are written.

    Attributes:
        columns: how many fields each line must have.
        numbers: places of the columns that hold numbers, in the order of the result.
        separator: the character between fields.
        decimal: the character before decimals; empty where none may stand.
        dtype: of the result: np.float32 or np.float64.
        strict: whether `+1`, `01`, `.5`, `5.` and `-0`, which JSON refuses or takes otherwise, are not read here.
    """

    columns: int
    numbers: Places | slice = ALL
    separator: str = ","
    decimal: str = "."
    dtype: type[np.floating[Any]] = np.float32
    strict: bool = False


@record
class Fields:
    """Where the fields of a text lie; each array has one entry for each field.

    Attributes:
        starts: place of the first character, blanks in front of it left out.
        stops: place of the character behind the number, its exponent left out.
        ends: place of the comma or newline.
        after: characters between the dot and `stops`, or `NO_DOT`; None where no field has a dot or an exponent.
    """

    starts: Places
    stops: Places
    ends: Places
    after: Places | None = None

    def cut(self, text: bytes, which: slice | Places) -> list[bytes]:
        """Returns some of the fields as they are written."""
        return [text[start:end] for start, end in zip(self.starts[which].tolist(), self.ends[which].tolist())]

    def choose(self, layout: Layout) -> Fields:
        """Returns the fields of the columns that hold numbers, line by line."""

        def of(part: Places) -> Places:
            return part.reshape(-1, layout.columns)[:, layout.numbers].ravel()

        after = None if self.after is None else of(self.after)
        return Fields(of(self.starts), of(self.stops), of(self.ends), after)


def find_fields(text: bytes, codes: NDArray[np.uint8], layout: Layout) -> Fields:
    """Returns all fields of a text, which is also given as its characters."""
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
    """Takes all separators, newlines, dots and letters e. Before the first of them is, by -1, the last: a newline."""
    kinds = codes.take(marks)
    dots, letters = kinds == ord(layout.decimal or "\0"), kinds >= _E
    end = np.flatnonzero(~(dots | letters))
    stop = end - letters.take(end - 1)
    ends, stops = marks.take(end), marks.take(stop)
    return ends, stops, np.where(dots.take(stop - 1), stops - marks.take(stop - 1) - 1, NO_DOT)


def find_starts(ends: Places, codes: NDArray[np.uint8], blanks: int = 0) -> Places:
    """Returns where the fields start that have these `ends`, behind as many as `blanks` blanks."""
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
    """Takes which fields are the last of their line; raises ValueError where one has another number of columns."""
    if np.count_nonzero(last) * columns != len(last) or not last[columns - 1 :: columns].all():
        raise ValueError("a line has another number of fields")

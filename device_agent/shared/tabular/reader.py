"""Base class and result record of the parsers of rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.queries import cell_type
from device_agent.shared.tabular.csv_dialect import short

#: Most unknown columns that are counted by name.
_MAX_NAMES = 100
if TYPE_CHECKING:
    from device_agent.shared.protocol.model_info import KnnInfo

_NUMBER_BYTES = b"0123456789+-eE \t"


@dataclass(frozen=True)
class Parsed:
    """The parsed lines of a block, without blank ones."""

    rows: NDArray[Any]  # (n, n_features) of the parser's `dtype`, the good lines in order
    count: int  # number of lines, good and bad: each gets one answer
    #: index among the `count` lines -> (line number in the input, message).
    errors: dict[int, tuple[int, str]] = field(default_factory=dict)
    hint: str = ""  # what to do about the first error; may be ""
    #: for each column or key that the parser was given as `keep`, its values in the good lines.
    kept: Sequence[Sequence[Any]] = ()
    lines: Sequence[int] = ()  # line number of each good line in the input
    #: only with windows: (line number, message) of each line that interrupts a window; it gets no answer.
    bad: Sequence[tuple[int, str]] = ()
    samples: int = 0  # only with windows: number of good lines; `rows` are the windows that they complete


#: Counts by column, by the names of `documents.CellCounts`.
Counts = dict[str, dict[str, int]]
#: The numbers of a line, and its values in the columns that are kept.
Line = tuple[list[float] | NDArray[np.float32], Sequence[Any]]


class Parser:
    """Parses blocks of whole lines into rows.

    Args:
        names: names of the columns or keys of a line's numbers.
        dtype: dtype of the numbers, np.float32 or np.float64; may be changed between blocks.
        ignore_extra: whether to ignore columns or keys that the model does not have; else they are an error.
        keep: columns or keys whose values are returned with each row; they need not be features.

    Attributes:
        header: whether there is a header line; None until that is known.
        line: number of the last line that was read.
        left_out: counts the lines with columns that the model does not have, by column.
    """

    header: bool | None = None

    def __init__(
        self,
        names: tuple[str, ...],
        dtype: type[np.floating[Any]] = np.float32,
        *,
        ignore_extra: bool = False,
        keep: Sequence[str] = (),
    ) -> None:
        self.line, self.dtype = 0, dtype
        self._names, self._keep, self._ignore_extra = names, keep, ignore_extra
        self._places = {*names, *keep}
        self.left_out = LeftOut()

    def parse(self, block: bytes) -> Parsed:
        """Returns the rows and errors of a block of whole lines, which ends with a newline.

        Raises:
            BadInput: the header does not fit the model.
        """
        raise NotImplementedError

    def _parse_line(self, line: bytes) -> Line:
        raise NotImplementedError

    def take_counts(self) -> Counts:
        """Returns kind of count -> {column: count since the last call}.

        The kind `left_out` counts the lines with a column that the model does not have.
        """
        return {"left_out": self.left_out.take()}

    def blocks(self, block: bytes) -> Iterator[bytes]:
        """Yields the parts of a block that are to be parsed one after the other; by default, the whole block."""
        yield block

    def follow(self, info: KnnInfo, chain: Any) -> None:
        """From now on, parses rows for another model with the same columns: its knn.json `info`, its stages `chain`."""
        self.dtype = cell_type(info)

    def describe_gaps(self) -> str:
        """Returns text about bad or missing lines and jumps of time that interrupted windows; "" without any."""
        return ""

    def count_jumps(self) -> int:
        """Returns the number of gaps where the time of a sample jumps, though no line is bad; 0 without windows."""
        return 0

    def why_empty(self) -> tuple[str, str]:
        """Returns the message for an input without rows, and a hint."""
        return "the input has no rows", "give at least one line of cells"


class LeftOut:
    """Counts lines with columns that the model does not have; for new columns, calls `tell` with a message."""

    def __init__(self) -> None:
        self.tell: Callable[[str], None] = lambda _: None
        self.lines: dict[str, int] = {}

    def note(self, names: Sequence[str], lines: int) -> None:
        """Counts `lines` lines with the columns `names`; counts only the first `_MAX_NAMES` different columns."""
        new = [name for name in names if name not in self.lines][: max(0, _MAX_NAMES - len(self.lines))]
        if new:
            self.tell(f"the model has no column {short(new[0])}{more(new)}: left out")
        for name in (*new, *(name for name in names if name in self.lines)):
            self.lines[name] = self.lines.get(name, 0) + lines

    def take(self) -> dict[str, int]:
        """Returns column -> number of lines with it since the last call."""
        found = {name: count for name, count in self.lines.items() if count}
        self.lines = dict.fromkeys(self.lines, 0)
        return found


def line_by_line(parser: Parser, block: bytes, parse_line: Callable[[bytes], Line]) -> Parsed:
    """Parses a block with `parse_line`, which raises BadInput for a bad line; skips blank lines, but numbers them."""
    good: list[list[float] | NDArray[np.float32]] = []
    kept: list[Sequence[Any]] = []
    lines: list[int] = []
    errors: dict[int, tuple[int, str]] = {}
    hints: list[str] = []
    for line in block.split(b"\n")[:-1]:
        parser.line += 1
        if not line.strip(b"\r \t"):
            continue
        try:
            numbers, values = parse_line(line.strip(b"\r "))
        except BadInput as error:
            errors[len(good) + len(errors)] = (parser.line, str(error))
            hints.append(error.hint)
        else:
            good.append(numbers)
            kept.append(values)
            lines.append(parser.line)
    rows = np.array(good, np.float64).astype(parser.dtype) if good else np.empty((0, 0), parser.dtype)
    return Parsed(rows, len(good) + len(errors), errors, hints[0] if hints else "", list(zip(*kept)), lines)


def without_rows(parsed: Parsed, bad: Mapping[int, BadInput]) -> Parsed:
    """Returns `parsed` with some good rows turned into bad lines; `bad` maps the index of each to its error."""
    if not bad:
        return parsed
    places = [place for place in range(parsed.count) if place not in parsed.errors]
    new = {places[index]: (parsed.lines[index], str(error)) for index, error in bad.items()}
    errors = dict(sorted({**parsed.errors, **new}.items()))
    hint = parsed.hint if next(iter(errors)) in parsed.errors else bad[min(bad)].hint
    good = [index for index in range(len(places)) if index not in bad]
    kept = [[column[index] for index in good] for column in parsed.kept]
    lines = [parsed.lines[index] for index in good]
    return replace(parsed, rows=parsed.rows[good], errors=errors, hint=hint, kept=kept, lines=lines)


def plain_numbers(fields: list[bytes], decimal: str = ".") -> list[bytes]:
    """Returns `fields` unchanged if all characters are those of plain numbers; `nan` and `1_0` have others.

    Raises:
        ValueError: a field has a character that is not a digit, sign, blank, e or `decimal`.
    """
    if b"".join(fields).translate(None, _NUMBER_BYTES + decimal.encode()):
        raise ValueError("not a number")
    return fields


def unlike_finite(value: float, text: str) -> str:
    """Returns the message for a number `value` that float32 cannot hold; `text` is the number in the input."""
    return f"{short(text)} is {'too large for float32' if math.isfinite(value) else 'not a finite number'}"


def more(names: Sequence[str]) -> str:
    """Returns " (nor N more)", to put after the first of `names`, if there are N others; "" if there are none."""
    return f" (nor {len(names) - 1} more)" if len(names) > 1 else ""

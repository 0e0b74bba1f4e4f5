"""Parser of samples: lines become windows.

Reads lines of samples by the rules of plain rows, and returns the windows that they complete. A bad line is reported,
and no window contains it; a window that the stages refuse is reported, too. Loaded only for a model with windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.console.lists import listed
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.input_info import Window
from device_agent.shared.protocol.record import record
from device_agent.shared.tabular.csv_reader import Block, Columns, CsvParser
from device_agent.shared.tabular.json_reader import JsonParser
from device_agent.shared.tabular.reader import Parsed, Parser
from device_agent.shared.windows.cutter import Cutter, Gaps
from device_agent.shared.windows.times import Times

if TYPE_CHECKING:
    from device_agent.shared.embedding.chain import Chain
    from device_agent.shared.protocol.model_info import KnnInfo

#: Most bytes of the windows that one block of text may become.
_MOST_BYTES = 1 << 23
#: If the time jumps at more than one in so many samples, the columns may have another order.
_MANY = 4


@record
class Cut:
    """m windows of samples."""

    rows: NDArray[Any]  # (m, rows * columns); with stages, the rows that the stages make of the windows
    ends: Sequence[int]  # index of each window's last sample
    last: Sequence[int]  # line number of that sample
    #: m first lines, m last lines and, if samples have a time, m first times and m last times
    marks: Sequence[Sequence[Any]]
    bad: Sequence[tuple[int, str]] = ()  # (last line, reason) of each window that the stages refuse


class _Columns(Columns):
    """The columns of samples; one of them may hold times as text."""

    times: Times
    time: int  # its index among the numbers

    def read_block(self, block: bytes) -> Block | None:
        return None if self.times.are_text else super().read_block(block)

    def are_cells(self, fields: Sequence[str]) -> bool:
        return super().are_cells(self._without_text(fields)[0])

    def read_fields(self, fields: Sequence[str]) -> list[float]:
        plain, seconds = self._without_text(fields)
        found = super().read_fields(plain)
        self.times.are_text = seconds is not None
        if seconds is not None:
            found[self.time] = seconds
        return found

    def _without_text(self, fields: Sequence[str]) -> tuple[Sequence[str], float | None]:
        """Returns `fields` with 0 in place of a time in text, and the time in seconds; else (`fields`, None)."""
        place = self.numbers[self.time]
        seconds = self.times.read(fields[place])
        return (fields, None) if seconds is None else ([*fields[:place], "0", *fields[place + 1 :]], seconds)


def _recording(window: Window, keep: Sequence[str]) -> list[str]:
    """Returns [name of the column that tells recordings apart]; [] if there is none, or if `keep` has it already."""
    return [] if window.recording is None or window.recording in keep else [window.recording]


class _Csv(CsvParser):
    """Parses samples as CSV lines; the column `recording` may be absent, and times may be text."""

    def __init__(self, window: Window, keep: Sequence[str], times: Times | None, *, ignore_extra: bool) -> None:
        self._recording, self._times = _recording(window, keep), times
        super().__init__(window.numbers, np.float64, ignore_extra=ignore_extra, keep=[*keep, *self._recording])
        self._unknown = [name for name in self._unknown if name not in self._recording]

    def _make_columns(self, separator: str, count: int, numbers: Sequence[int]) -> Columns:
        if self._times is None:
            return super()._make_columns(separator, count, numbers)
        made = _Columns(separator, count, numbers, self._kept)
        made.times, made.time = self._times, len(numbers) - 1
        return made

    def _match(self, separator: str, names: list[str]) -> None:
        self._keep = [name for name in self._keep if name in names or name not in self._recording]
        super()._match(separator, names)


class _Json(JsonParser):
    """Parses samples as JSON lines; the key `recording` may be absent, and times may be text."""

    has_keys = False  # whether a line was an object

    def __init__(self, window: Window, keep: Sequence[str], times: Times | None, *, ignore_extra: bool) -> None:
        self._recording, self._times = _recording(window, keep), times
        super().__init__(window.numbers, np.float64, ignore_extra=ignore_extra, keep=keep)
        self._places.update(self._recording)

    def _read_value(self, index: int, value: Any) -> float:
        if self._times is None or index < len(self._names) - 1:
            return super()._read_value(index, value)
        seconds = self._times.read(value) if isinstance(value, str) else None
        found = super()._read_value(index, value) if seconds is None else seconds
        self._times.are_text = seconds is not None
        return found

    def _from_object(self, found: dict[str, Any]) -> list[Any]:
        self.has_keys = True
        return super()._from_object(found)

    def _kept(self, found: dict[str, Any] | list[Any]) -> list[Any]:
        values = [found.get(name) if isinstance(found, dict) else None for name in self._recording]
        return [*super()._kept(found), *values]


class WindowParser(Parser):
    """Parses lines of samples. `Parsed.rows` are the completed windows, `Parsed.lines` the lines of their last samples.

    Args:
        format: csv or jsonl.
        keep: further columns; a window has the values of its last sample.
        dtype: dtype of the windows; samples are read and cut as float64.
        chain: the stages that turn windows into rows; None if windows are the rows.

    Attributes:
        gaps: the gaps found so far.
    """

    def __init__(
        self,
        window: Window,
        format: str,
        *,
        ignore_extra: bool = False,
        keep: Sequence[str] = (),
        dtype: type[np.floating[Any]] = np.float64,
        chain: Chain | None = None,
    ) -> None:
        self.dtype, self.chain = dtype, chain
        self._keep = tuple(keep)
        self._place_of_name = self._keep.index(window.recording) if window.recording in keep else len(keep)
        made = _Csv if format == "csv" else _Json
        # A time that is one of the columns is a number of the row.
        self._times = Times() if window.time is not None and window.time not in window.columns else None
        self._parser = made(window, self._keep, self._times, ignore_extra=ignore_extra)
        self.gaps = Gaps(window.gap)
        self._counted = {"lines": 0, "times": 0}
        self._begin(window)

    @property
    def line(self) -> int:
        """Number of the last line that was read."""
        return self._parser.line

    @line.setter
    def line(self, number: int) -> None:
        self._parser.line = number

    def follow(self, info: KnnInfo, chain: Chain | None) -> None:
        """From now on, parses for another model; drops the stored samples if its windows are different."""
        super().follow(info, chain)
        self.chain = chain
        if info.window is not None and info.window != self._window:
            self._begin(info.window)

    def _begin(self, window: Window) -> None:
        self._window, self._cutter = window, Cutter(window.rows, window.hop)
        self._per_block = max(1, _MOST_BYTES // (8 * window.size)) * window.hop
        self.gaps.limit = window.gap

    def blocks(self, block: bytes) -> Iterator[bytes]:
        """Yields a block of lines in parts that are small enough for their windows to fit into memory."""
        ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + 1
        for part in self.parts(len(ends)):
            yield block[ends[part.start - 1] if part.start else 0 : ends[part][-1]]

    def parts(self, count: int) -> Iterator[slice]:
        """Divides `count` samples; yields slices that are small enough for their windows to fit into memory."""
        for start in range(0, count, self._per_block):
            yield slice(start, min(count, start + self._per_block))

    def parse(self, block: bytes) -> Parsed:
        """Parses a block that ends with a newline."""
        found = self.read(block)
        bad = [found.errors[place] for place in sorted(found.errors)]
        if not len(found.rows):
            return Parsed(np.empty((0, self._window.size), self.dtype), 0, bad=bad, hint=found.hint)
        named = self._window.recording and self._place_of_name < len(found.kept)
        cut = self.cut(found.rows, found.lines, found.kept[self._place_of_name] if named else None)
        kept = [[column[end] for end in cut.ends] for column in found.kept[: len(self._keep)]]
        bad += cut.bad
        return Parsed(cut.rows, len(cut.rows), {}, found.hint, [*cut.marks, *kept], cut.last, bad, len(found.rows))

    def read(self, block: bytes) -> Parsed:
        """Parses a block like `parse`, but returns its samples instead of windows."""
        found = self._parser.parse(block)
        self.header = self._parser.header
        return found

    def arrays(self, arrays: Iterable[NDArray[Any]]) -> Iterator[Cut]:
        """Yields the windows of (n, n_numbers) arrays of samples, which follow one another without a gap.

        A sample with NaN or infinity is a bad line: no window spans it. Lines are numbered from 0.

        Raises:
            BadInput: the stages refuse a window.
        """
        before = 0
        for wide in arrays:
            for part in self.parts(len(wide)):
                samples = wide[part].astype(np.float64)
                with np.errstate(over="ignore"):
                    good = np.isfinite(samples.astype(np.float32)).all(axis=1)
                cut = self.cut(samples[good], (before + part.start + np.flatnonzero(good)).tolist())
                if cut.bad:
                    raise BadInput("rows[{}]: {}".format(*cut.bad[0]))
                yield cut
            before += len(wide)

    def take_counts(self) -> dict[str, dict[str, int]]:
        """Returns {"gaps": cause -> number since the last call}; causes are `lines` (bad or missing) and `times`."""
        gone, self._counted = self._counted, {"lines": self.gaps.lines, "times": self.gaps.times}
        return {"gaps": {cause: count - gone[cause] for cause, count in self._counted.items() if count > gone[cause]}}

    def describe_gaps(self) -> str:
        """Returns text about bad or missing lines and jumps of time that interrupted windows; "" without any."""
        said = self.gaps.describe()
        has_names = self.header is not False or (isinstance(self._parser, _Json) and self._parser.has_keys)
        if has_names or _MANY * self.gaps.times <= self.gaps.samples:
            return said
        return f"{said}; a line without names has the columns {listed(self._window.numbers)}"

    def count_jumps(self) -> int:
        """Returns the number of gaps where the time jumps."""
        return self.gaps.times

    def why_empty(self) -> tuple[str, str]:
        """Returns the message for samples that complete no window, and a hint."""
        said = self.describe_gaps()
        count = f"no window of {self._window.rows} samples is complete: the input has {self.gaps.samples:,}"
        return count + (f", and {said}" if said else ""), f"give at least {self._window.rows} samples without a gap"

    def cut(self, samples: NDArray[Any], lines: Sequence[int], names: Sequence[Any] | None = None) -> Cut:
        """Returns the windows that (n, n_numbers) samples complete.

        `lines` are the line numbers of the samples, `names` their recordings (None: all samples are of one recording).
        """
        window, width = self._window, len(self._window.columns)
        place = window.numbers.index(window.time) if window.time else 0
        times = samples[:, place] if window.time else None
        windows, ends = self._cutter.feed(samples, self.gaps.find(lines, times, names))
        last = [lines[end] for end in ends.tolist()]
        marks: list[Sequence[Any]] = [[line - window.rows + 1 for line in last], last]
        if window.time:
            both = windows[:, 0, place].tolist(), windows[:, -1, place].tolist()
            marks += both if self._times is None else map(self._times.write, both)
        with np.errstate(over="ignore"):
            rows = windows[:, :, :width].reshape(len(windows), window.size).astype(self.dtype)
        found = Cut(rows, ends.tolist(), last, marks)
        return found if self.chain is None or not len(rows) else self._embedded(found, self.chain)

    def _embedded(self, cut: Cut, chain: Chain) -> Cut:
        made, good, bad = [], [], []
        for place, row in enumerate(chain.each(np.asarray, cut.rows)):
            if isinstance(row, BadInput):
                bad.append((cut.last[place], f"the window that ends in this line: {row}"))
            else:
                made.append(row)
                good.append(place)
        ends, last, *marks = ([column[place] for place in good] for column in (cut.ends, cut.last, *cut.marks))
        rows = np.array(made, self.dtype) if made else cut.rows[:0]
        return Cut(rows, ends, last, marks, bad)

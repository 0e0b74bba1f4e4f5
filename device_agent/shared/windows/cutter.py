"""Cuts windows from samples that arrive in pieces.

Host and device use this code: a recording and a live stream give the same windows, however they are read. The first
window of a run (samples without a gap) begins at its first sample, each next one `hop` samples later. No window has
samples from both sides of a gap. Stores only the samples that a later window needs. No I/O, no clock.

    cutter, gaps = Cutter(rows=128, hop=64), Gaps(limit=0.1)
    windows, ends = cutter.feed(samples, gaps.find(lines, times))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


class Cutter:
    """Stores the samples that the next windows need, and returns windows when they are complete.

    Args:
        rows: samples of a window, at least 1.
        hop: samples from the beginning of one window to the beginning of the next, at least 1.
    """

    def __init__(self, rows: int, hop: int) -> None:
        self._rows, self._hop = rows, hop
        self._ring: Float64 | None = None  # samples of this run, from the beginning of the next window on
        self._skip = 0  # samples until the next window begins

    def feed(self, samples: Float64, breaks: NDArray[np.bool_]) -> tuple[Float64, NDArray[np.int64]]:
        """Adds the next samples; returns the windows that they complete.

        Args:
            samples: (n, c) numbers, in their order.
            breaks: (n,) bool: whether there is a gap, which no window spans, before each sample.

        Returns:
            (m, rows, c) windows, and the (m,) index in `samples` of the last sample of each.
        """
        runs = np.split(samples, np.flatnonzero(breaks))
        windows, ends, start = [], [], 0
        for number, run in enumerate(runs):
            if number:
                self._ring, self._skip = None, 0
            found, places = self._extend(run)
            windows.append(found)
            ends.append(places + start)
            start += len(run)
        return np.concatenate(windows), np.concatenate(ends)

    def _extend(self, samples: Float64) -> tuple[Float64, NDArray[np.int64]]:
        """Adds (n, c) samples without a gap; returns complete windows, and the index of the last sample of each."""
        skipped = min(self._skip, len(samples))
        held = 0 if self._ring is None else len(self._ring)
        ring = samples[skipped:] if self._ring is None else np.concatenate([self._ring, samples[skipped:]])
        count = max(0, (len(ring) - self._rows) // self._hop + 1)
        used = count * self._hop
        self._skip += max(0, used - len(ring)) - skipped
        self._ring = ring[used:].copy()
        ends = skipped - held + self._rows - 1 + self._hop * np.arange(count, dtype=np.int64)
        if not count:
            return np.empty((0, self._rows, samples.shape[1])), ends
        views = np.lib.stride_tricks.sliding_window_view(ring, self._rows, axis=0)[:: self._hop]
        return views[:count].transpose(0, 2, 1), ends


class Gaps:
    """Finds the gaps between samples, and counts them.

    Args:
        limit: longest time from one sample to the next, in the unit of the times; None: times are not checked.

    Attributes:
        lines: number of gaps where lines are bad or missing.
        times: number of gaps where the time goes back, or jumps by more than the limit.
        recordings: number of changes from one recording to another.
        samples: number of samples.
        step: usual time from one sample to the next; 0 if it is not known.
    """

    def __init__(self, limit: float | None = None) -> None:
        self.limit = limit
        self.lines = self.times = self.recordings = self.samples = 0
        self.step = 0.0
        self._line: int | None = None
        self._time = 0.0
        self._name: Any = None

    def describe(self) -> str:
        """Returns text about the bad or missing lines and jumps of time so far; "" if there were none."""
        jumps = "where the time jumps"
        if self.limit is not None and self.step > self.limit:
            jumps += f" (the usual step is {self.step:g}, and `gap` {self.limit:g})"
        kinds = ((self.lines, "where lines are bad or missing"), (self.times, jumps))
        parts = [f"{count:,} {where}" for count, where in kinds if count]
        total = self.lines + self.times
        return f"{total:,} {'gap breaks' if total == 1 else 'gaps break'} windows: {', '.join(parts)}" if parts else ""

    def find(
        self, lines: Sequence[int], times: Float64 | None = None, names: Sequence[Any] | None = None
    ) -> NDArray[np.bool_]:
        """Returns (n,) bool: whether there is a gap before each of the next samples; counts the gaps by cause.

        A gap is a bad or missing line, a jump of time, or the start of another recording.

        Args:
            lines: (n,) line number of each sample.
            times: (n,) time of each sample; needed with a limit.
            names: (n,) recording of each sample; None: all belong to one recording.
        """
        if not len(lines):
            return np.zeros(0, np.bool_)
        first, self.samples = self._line is None, self.samples + len(lines)
        other = np.zeros(len(lines), np.bool_)
        if names is not None:
            before = [names[0] if first else self._name, *names[:-1]]
            other = np.array([name != last for name, last in zip(names, before)])
            self._name = names[-1]
        numbers = np.asarray(lines, np.int64)
        missing = (np.diff(numbers, prepend=numbers[0] - 1 if self._line is None else self._line) != 1) & ~other
        self._line = int(numbers[-1])
        jumps = np.zeros(len(lines), np.bool_)
        if self.limit is not None and times is not None:
            steps = np.diff(times, prepend=times[0] if first else self._time)
            if not self.step and (ahead := steps[steps > 0.0]).size:
                self.step = float(np.median(ahead))
            jumps = ((steps < 0.0) | (steps > self.limit)) & ~other & ~missing
            self._time = float(times[-1])
        self.recordings += int(other.sum())
        self.lines += int(missing.sum())
        self.times += int(jumps.sum())
        found: NDArray[np.bool_] = other | missing | jumps
        return found

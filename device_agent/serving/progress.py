"""Progress line of a batch on standard error."""

from __future__ import annotations

import sys
import time

_PROGRESS_SECONDS = 0.5


class Progress:
    """Progress line on standard error, if that is a terminal."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._start = self._last = time.monotonic()

    def show(self, count: int) -> None:
        """Shows the number of answered rows and the rate, at most twice a second."""
        if not self._shown:
            return
        now = time.monotonic()
        if now - self._last >= _PROGRESS_SECONDS:
            self._last = now
            rate = count / (now - self._start)
            print(f"\r{count:,} rows, {rate:,.0f} a second", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Ends the progress line with a newline."""
        if self._shown and self._last != self._start:
            print(file=sys.stderr)

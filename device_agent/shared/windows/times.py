"""Times of samples: numbers, or dates with times of day.

Text such as 2026-01-31T12:00:00.02+01:00 (ISO 8601, RFC 3339) becomes seconds since 1970. A time without a zone counts
as UTC. `Times` reads only this text; the caller reads numbers. No I/O, no clock.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable

_TEXT = re.compile(
    r"\s*(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,12}))?)?\s*"
    r"([Zz]|([+-])([01]\d|2[0-3]):?([0-5]\d)?)?\s*",
    re.ASCII,
)
_EPOCH = datetime.datetime(1970, 1, 1)


class Times:
    """Reads dates with times of day, and writes times in the form in which they were read.

    Attributes:
        are_text: whether `write` returns text; `read` sets it for a date, the caller clears it for a number.
    """

    def __init__(self) -> None:
        self.are_text = self._zoned = False

    def read(self, text: str) -> float | None:
        """Returns a date with a time as seconds since 1970, and sets `are_text`; None for other text, such as 12.5."""
        found = _TEXT.fullmatch(text)
        if found is None:
            return None
        year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
        try:
            whole = datetime.datetime(year, month, day, hour, minute, second) - _EPOCH
        except ValueError:
            return None
        self.are_text, self._zoned = True, found[8] is not None
        east = 0 if found[9] is None else int(f"{found[9]}1") * (int(found[10]) * 3600 + int(found[11] or 0) * 60)
        return float(whole.days * 86_400 + whole.seconds - east) + float(f"0.{found[7] or 0}")

    def write(self, seconds: Iterable[float]) -> list[float | str]:
        """Returns times (seconds since 1970) as they are; if `are_text`, as text in UTC."""
        return [self._text(each) if self.are_text else each for each in seconds]

    def _text(self, seconds: float) -> str:
        try:
            found = _EPOCH + datetime.timedelta(microseconds=round(seconds * 1e6))
        except OverflowError:
            return repr(seconds)
        return found.isoformat() + ("Z" if self._zoned else "")

"""Makes untrusted text safe to show, and formats numbers.

`clean` removes terminal escapes, bidirectional marks and excess length from text of devices and files. No I/O.
"""

from __future__ import annotations

import time
import unicodedata

from device_agent.shared.protocol import constants

#: Longest text to show, in characters: a command to type with a long path is whole.
LONGEST = 4000
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def clean(text: object, limit: int = LONGEST) -> str:
    """Returns `text` as one line of visible characters, at most `limit` of them.

    Newlines and tabs become blanks; other control characters, format characters (bidirectional marks, zero-width),
    surrogates and unassigned characters become escapes: `\\x1b`.
    """
    raw = str(text)
    shown = "".join(_visible(character) for character in raw[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def _visible(character: str) -> str:
    if character in "\n\t\r":
        return " "
    if unicodedata.category(character) not in _HIDDEN:
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def milliseconds(value: float | None) -> str:
    """Returns a time in milliseconds as text: three significant digits, in µs, ms or s; a dash for None (unknown)."""
    if value is None:
        return "–"
    return f"{value * 1000:.3g} µs" if value < 0.1 else f"{value:.3g} ms" if value < 999.5 else f"{value / 1000:.3g} s"


def seconds(value: float | None) -> str:
    """Returns a duration in seconds as text: `0.4 s`, `12 s`, `3 min 5 s`; a dash for None (unknown)."""
    if value is None:
        return "–"
    if value < 10:
        return f"{value:.1f} s"
    whole = round(value)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


def size(count: int | float) -> str:
    """Returns a number of bytes as text, with a decimal unit: `820 B`, `6.6 MB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def moment(when: float | None) -> str:
    """Returns seconds since 1970 as `2026-03-01 12:00:00 UTC`, or as a number if not a date; a dash for None."""
    if when is None:
        return "–"
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(when))
    except (ValueError, OverflowError, OSError):
        return f"{when:.0f} s after 1970"


count = constants.counted

"""Numbers written with a unit, such as `7.4 km`.

Finds the unit, and writes the command that removes it from a file. No I/O.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

#: A number with its unit; and what a regular expression of sed needs a backslash for.
_POWER = r"\^-?[0-9]|(?<=[^\W\d_xXeEdDbBoO])[1-4](?!\w)"  # as in m/s^2, m/s2, kg*m^-3; not as in 0x10 or 1e400
_WITH_UNIT = re.compile(rf"[-+]?[0-9]*[.,]?[0-9]+ ?([^\s0-9.,;\"'](?:[^\s0-9,;\"']|{_POWER}){{0,11}})")
_SPECIAL = re.compile(r"[][.*+?(){}|^$\\/]")


def unit_of(text: str) -> str:
    """Returns the unit after the number in `text`; "" if it is not a number with a printable unit."""
    found = _WITH_UNIT.fullmatch(text.strip())
    return found[1] if found and found[1].isprintable() and found[1] not in "+-" else ""


def without_units(units: Iterable[str]) -> str:
    """Returns a command that removes `units` after numbers; the caller appends the name of the file to it."""
    parts = [_SPECIAL.sub(r"\\\g<0>", unit) for unit in dict.fromkeys(units)]
    script = f's/([0-9]) ?({"|".join(parts)})([",;[:space:]]|$)/\\1\\3/g'
    return f"sed -E {shlex.quote(script)}"

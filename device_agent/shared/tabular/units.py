"""Numbers with a unit, or in a formula.

Finds the unit of `7.4 km` and the formula `="7.4"`, and writes the command that removes it from a file. No I/O.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Collection

#: A number with its unit; and what a regular expression of sed needs a backslash for.
_POWER = r"\^-?[0-9]|(?<=[^\W\d_xXeEdDbBoO])[1-4](?!\w)"  # as in m/s^2, m/s2, kg*m^-3; not as in 0x10 or 1e400
_WITH_UNIT = re.compile(rf"[-+]?[0-9]*[.,]?[0-9]+ ?([^\s0-9.,;\"'](?:[^\s0-9,;\"']|{_POWER}){{0,11}})")
_AMOUNT = re.compile(r" ?[-+]?[0-9][0-9.,' ]*")  # after the sign of a currency
_SPECIAL = re.compile(r"[][.*+?(){}|^$\\/]")
_FORMULA = re.compile(r'="[-+0-9.,eE ]+"')
#: Command that leaves the numbers of formulas, also in quotes (`"=""7.4"""`); the caller appends the name of the file.
WITHOUT_FORMULAS = """sed -E 's/"?="+([^"]*)"+/\\1/g'"""


def unit_of(text: str) -> str:
    """Returns the unit after the number in `text`, or the currency before it; "" for other texts."""
    text = text.strip()
    if text and unicodedata.category(text[0]) == "Sc" and _AMOUNT.fullmatch(text, 1):
        return text[0]
    found = _WITH_UNIT.fullmatch(text)
    return found[1] if found and found[1].isprintable() and found[1] not in "+-" else ""


def is_formula(text: str) -> bool:
    """Whether a cell holds a number as the formula of a spreadsheet, such as `="7.4"`."""
    return _FORMULA.fullmatch(text.strip()) is not None


def without_units(units: Collection[str]) -> str:
    """Returns a command that removes `units` from numbers; the caller appends the name of the file to it."""
    parts = "|".join(_SPECIAL.sub(r"\\\g<0>", unit) for unit in dict.fromkeys(units))
    script = f's/([0-9]) ?({parts})([",;[:space:]]|$)/\\1\\3/g'
    if any(unicodedata.category(unit[0]) == "Sc" for unit in units):
        script += f';s/(^|[",;[:space:]])({parts}) ?([-+.0-9])/\\1\\3/g'
    return f"sed -E {shlex.quote(script)}"

"""Lists of names in messages."""

from __future__ import annotations

from collections.abc import Sequence


def first_of(names: Sequence[str], most: int = 12) -> str:
    """Returns at most `most` of the names as text: `a, b, c and 1,204 more`; a name with a comma is in quotes."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(repr(name) if "," in name else name for name in names[:most]) + more

"""Lists in messages."""

from __future__ import annotations

from collections.abc import Sequence


def first_of(texts: Sequence[str], most: int = 3) -> str:
    """Returns at most `most` of the texts as one: `a, b, c and 1,204 more`."""
    more = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def listed(names: Sequence[str], most: int = 12) -> str:
    """Returns names as `first_of` does; a name with a comma or a sign that cannot be seen is in quotes."""
    return first_of([name if name.isprintable() and "," not in name else repr(name) for name in names], most)

"""Finds a category by its text, however programs write it.

pandas writes a column of whole numbers with a gap as `1.0`, and one without gaps as `1`; it writes `True` where a
spreadsheet writes `TRUE`. Host and device both use this module, so that a text means the same category. No I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from device_agent.shared.enrolment.enrolled import text_of, without_fraction
from device_agent.shared.tabular.csv_dialect import TRUTH


def key_of(text: str) -> str:
    """Returns what all spellings of a category share: `1` for `1.0`, `true` for `TRUE`, Unicode's form NFC."""
    plain = without_fraction(text_of(text))
    return plain.casefold() if plain.casefold() in TRUTH else plain


class Codes:
    """The codes of a column's categories, `texts` in the order of their codes.

    Another spelling of a category means it, too, unless two categories have that spelling, or `exact` is True.
    """

    def __init__(self, texts: Sequence[str], *, exact: bool = False) -> None:
        self.exactly = {text: float(place) for place, text in enumerate(texts)}
        counts = Counter(map(key_of, texts))
        others = () if exact else self.exactly.items()
        self._by_key = {key: code for text, code in others if counts[key := key_of(text)] == 1}

    def get(self, text: str) -> float | None:
        """Returns the code of the category that `text` means; None if it means none."""
        code = self.exactly.get(text)
        return self._by_key.get(key_of(text)) if code is None and self._by_key else code

"""Policy for missing cells and categories of training rows.

`Policy` holds the keys of deploy.yaml, and `Learner` reads cells by them. Nothing is filled: a missing cell becomes
NaN, and a category its index in the list of categories seen so far. `knnkit.training.table` fills cells later.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.features.categories import Codes, key_of
from device_agent.shared.features.cells import without_thousands
from device_agent.shared.features.coder import is_missing, missing_cell
from device_agent.shared.tabular.csv_dialect import is_number
from device_agent.shared.tabular.csv_reader import DECIMAL_COMMA, BadCell
from knnkit.data.bad_cells import EMPTY, NOT_FINITE, TEXT, BadCells, between_thousands

T = TypeVar("T")
#: Most categories of a column; each becomes a feature.
MAX_CATEGORIES = 1000
#: Words for a missing cell, besides those of every model: of people, SAS, pandas, MySQL (`\\N`), and C on Windows.
MISSING_WORDS = ("-", "--", ".", "?", "n.a.", "nat", "\\n", "#n/a n/a", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan")
#: Signs that may stand between thousands.
_SIGNS = ",.' "


@dataclass(frozen=True)
class Policy:
    """How the cells of columns are read."""

    drop: tuple[str, ...] = ()  # names or patterns (`acc_*`) of columns to leave out
    #: refuse, drop, median or constant, for all columns; or a mapping from column (or pattern) to one of these words or
    #: to the value that fills the column's missing cells.
    missing: str | Mapping[str, Any] = "refuse"
    #: one-hot or ordinal, for all text columns; or a mapping from column (or pattern) to one of these words or to the
    #: ordered list of the column's categories.
    categories: str | Mapping[str, Any] = field(default_factory=dict)
    unknown_category: str = "refuse"  # refuse or ignore
    thousands: str = ""  # separator of thousands in numbers, such as "."; "": none
    #: words that stand for a missing cell, in addition to the words that every model knows.
    missing_words: tuple[str, ...] = MISSING_WORDS
    #: column of the model's table -> its categories, which are values even if they are words for a missing cell; {}:
    #: there is no table yet.
    known: Mapping[str, Sequence[str]] = field(default_factory=dict)
    labels: tuple[str, ...] = ()  # further label columns, which are text
    targets: tuple[str, ...] = ()  # columns of numbers to predict; readers take the first of them as the label column

    @property
    def is_plain(self) -> bool:
        """Whether every cell must be a plain number."""
        return self.missing == "refuse" and not self.categories and not self.thousands

    def missing_of(self, name: str) -> Any:
        """Returns what to do with column `name`'s missing cells: refuse, drop, median, constant, or a value to fill."""
        if name in self.targets:
            return "refuse"
        return self.missing if isinstance(self.missing, str) else _lookup(self.missing, name, "refuse")

    def categories_of(self, name: str) -> Any:
        """Returns the encoding of a text column: one-hot, ordinal or its categories; None for a column of numbers."""
        numbers = isinstance(self.categories, str) or name in self.targets
        return None if numbers else _lookup(self.categories, name, None)  # type: ignore[arg-type]

    def with_text(self, columns: Sequence[str]) -> Policy:
        """If `categories` is one word, returns a policy that maps each text column to that word; else `self`."""
        word = self.categories
        return replace(self, categories=dict.fromkeys(columns, word)) if isinstance(word, str) else self

    def for_answers(self, names: Sequence[str], *, are_labels: bool) -> Policy:
        """Returns the policy for a file with answer columns of these names: labels with `are_labels`, else targets."""
        return replace(self, labels=tuple(names[1:])) if are_labels else replace(self, targets=tuple(names))


PLAIN = Policy()


def matching(pattern: str, names: Sequence[str]) -> list[str]:
    """Returns [pattern] if it is one of the names, else the names that match a pattern such as `acc_*`."""
    return [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]


def _lookup(by_name: Mapping[str, T], name: str, default: T) -> T:
    if name in by_name:
        return by_name[name]
    return next((value for pattern, value in by_name.items() if fnmatchcase(name, pattern)), default)


class Learner:
    """Reads cells by a policy; learns the categories, and collects the bad cells.

    Attributes:
        place: number of the line or row that is being read, for messages.
        met: words of `Policy.missing_words` that were found in cells.
    """

    def __init__(self, policy: Policy, names: Sequence[str], bad: BadCells) -> None:
        self.names, self.bad_cells, self.place, self.met = tuple(names), bad, 0, set[str]()
        self._policy, self._lock = policy, threading.Lock()
        self._kinds = [policy.categories_of(name) for name in self.names]
        self._codes: list[dict[str, float]] = [
            {str(text): float(place) for place, text in enumerate(kind)} if isinstance(kind, list | tuple) else {}
            for kind in self._kinds
        ]
        self._listed = [
            Codes(tuple(codes)) if not isinstance(kind, str) else None for kind, codes in zip(self._kinds, self._codes)
        ]
        self._fills = [policy.missing_of(name) != "refuse" for name in self.names]

    @property
    def thousands(self) -> str:
        """Separator of thousands in numbers, such as "."; "": none."""
        return self._policy.thousands

    def is_number(self, index: int) -> bool:
        """Whether column `index` holds numbers, not categories."""
        return self._kinds[index] is None

    def is_missing(self, index: int, text: str) -> bool:
        """Whether cell `text` of column `index` has no value. A word such as `-` is a value if it is a category."""
        known = self._policy.known.get(self.names[index], self._codes[index])
        if text in known or not is_missing(text, self._policy.missing_words):
            return False
        self.met |= {text.strip().casefold()}.intersection(self._policy.missing_words)
        return True

    def codes(self, index: int, cells: Sequence[str]) -> list[float] | None:
        """Returns the codes of cells of column number `index`; None if a cell is missing or bad."""
        known, words = self._codes[index], self._policy.missing_words
        with self._lock:  # blocks are read by several threads
            new = [cell for cell in dict.fromkeys(cells) if cell not in known]
            if any(is_missing(cell, words) for cell in new) or (new and not self._learns(index, len(new))):
                return None
            known.update((cell, float(place)) for place, cell in enumerate(new, len(known)))
        return [known[cell] for cell in cells]

    def missing(self, index: int, text: str) -> float:
        """Returns NaN for the missing cell `text`; records a bad cell if the policy refuses it in column `index`."""
        if not self._fills[index]:
            return self._note(index, missing_cell(text), EMPTY)
        self.bad_cells.filled[self.names[index]] += 1
        return float("nan")

    def category(self, index: int, text: str) -> float:
        """Returns the code of category `text` in column `index`; NaN, and records a bad cell, if it is not allowed."""
        known, listed = self._codes[index], self._listed[index]
        if listed is not None and (code := listed.get(text)) is not None:
            return code
        with self._lock:
            if text in known or self._learns(index, 1):
                return known.setdefault(text, float(len(known)))
        said = "is not one of the listed categories" if listed else f"is category {MAX_CATEGORIES + 1:,}, one too many"
        return self._note(index, f"{text!r} {said}", TEXT, text)

    def bad(self, error: BadCell, cell: str) -> float:
        """Records a cell that is not a finite number; returns NaN."""
        if error.is_number:
            return self._note(error.index, f"{cell} is not a finite float32 number", NOT_FINITE)
        for sign in _SIGNS:
            if sign in cell and is_number(cell, ";") and without_thousands(cell, sign) is None:
                self.bad_cells.not_between.add(sign)
        hint, own = error.hint, self.thousands
        if own and own in cell and is_number(cell, ";") and without_thousands(cell, own) is None:
            more = f"; for a decimal comma, {between_thousands('.')}" if own == "," and hint != DECIMAL_COMMA else ""
            hint = f"leave out thousands: {own!r} of deploy.yaml, or correct this cell: {own!r} is misplaced{more}"
        elif hint and hint != DECIMAL_COMMA and "FILE" not in hint:
            hint = f"{hint}, or make the comma decimal: {between_thousands('.')}"
        return self._note(error.index, str(error), TEXT, cell, hint, _thousands(cell))

    def end_row(self) -> None:
        """Does nothing: the reader calls it after each row, and this class does not count rows."""

    def levels(self) -> dict[int, tuple[str, ...]]:
        """Returns index of a category column -> its categories, in the order of their codes."""
        return {index: tuple(self._codes[index]) for index in range(len(self.names)) if not self.is_number(index)}

    def _learns(self, index: int, count: int) -> bool:
        return isinstance(self._kinds[index], str) and len(self._codes[index]) + count <= MAX_CATEGORIES

    def _note(self, index: int, said: str, kind: str, cell: str = "", hint: str = "", sign: str = "") -> float:
        self.bad_cells.add(self.place, index, self.names[index], kind, said, cell, hint, sign)
        return float("nan")


def _thousands(cell: str) -> str:
    """Returns the sign that separates the thousands of a number, such as `,` in `1,234`; "" for any other cell."""
    for sign in _SIGNS:
        plain = without_thousands(cell, sign)
        if plain not in (None, cell) and is_number(plain or "", ";"):
            return sign
    return ""


def sorted_levels(
    rows: NDArray[Any], levels: Mapping[int, tuple[str, ...]], policy: Policy, names: Sequence[str]
) -> dict[int, tuple[str, ...]]:
    """Returns index of a column -> its categories in their final order, and changes the codes in `rows` accordingly.

    `levels` has the categories in the order of their codes, `names` has all columns. Categories that the policy lists
    keep the order of the list; others are sorted. Of several spellings of a category, the one with the most rows stays.
    """
    found = dict(levels)
    for index, texts in levels.items():
        if isinstance(policy.categories_of(names[index]), list | tuple):
            continue
        there = ~np.isnan(rows[:, index])
        codes = rows[there, index].astype(np.intp)
        counts = np.bincount(codes, minlength=len(texts)).tolist()
        by_count = sorted(sorted(zip(texts, counts), reverse=True), key=lambda each: each[1])
        usual = {key_of(text): text for text, _ in by_count}
        found[index] = tuple(sorted(usual.values()))
        places = {text: place for place, text in enumerate(found[index])}
        rows[there, index] = np.array([places[usual[key_of(text)]] for text in texts] or [0], rows.dtype)[codes]
    return found

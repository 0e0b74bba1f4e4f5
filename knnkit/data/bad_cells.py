"""Collects the cells of a file that cannot be read.

One run names all of them: the first ten by line and column, and how many of each kind each column has. The hint is what
to write into deploy.yaml. Reads no file.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Sequence

from knnkit.errors import DataError

#: Kinds of bad cells, as they are counted.
EMPTY, TEXT, NOT_FINITE = "empty", "not numbers", "not finite"
_SHOWN = 10
_MAX_QUOTED = 40
#: A column of at most so many texts, each in several rows, may be categories; of others, a name or a time.
_FEW, _SEVERAL = 12, 3
#: A name that needs no quotes in YAML, unless it is one of the words that YAML reads as a value.
_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORDS = frozenset({"false", "n", "no", "null", "off", "on", "true", "y", "yes"})
#: Last words in the names of id columns.
IDS = frozenset({"guid", "id", "idx", "index", "key", "nr", "no", "pk", "row", "rowid", "rownum", "serial", "uuid"})


class BadCells:
    """The bad cells of one file.

    Args:
        source: names the file.
        unit: of the places: line, row.
        hint: what to do, for rows without a file; empty: the keys of deploy.yaml.

    Attributes:
        rows: number of rows of the file, to tell a column of text from a few wrong cells.
    """

    def __init__(self, source: str, unit: str = "line", hint: str = "") -> None:
        self._source, self._unit, self._advice, self.rows = source, unit, hint, 0
        self._first: list[tuple[int, int, str, str, str]] = []
        self._counts: dict[str, Counter[str]] = {}
        self._texts: dict[str, Counter[str]] = {}

    def add(self, place: int, index: int, name: str, kind: str, said: str, cell: str = "", hint: str = "") -> None:
        """Notes a cell: its line or row, its column's index and name, and what is wrong with it."""
        self._counts.setdefault(name, Counter())[kind] += 1
        if kind == TEXT:
            texts = self._texts.setdefault(name, Counter())
            if cell in texts or len(texts) <= _FEW:
                texts[cell] += 1
        if len(self._first) < _SHOWN or (place, index) < self._first[-1][:2]:
            self._first = sorted([*self._first, (place, index, name, said, hint)])[:_SHOWN]

    def columns(self) -> set[str]:
        """Returns the names of the columns that have bad cells."""
        return set(self._counts)

    def text_columns(self) -> list[str]:
        """Returns the columns that hold text in half of their rows or more, so that they are not numbers at all."""
        return [name for name, counts in self._counts.items() if 2 * counts[TEXT] >= self.rows - counts[EMPTY] > 0]

    def __bool__(self) -> bool:
        return bool(self._counts)

    def error(self) -> DataError:
        """Returns the error that names them."""
        place, _, name, said, hint = self._first[0]
        total = sum(sum(counts.values()) for counts in self._counts.values())
        message = f"{self._source}, {self._unit} {place}, column {_quoted(name)}: {said}"
        if total > 1:
            kinds = sum(self._counts.values(), Counter())
            message += f"\n  {total:,} cells cannot be read ({_numbers(kinds)}):"
            by_count = sorted(self._counts.items(), key=lambda item: -sum(item[1].values()))
            for column, counts in by_count[:_SHOWN]:
                message += f"\n    column {_quoted(column)}: {_numbers(counts)}"
            if len(by_count) > _SHOWN:
                message += f"\n    and {len(by_count) - _SHOWN:,} more columns"
            message += "\n  the first of them:"
            for place, _, name, said, _ in self._first:
                message += f"\n    {self._unit} {place}, column {_quoted(name)}: {said}"
        return DataError(message, hint=hint or self._advice or self._hint())

    def _hint(self) -> str:
        """Returns the keys to add to `data:`, and the same for `knnkit init`."""
        drop: list[str] = []
        categories: list[str] = []
        for name in self.text_columns():
            (categories if self._may_be_categories(name) else drop).append(name)
        others = [name for name in self._counts if name not in (*drop, *categories)]
        wrong = [name for name in others if self._counts[name][TEXT] or self._counts[name][NOT_FINITE]]
        keys, flags = [], []
        if drop:
            keys.append(f"drop: {as_yaml(drop)}")
            flags.append(f"--drop {shlex.join(drop)}")
        if categories:
            keys.append(f"categories: {{{', '.join(f'{quoted(name)}: one-hot' for name in categories)}}}")
            flags.append(f"--categories {shlex.join(categories)}")
        if any(self._counts[name][EMPTY] for name in (*others, *categories)):
            keys.append("missing: median")
            flags.append("--missing median")
        said = f"{', '.join(keys)} in `data:` of deploy.yaml (knnkit init: {' '.join(flags)})" if keys else ""
        if wrong:
            correct = f"correct the cells of {', '.join(map(_quoted, wrong))}"
            also = f"drop: {as_yaml(wrong)} in `data:` of deploy.yaml (knnkit init: --drop {shlex.join(wrong)})"
            return f"{said}; {correct}" if said else f"{correct}, or leave out the column: {also}"
        return said

    def _may_be_categories(self, name: str) -> bool:
        texts = self._texts.get(name, Counter())
        return len(texts) <= _FEW and sum(texts.values()) >= _SEVERAL * len(texts) and not is_id(name)


def _numbers(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.items())


def is_id(name: str) -> bool:
    """Whether a column is called like an id."""
    words = re.findall(r"[a-z]+|[A-Z]+(?![a-z])|[A-Z][a-z]+", name)
    return bool(words) and words[-1].casefold() in IDS


def quoted(name: str) -> str:
    """Returns a column name in YAML."""
    return name if _BARE.fullmatch(name) and name.casefold() not in _WORDS else "'" + name.replace("'", "''") + "'"


def as_yaml(names: Sequence[str]) -> str:
    """Returns column names as a YAML list."""
    return f"[{', '.join(map(quoted, names))}]"


def _quoted(name: str) -> str:
    return repr(name if len(name) <= _MAX_QUOTED else name[: _MAX_QUOTED - 3] + "...")

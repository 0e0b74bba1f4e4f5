"""Chooses label and feature columns; warns of row numbers.

A column that numbers the rows says nothing about their class. As a feature it changes the neighbours silently: rows
that are close in the file become close in the model. Reads no file, and never leaves out a column by itself.
"""

from __future__ import annotations

import difflib
import fnmatch
import itertools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from device_agent.shared.console.lists import listed
from device_agent.shared.tabular.csv_dialect import SEPARATORS, is_number, short
from knnkit.data.bad_cells import DIGITS, IN_MEMORY, as_yaml, is_id
from knnkit.data.dataset import Dataset
from knnkit.data.policy import PLAIN, Policy, matching
from knnkit.errors import DataError

#: Most lines of a title.
_MAX_TITLE = 20
#: Characters of a pattern.
_PATTERN = frozenset("*?[")
#: Names that pandas gives an index when it writes a table.
_PANDAS = re.compile(r"__index_level_\d+__|Unnamed: \d+(\.\d+)?")
#: Reason of an error for a file without the column of ids.
NO_ID = "no-id-column"
#: Reasons of an error for a file without a label or target column, and without a feature.
NO_ANSWER, NO_FEATURE = "no-answer-column", "no-feature-column"
_REASONS = {"id": NO_ID, "label": NO_ANSWER, "target": NO_ANSWER, "features": NO_FEATURE}
#: With fewer rows, distinct whole numbers may be chance; the second limit is for columns with the name of an id.
_FEW, _FEW_NAMED = 20, 5
#: From here on, float32 cannot represent every whole number.
_EXACT = 2.0**24
#: So many classes may be numbers to predict, or another column than the label.
_MANY = 20


@dataclass(frozen=True)
class Wanted:
    """Which columns to read from a file of labelled rows, and how."""

    label: str  # name of the column with the labels
    #: names or patterns (`acc_*`) of the feature columns, in this order; None: all other columns.
    features: Sequence[str] | None = None
    #: column to keep as text in `Dataset.beside`; a feature only if `features` names it. None: no column.
    beside: str | None = None
    policy: Policy = PLAIN  # which columns are left out, and how missing cells and text are read
    #: column to keep as text in `Dataset.ids`; a feature only if `features` names it. None: no column.
    ids: str | None = None
    wide: bool = False  # whether to read the rows as float64 even if float32 holds them exactly

    @property
    def texts(self) -> dict[str, str | None]:
        """The columns to keep as text: key of deploy.yaml (`split`, `id`) -> column name, None for no column."""
        return {"split": self.beside, "id": self.ids}


def choose(header: list[str], wanted: Wanted, file: Path, lists: Sequence[str] = ()) -> tuple[list[int], list[int]]:
    """Returns the indices in `header` of the label columns (or targets), and the indices of the feature columns.

    `lists` are the columns whose cells are lists; each element of `vector` is a feature, such as `vector_0`.

    Raises:
        DataError: a column is missing, `features` or `drop` names a label or target, `missing` or `categories` names a
            column that is not a feature, or there is no feature.
    """
    policy, label, features, beside = wanted.policy, wanted.label, wanted.features, wanted.texts.values()
    own, kind = policy.targets or (label, *policy.labels), "target" if policy.targets else "label"
    at = [find(header, name, file, kind) for name in own]
    others = [name for name in header if name not in (*own, *beside)]
    named: dict[str, list[str]] = {}
    for key, words, what in (("drop", policy.drop, "left out"), ("features", features or (), "a feature too")):
        named[key] = [name for word in words for name in _named(header, others, word, file, key)]
        if taken := next((name for name in named[key] if name in own), None):
            the = "the" if len(own) == 1 else "a"
            said = f"{file}: {taken!r} is {the} {kind}; it cannot be {what}"
            raise DataError(said, hint=f"remove it from {key}:", key=f"data/{key}")
    names = others if features is None else dict.fromkeys(named["features"])
    chosen = [header.index(name) for name in names if name not in named["drop"]]
    if not chosen:
        said = f"{file}: there is no feature beside {', '.join(map(repr, own))}"
        hint = "remove a column from drop:" if named["drop"] else "add columns of numbers"
        raise DataError(said, hint=hint, key="data")
    roles = dict.fromkeys(header, "not among `features`")
    roles |= dict.fromkeys(named["drop"], "left out by `drop`")
    roles |= {name: f"the column of `{key}`" for key, name in wanted.texts.items() if name is not None}
    roles |= dict.fromkeys(own, f"{'the' if len(own) == 1 else 'a'} {kind}")
    require_features(policy, [header[place] for place in chosen], file, roles, lists)
    return at, chosen


def require_features(
    policy: Policy, features: list[str], file: Path, roles: Mapping[str, str], lists: Sequence[str] = ()
) -> None:
    """Checks that each name or pattern in `missing` and `categories` of the policy is that of a feature.

    `roles` maps the other columns to what they are, for messages; `lists` are the columns whose cells are lists.

    Raises:
        DataError: a name or pattern does not match any feature.
    """
    for key, words in (("missing", policy.missing), ("categories", policy.categories)):
        for word in () if isinstance(words, str) else words:
            if matching(word, features) or matching(word.rpartition("_")[0], lists):
                continue
            if word in roles:
                said = f"{file}: {word!r} is {roles[word]}; `{key}` is for features"
                raise DataError(said, hint=f"remove it from {key}:", key=f"data/{key}/{word}")
            find(features, word, file, key)


def _named(header: list[str], others: list[str], word: str, file: Path, key: str) -> list[str]:
    """Returns [word] if `header` has it, else those of `others` that match the pattern `word`; DataError if none."""
    if word in header or not _PATTERN & set(word):
        return [header[find(header, word, file, key)]]
    found = [name for name in others if fnmatch.fnmatchcase(name, word)]
    return found or [header[find(header, word, file, key)]]


def find(header: list[str], name: str, file: Path, key: str) -> int:
    """Returns the index of the column `name` in `header`; `key` is the key of deploy.yaml that names it, for messages.

    Raises:
        DataError: there is no such column; the hint has the closest name.
    """
    if name in header:
        return header.index(name)
    close = [other for other in header if _plain(other) == _plain(name)]
    close = close or difflib.get_close_matches(name, header, n=1, cutoff=0.5)
    hint, more = (f"did you mean {close[0]!r} (", ")?") if close else ("set it to one of them (", ")")
    if not close and len(header) > 1 and sum(is_number(other, ",") for other in header) >= len(header) - 1:
        more += "; if line 1 is a row of numbers, put a header line above it"
    raise DataError(
        f"{file}: no column {name!r}; there are {listed(header, 20)}",
        hint=hint + (key if str(file) in IN_MEMORY else f"{key}: in deploy.yaml") + more,
        reason=_REASONS.get(key, ""),
        key="split" if key == "split" else f"data/{key}/{name}",
        flags=f"{hint}--{key} on the command line{more}",
    )


def skip_title(block: bytes, label: str) -> tuple[bytes, int]:
    """Returns `block`, the beginning of a CSV, without the title above its header, and the number of lines removed.

    The lines of a title have one cell each. The header is the first line that has several cells, or the word `label`.
    Returns (`block`, 0) if there is no title, or if a cell of the header is a number.
    """
    rest, word = block, re.compile(rf"(?<!\w){re.escape(label)}(?!\w)")
    for above in range(_MAX_TITLE):
        line, _, after = rest.partition(b"\n")
        text = line.decode("utf-8", "replace").strip()
        cells = max((text.split(sign) for sign in (*SEPARATORS, "|")), key=len)
        several = sum(map(bool, map(str.strip, cells))) > 1 and not text.startswith("#")
        if several or word.search(text):
            header = above and not any(is_number(cell, ";") for cell in cells)
            return (rest, above) if header else (block, 0)
        if text.count('"') % 2:  # a name goes on in the next line
            break
        rest = after
    return block, 0


def header_in_comment(block: bytes, header: list[str], separator: str) -> list[str]:
    """Returns the names in the last comment before `header` in `block`, if `header` is a row of cells; else `header`.

    A misspelt label then leads to these names, not to the cells of the row.
    """
    lines = list(itertools.takewhile(lambda line: line.startswith(b"#"), block.split(b"\n")))
    names = lines[-1].decode("utf-8", "replace").lstrip("# ").strip().split(separator) if lines else []
    is_row = any(is_number(cell, separator) for cell in header)
    return [*map(str.strip, names)] if is_row and len(names) == len(header) > 1 else header


def names_the_row(cells: Sequence[str], row: int, labels: Sequence[int], separator: str) -> bool:
    """Whether the first cell of row number `row` names the row, as R writes it without a name in the header.

    The row has one cell more than the header; `labels` are the places of labels in the header.
    """

    def fits(cells: Sequence[str]) -> bool:
        return all(is_number(cell, separator) for place, cell in enumerate(cells) if place not in labels)

    return fits(cells[1:]) and (cells[0].strip() == str(row) or not fits(cells[:-1]))


def _plain(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def numbering(rows: Dataset) -> tuple[str, ...]:
    """Returns the names of features that number the rows: whole numbers, each once and without gaps.

    With a name like an id, gaps are allowed; with a name that pandas gives its index, also repeats.
    """
    return tuple(
        name
        for column, name in enumerate(rows.feature_names)
        if (_indexes if _PANDAS.fullmatch(name) else _numbers)(rows.rows[:, column].astype(np.float64), is_id(name))
    )


def warnings(rows: Dataset, drop: Sequence[str] = ()) -> tuple[str, ...]:
    """Returns a warning for each feature that numbers the rows, with the key of deploy.yaml that leaves it out.

    The key is `drop` with all its columns; the argument `drop` has those that deploy.yaml lists already.
    """
    return tuple(_warning(rows, name, drop) for name in numbering(rows))


def doubt(classes: Sequence[Any], rows: int) -> str:
    """Returns why a label column with these `classes` in `rows` rows may be the wrong one; "" if nothing is odd."""
    most = 2 * len(classes) > rows  # whole numbers in several rows each may be classes
    times = all(sum(map(str.isdigit, str(label))) >= DIGITS for label in classes)
    if numbers := numbers_as_classes(classes) if most or not all(isinstance(each, int) for each in classes) else "":
        return numbers
    odd = (most or times) and len(classes) >= _MANY
    return f"There are {len(classes)} labels in {rows} rows: is another column the label?" if odd else ""


def numbers_as_classes(classes: Sequence[Any]) -> str:
    """Returns a text that suggests `target`, if there are many classes and all are numbers; else ""."""
    if len(classes) < _MANY or not all(is_number(str(label), ";") for label in classes):
        return ""
    return f"All {len(classes)} labels are numbers: to predict a number, write `target:` in place of `label:`"


def _warning(rows: Dataset, name: str, drop: Sequence[str]) -> str:
    column = rows.rows[:, rows.feature_names.index(name)]
    once = len(np.unique(column)) == len(column)
    how = "each once" if once else "in order" if _goes_up(column) else "in whole numbers"
    said = f"the column {short(name)} holds {column.min():.0f} to {column.max():.0f}, {how}, as row numbers do"
    mend = "it is the only feature"
    if len(rows.feature_names) > 1:
        mend = f"drop: {as_yaml([*drop, name])} beside `label` in deploy.yaml leaves it out"
    return f"{rows.source}: {said}, and is a feature of the model; {mend}"


def _numbers(column: np.ndarray[tuple[int], np.dtype[np.float64]], named: bool) -> bool:
    count = len(column)
    if count < (_FEW_NAMED if named else _FEW) or not np.array_equal(column, np.floor(column)):
        return False
    distinct = len(np.unique(column))
    if distinct < count:
        return named and distinct > 1 and bool(np.abs(column).max() >= _EXACT) and _goes_up(column)
    return named or bool(column.max() - column.min() == count - 1)


def _indexes(column: np.ndarray[tuple[int], np.dtype[np.float64]], named: bool) -> bool:
    """Whether a column holds whole numbers that are not all equal, as an index of pandas does; ignores `named`."""
    return len(column) >= _FEW_NAMED and bool((column == np.floor(column)).all()) and bool((column != column[0]).any())


def _goes_up(column: np.ndarray[tuple[int], np.dtype[Any]]) -> bool:
    """Whether a column never decreases. Equal numbers are allowed: float32 may round large numbers to the same."""
    return bool((np.diff(column) >= 0).all())

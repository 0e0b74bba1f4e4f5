"""Labelled rows: checked arrays, or a named scikit-learn set.

Every error names the row and the column, and what was found there. Rows are float32, as on a device, unless a
column is too far from 0 for it (`precision`). Reads no file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.enrolment.enrolled import WHOLE, label_of, text_of, without_fraction
from device_agent.shared.protocol.constants import UNKNOWN_LABEL
from device_agent.shared.queries import as_numbers, default_names, not_numbers
from device_agent.shared.tabular.csv_dialect import short
from knnkit.data import precision
from knnkit.data.bad_cells import EMPTY, NOT_FINITE, BadCells
from knnkit.data.policy import PLAIN, Policy
from knnkit.errors import DataError, needs

Value = TypeVar("Value")
#: Longest label or column name, in characters.
MAX_TEXT = 256
#: Hint for a label or column name that `is_plain` refuses.
RENAME = f"rename it: plain text on one line, no space at its ends, at most {MAX_TEXT} characters"
SKLEARN_SETS = ("blobs", "breast_cancer", "digits", "iris", "moons", "wine")


@dataclass(frozen=True)
class Dataset:
    """Labelled rows."""

    #: (n, n_features) float32, or float64 if float32 would make distinct rows equal; finite.
    rows: NDArray[np.floating[Any]]
    labels: NDArray[Any]  # (n,) int64 or str
    feature_names: tuple[str, ...]  # n_features distinct names
    source: str  # name of the file or data set, for messages
    #: (n,) cells, as text, of the column that `split` in deploy.yaml names (device or time); None: no column.
    beside: NDArray[Any] | None = None
    #: (n,) cells, as text, of the column that `id` in deploy.yaml names; None: no column.
    ids: NDArray[Any] | None = None
    #: (n,) number of each row in its source, from 0; None: the row's index in `rows`.
    places: NDArray[np.int64] | None = None
    #: index of a feature -> its categories, by code. Only for rows to which no table was applied yet: their columns
    #: hold these codes, and NaN for a missing cell.
    levels: Mapping[int, tuple[str, ...]] | None = None
    raw: Dataset | None = None  # the rows before the model's table was applied; None without a table
    #: (n,) number of the file, in `file_names`, that each row is from; None if there is only one file.
    files: NDArray[np.int64] | None = None
    targets: NDArray[np.float64] | None = None  # (n, t) float64 numbers to predict; None for rows of classes
    target_names: tuple[str, ...] = ()  # names of the t targets
    #: sorted labels of each of several label columns; the targets are then indices of labels.
    target_classes: tuple[tuple[int | str, ...], ...] = ()
    missing_words: frozenset[str] = frozenset()  # words of `Policy.missing_words` that occur in the source
    more_labels: tuple[NDArray[Any], ...] = ()  # further label columns that `targets.read` has not made targets of yet
    lines: NDArray[np.int64] | None = None  # (n,) line of each row in its file; None if the source has no lines
    file_names: tuple[str, ...] = ()

    def where(self, row: int) -> str:
        """Returns the file and line of a row, for messages; `FILE: row 3` if there are no lines."""
        source = self.source if self.files is None else self.file_names[self.files[row]]
        if self.lines is not None:
            return f"{source}, line {self.lines[row]}"
        return f"{self.source}: row {self.place(row)}"

    def place(self, row: int) -> int:
        """Returns the number of a row in its source, where dropped rows count, too."""
        return row if self.places is None else int(self.places[row])

    @property
    def text_columns(self) -> list[str]:
        """Names of the columns of categories in rows to which no table was applied yet."""
        return [self.feature_names[place] for place in self.levels or ()]

    def take(self, index: NDArray[np.int64]) -> Dataset:
        """Returns the rows with the indices `index`, in that order."""
        columns = self.beside, self.ids, self.files, self.lines
        beside, ids, files, lines = (None if column is None else column[index] for column in columns)
        places = np.asarray(index, np.int64) if self.places is None else self.places[index]
        raw = None if self.raw is None else self.raw.take(index)
        targets = None if self.targets is None else self.targets[index]
        how: dict[str, Any] = {"beside": beside, "ids": ids, "places": places}
        how |= {"raw": raw, "files": files, "targets": targets, "lines": lines}
        return replace(self, rows=self.rows[index], labels=self.labels[index], **how)

    def fingerprint(self) -> str:
        """Returns the SHA-256 over rows, labels, targets and feature names, in hexadecimal."""
        digest = hashlib.sha256()
        header = [list(self.rows.shape), list(self.feature_names), self.labels.tolist()]
        digest.update(json.dumps(header, ensure_ascii=False).encode())
        digest.update(np.ascontiguousarray(self.rows, dtype=self.rows.dtype.newbyteorder("<")).data)
        if self.targets is not None:
            digest.update(json.dumps(self.target_names).encode() + self.targets.astype("<f8").tobytes())
        if self.target_classes:
            digest.update(json.dumps(self.target_classes).encode())
        return digest.hexdigest()


def load_sklearn(name: str) -> Dataset:
    """Returns a data set of scikit-learn by its name, one of `SKLEARN_SETS`.

    `blobs` has 1,000 points around 5 centres, `moons` 1,000 points on two half circles; both with seed 0.

    Raises:
        DataError: `name` is not in `SKLEARN_SETS`.
    """
    if name not in SKLEARN_SETS:
        raise DataError(f"scikit-learn data set {name!r} is not supported", hint=f"one of {', '.join(SKLEARN_SETS)}")
    with needs("scikit-learn is not installed"):
        from sklearn import datasets
    source = f"scikit-learn {name}"
    if name == "blobs":
        points, classes = datasets.make_blobs(1000, n_features=2, centers=5, random_state=0)
        return dataset(points, classes, ("x", "y"), source)
    if name == "moons":
        points, classes = datasets.make_moons(1000, noise=0.2, random_state=0)
        return dataset(points, classes, ("x", "y"), source)
    bunch = getattr(datasets, f"load_{name}")()
    labels = bunch.target if name == "digits" else np.asarray(bunch.target_names)[bunch.target]
    return dataset(bunch.data, labels, tuple(map(str, bunch.feature_names)), source)


def dataset(
    rows: Any,
    labels: Any,
    feature_names: Sequence[str] | None = None,
    source: str = "arrays",
    policy: Policy | None = None,
    *,
    wide: bool = False,
) -> Dataset:
    """Returns (n, n_features) numbers and n labels (integers or text; None: all 0) as a checked `Dataset`.

    Rows become float32, unless a column needs float64, or `wide` is True (for a model that shifts columns).
    NaN stands for a missing cell, which `policy` may allow (None: it does not). `feature_names` may be None: default
    names.

    Raises:
        DataError: the shapes do not match, names repeat, or a value is not finite in float32.
    """
    given = None if feature_names is None else tuple(map(str, feature_names))
    require_distinct(given or (), source)
    try:
        matrix = _matrix(rows, wide=wide or not (policy or PLAIN).is_plain)
    except (TypeError, ValueError) as error:
        said, hint = not_numbers(rows, error)
        raise DataError(f"{source}: {said}", hint=hint) from None
    if matrix.ndim != 2 or 0 in matrix.shape:
        hint = "rows.reshape(-1, 1), of one feature" if matrix.ndim == 1 else "an array of shape (rows, features)"
        said = f"{source}: expected rows and columns of numbers, found an array of shape {matrix.shape}"
        raise DataError(said, hint=hint)
    names = default_names(matrix.shape[1]) if given is None else given
    if len(names) != matrix.shape[1]:
        said = f"{source}: {len(names)} feature names for {matrix.shape[1]} columns"
        raise DataError(said, hint="one name for each column")
    labels = np.zeros(len(matrix), np.int64) if labels is None else labels
    if len(np.shape(labels)) != 1 or len(labels) != len(matrix):
        hint = "labels.ravel()" if np.shape(labels) == (len(matrix), 1) else "one label for each row"
        raise DataError(f"{source}: {len(matrix)} rows, but labels of shape {np.shape(labels)}", hint=hint)
    bad = BadCells(source, "row", hint="drop the row, or fill the cell" if policy is None else "")
    note_bad_numbers(matrix, names, policy or PLAIN, bad)
    if bad:
        raise bad.error()
    return Dataset(matrix, label_array(np.asarray(labels).tolist(), source), names, source)


def note_bad_numbers(
    matrix: NDArray[Any], names: Sequence[str], policy: Policy, bad: BadCells, skip: Container[int] = ()
) -> None:
    """Records in `bad` each number that is infinite, or a NaN that the policy refuses; not in columns `skip`."""
    bad.rows = len(matrix)
    with np.errstate(over="ignore"):
        wrong = ~np.isfinite(matrix.astype(np.float32, copy=False))
    for index in np.flatnonzero(wrong.any(axis=0)).tolist():
        allowed = policy.missing_of(names[index]) != "refuse"
        for row in () if index in skip else np.flatnonzero(wrong[:, index]).tolist():
            value = matrix[row, index]
            if not np.isnan(value):
                bad.add(row, index, names[index], NOT_FINITE, f"{value} is not a finite float32 number")
            elif not allowed:
                bad.add(row, index, names[index], EMPTY, f"the cell is empty ({value})")


def _matrix(rows: Any, *, wide: bool) -> NDArray[np.floating[Any]]:
    kind = getattr(rows, "dtype", None)
    if isinstance(kind, np.dtype) and np.can_cast(kind, np.float32) and not wide:
        return as_numbers(rows, np.float32)
    matrix = as_numbers(rows, np.float64)
    if wide or matrix.ndim != 2 or not matrix.size or not np.isfinite(matrix).all():
        return matrix
    return precision.float32_if_enough(matrix)


def drawn(count: int, most: int, seed: int = 0) -> NDArray[np.int64]:
    """Returns (n,) sorted indices of rows: all `count` rows, or `most` rows drawn with `seed` if there are more."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:most])


def drawn_by_class(labels: NDArray[Any], most: int, each: int, seed: int = 0) -> NDArray[np.int64]:
    """Returns sorted indices of at most `most` rows with the (n,) labels: all, or rows drawn with `seed`.

    Draws `each` rows of every class first (all, if a class has fewer), then rows of any class.
    """
    if len(labels) <= most:
        return np.arange(len(labels))
    order = np.random.default_rng(seed).permutation(len(labels))
    codes = np.unique(labels, return_inverse=True)[1].reshape(-1)[order]
    by_class = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[by_class], np.arange(codes.max() + 1))
    rank = np.empty(len(order), np.int64)  # of each row within its class, in the order drawn
    rank[by_class] = np.arange(len(order)) - starts[codes[by_class]]
    first = rank < each
    return np.sort(np.concatenate([order[first], order[~first]])[:most])


def is_plain(text: str) -> bool:
    """Whether a label or column name can be written unchanged to CSV, to a table and to a terminal."""
    return bool(text) and text == text.strip() and text.isprintable() and len(text) <= MAX_TEXT


def require_distinct(names: Iterable[str], where: str) -> None:
    """Checks that column names are plain text, and all different; `where`: file and line, for messages.

    Raises:
        DataError: a name is empty, appears twice, or is not plain text; the message names the columns.
    """
    seen: dict[str, int] = {}
    for column, name in enumerate(names):
        if not name:
            hint = "name the column; pandas writes no row numbers with to_csv(..., index=False)"
            raise DataError(f"{where}: column {column + 1} has no name", hint=hint)
        if name in seen:
            said = f"{where}: columns {seen[name] + 1} and {column + 1} are both called {name!r}"
            raise DataError(said, hint="rename one of them, or leave it out of the file")
        if not is_plain(name):
            said = f"{where}: column {column + 1} may not be called {short(name)}"
            raise DataError(said, hint=RENAME)
        seen[name] = column


def label_array(values: list[Any], source: str) -> NDArray[Any]:
    """Returns values, the labels of `source`, as an array: int64 if all are integers, else text (`007`, `1.5`).

    `2.0` counts as the integer 2 if all labels are whole numbers, or if another label is `2`. Text gets Unicode's form
    NFC, as labels that are taught on a device: in file names of macOS, a letter and its accent are two characters.

    Raises:
        DataError: a label is NaN, a list or bytes, is not plain text on one line, or is "unknown", which is reserved.
    """
    empty = next((row for row, value in enumerate(values) if isinstance(value, float) and value != value), None)
    if empty is not None:
        raise DataError(f"{source}: row {empty}: the label is empty (nan)", hint="leave rows without a label out")
    odd = next((row for row, value in enumerate(values) if isinstance(value, bytes | list | dict | tuple)), None)
    if odd is not None:
        said = f"{source}: row {odd}: a label may not be {short(str(values[odd]))}, of the type "
        raise DataError(said + type(values[odd]).__name__, hint="labels are text or whole numbers: labels.astype(str)")
    if all(isinstance(value, bool) for value in values):
        values = [str(value) for value in values]
    if all(isinstance(value, float) and value.is_integer() for value in values):
        values = [int(value) for value in values]
    texts = [text_of(value) for value in values]
    plain = {text: without_fraction(text) for text in dict.fromkeys(texts)}
    if all(WHOLE.fullmatch(text) and abs(int(text)) < 2**63 for text in plain.values()):
        return np.array([int(plain[text]) for text in texts], dtype=np.int64)
    for text in plain:
        require_label(text, f"{source}: row {texts.index(text)}")
    return np.array([plain[text] if plain[text] in plain else text for text in texts])


def spelt_as(labels: NDArray[Any], classes: Sequence[int | str]) -> NDArray[Any]:
    """Returns (n,) labels as `classes` spell them: 2 as `2.0`, if one file has `1.5` and the other has not."""
    meant: dict[int | str, int | str | None] = {label: label for label in classes}
    # Only the others: `label_of` looks at all classes, which may be thousands.
    meant |= {label: label_of(str(label), classes) for label in {*labels.tolist()} - meant.keys()}
    return np.array([label if meant[label] is None else meant[label] for label in labels.tolist()])


def by_text(labels: Sequence[int | str], values: Iterable[Value]) -> dict[str, Value]:
    """Returns label as text -> its value; labels that are not in Unicode's form NFC are there in both forms."""
    pairs = list(zip(labels, values))
    return {text_of(label): value for label, value in pairs} | {str(label): value for label, value in pairs}


def spelt(text: str, known: Container[int | str]) -> str:
    """Returns the label `text` as it is if `known` has it, else in Unicode's form NFC."""
    return text if text in known else text_of(text)


def require_label(text: str, where: str) -> None:
    """Checks a label; `where` is the start of the error message.

    Raises:
        DataError: `text` is not plain text on one line, or is "unknown", which is reserved for rejected rows.
    """
    if not is_plain(text):
        said = f"{where}: a label may not be {short(text)}"
        raise DataError(said, hint=RENAME)
    if text == UNKNOWN_LABEL:
        raise DataError(
            f"{where}: the label {text!r} is reserved for rejected rows", hint="give that class another name"
        )

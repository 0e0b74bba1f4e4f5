"""Faults in labelled rows that make an evaluation misleading.

`find` warns of rows on both sides of a split, equal rows with different labels, features that are a copy of the label,
labels that may be one class, and labels such as "nan". `far_values` finds values such as 1e38, which alone
decide the scale of a column. Never changes a row.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.enrolment import enrolled
from device_agent.shared.features.coder import is_missing
from device_agent.shared.protocol.constants import Scale, counted
from device_agent.shared.tabular import csv_dialect
from knnkit.data.bad_cells import quoted
from knnkit.data.dataset import Dataset
from knnkit.data.policy import MISSING_WORDS
from knnkit.data.precision import WHOLE

#: A held-out row or two may equal a training row by chance; from this share on, more than one is reported.
_BY_CHANCE = 0.05
#: Fewer rows a class than these may follow a feature by chance.
_FEW = 5
#: A value this many times the range of a column's middle half from its median is far. Far values decide the scale if
#: they are at most this share of the rows, and make this share of the variance. Sample from which the range is taken.
_FAR, _FEW_FAR, _DECIDE, _SAMPLE = 100.0, 0.05, 0.99, 1024
#: From here on, float32 distances overflow after scale: robust, too.
_TOO_FAR = 1e15
#: Numbers that programs write for a missing value.
_STAND_INS = (-999.0, 999.0, -9999.0, 9999.0, -99999.0, 99999.0, -32768.0)
#: Most columns with far values that are named.
_NAMED = 3
#: Rows that are copied at a time.
_AT_ONCE = 4096
#: The bytes of a row's numbers, and its label.
_Keyed = tuple[bytes, Any]


def find(training: Dataset, held_out: Dataset | None) -> tuple[str, ...]:
    """Returns a warning for each kind of fault that training rows and held-out rows (or None) have."""
    again = _repeated([training] if held_out is None else [training, held_out])
    both = "" if held_out is None else _on_both_sides(again[0], again[1], len(held_out.rows))
    found = [both, _conflicts(again), *_copies(training), _gaps(training), _long(training)]
    return tuple(f"{training.source}: {text}" for text in (*found, *_spellings(training)) if text)


def of_columns(training: Dataset) -> tuple[str, ...]:
    """Returns warnings about the labels of each column, for training rows with several label columns."""
    found: list[str] = []
    for place, (name, classes) in enumerate(zip(training.target_names, training.target_classes)):
        codes = np.zeros(0, np.intp) if training.targets is None else training.targets[:, place].astype(np.intp)
        own = replace(training, labels=np.array(classes)[codes])
        said = [text for text in (_gaps(own), _long(own), *_spellings(own)) if text]
        found += [f"{training.source}: column {name!r}: {text}" for text in said]
    return tuple(found)


def of_categories(training: Dataset) -> tuple[str, ...]:
    """Returns warnings about categories of training rows that differ only in blanks, case or similar letters."""
    raw, found = training.raw, list[str]()
    if raw is None:
        return ()
    for place, texts in (raw.levels or {}).items():
        spelt: dict[str, list[str]] = defaultdict(list)
        for text in texts:
            if len(text) > 1:
                spelt[enrolled.spelling(text, by_look=True)].append(text)
        for same in (each for each in spelt.values() if len(each) > 1):
            said = f"categories of {raw.feature_names[place]!r} differ only {enrolled.difference(*same[:2])}"
            found.append(f"{training.source}: {said}: {', '.join(map(repr, same))}; if they mean one, spell them alike")
    return tuple(found)


def stand_ins(training: Dataset) -> tuple[str, ...]:
    """Returns a warning for each column where a number such as -9999 may stand for a missing value.

    The number occurs twice or more, and is farther from all other values than these are from each other.
    """
    found = []
    for ends in (training.rows.min(axis=0), training.rows.max(axis=0)):
        for place in np.flatnonzero(np.isin(ends, _STAND_INS)).tolist():
            column, value, name = training.rows[:, place], ends[place], training.feature_names[place]
            others = column[column != value]
            count = len(column) - len(others)
            if count > 1 and len(others) and 0.0 < np.ptp(others) < np.abs(others - value).min():
                said = f"{value:.7g} in {count:,} cells of {name!r} is far from all other values. If it means a missing"
                key = f"missing: {{{quoted(name)}: median}}"
                found.append(f"{training.source}: {said} value, empty these cells, and write {key}")
    return tuple(found)


def _repeated(parts: Sequence[Dataset]) -> list[list[_Keyed]]:
    """Returns for each part (bytes, label) of the rows that may be repeated: those with the hash of another row."""
    hashes = [np.fromiter(map(hash, _keys(part.rows)), np.int64, len(part.rows)) for part in parts]
    values, counts = np.unique(np.concatenate(hashes), return_counts=True)
    chosen = [np.isin(own, values[counts > 1]) for own in hashes]
    return [list(zip(_keys(part.rows[own]), part.labels[own].tolist())) for part, own in zip(parts, chosen)]


def _on_both_sides(training: Sequence[_Keyed], held_out: Sequence[_Keyed], rows: int) -> str:
    known = {key for key, _ in training}
    count = sum(key in known for key, _ in held_out)
    if count < 2 and count < _BY_CHANCE * rows:
        return ""
    return (
        f"{count:,} of {rows:,} held-out rows are equal to a training row, which makes the accuracy too high; drop the "
        "repeated rows, or keep them on one side with split: {group: COLUMN}"
    )


def _conflicts(parts: Sequence[Sequence[_Keyed]]) -> str:
    labels: dict[bytes, set[str]] = defaultdict(set)
    counts: dict[bytes, int] = defaultdict(int)
    for key, label in itertools.chain(*parts):
        labels[key].add(str(label))
        counts[key] += 1
    torn = [key for key, found in labels.items() if len(found) > 1]
    if not torn:
        return ""
    one, other, *_ = sorted(labels[torn[0]])
    rows = sum(counts[key] for key in torn)
    return f"{rows:,} rows have the features of another row and a different label, such as {one!r} and {other!r}"


def _keys(rows: NDArray[np.float32]) -> Iterator[bytes]:
    for start in range(0, len(rows), _AT_ONCE):
        yield from (row.tobytes() for row in rows[start : start + _AT_ONCE] + np.float32(0.0))  # -0.0 is 0.0


def _copies(training: Dataset) -> list[str]:
    """Returns warnings about features that are copies of the label: each value has one label, each label one value."""
    classes, codes = np.unique(training.labels, return_inverse=True)
    if len(classes) < 2 or len(training.rows) < _FEW * len(classes):
        return []
    names = [name for name, column in zip(training.feature_names, training.rows.T) if _follows(column, codes)]
    return [f"the column {name!r} is a copy of the label: leave it out of `features:` in deploy.yaml" for name in names]


def _follows(column: NDArray[np.float32], codes: NDArray[Any]) -> bool:
    count = int(codes.max()) + 1
    if len(np.unique(column[: 2 * count])) > count:  # too many already
        return False
    values, places = np.unique(column, return_inverse=True)
    pairs = np.unique(np.column_stack([places.reshape(-1), codes.reshape(-1)]), axis=0)
    return len(values) == len(pairs) == count


def _gaps(training: Dataset) -> str:
    """Returns a warning about labels that are words for a missing cell; "" if there are none."""
    words = [label for label in np.unique(training.labels).tolist() if is_missing(str(label), MISSING_WORDS)]
    if not words:
        return ""
    rows = counted(int(np.isin(training.labels, words).sum()), "row")
    named = ", ".join(map(repr, words))
    return f"the label {named} is on {rows}: if it means that the label is not known, leave these out"


def _long(training: Dataset) -> str:
    """Returns a warning about whole numbers as labels that float64 does not hold; "" if there are none."""
    if training.labels.dtype.kind != "i" or np.abs(training.labels.astype(np.float64)).max() < WHOLE:
        return ""
    said = "labels beyond 2^53 become equal to others in programs that read JSON's numbers as float64"
    return f"{said}, as most do; a letter before the digits makes them text"


def _spellings(training: Dataset) -> list[str]:
    """Returns warnings about labels that may be one class.

    These are labels of two or more characters that differ only in blanks, case or similar letters, or are equal as
    numbers.
    """
    spelt: dict[str, list[Any]] = defaultdict(list)
    values: dict[float, list[Any]] = defaultdict(list)
    counts = dict(zip(*(part.tolist() for part in np.unique(training.labels, return_counts=True))))
    for label in counts:
        text = str(label)
        if len(text) > 1:
            spelt[enrolled.spelling(text, by_look=True)].append(label)
        with contextlib.suppress(ValueError):
            if isinstance(label, str) and text.lower() not in csv_dialect.TRUTH:
                values[csv_dialect.number(text)].append(label)
    pairs = [(f"differ only {enrolled.difference(*found[:2])}", found) for found in spelt.values() if len(found) > 1]
    same = [found for found in values.values() if len({enrolled.spelling(label, by_look=True) for label in found}) > 1]
    pairs += [("are equal as numbers", found) for found in same]
    return [
        f"labels {said}: "
        + ", ".join(f"{label!r} ({counted(counts[label], 'row')})" for label in labels)
        + "; if they mean one class, spell them alike"
        for said, labels in pairs
    ]


class Far(NamedTuple):
    """The farthest value of a column whose scale a few values decide."""

    row: int  # its index
    said: str  # what is wrong with it
    rows: NDArray[np.int64]  # indices of all rows with a far value in that column


def scale_by_far(training: Dataset, scale: Scale) -> tuple[str, ...]:
    """Returns a warning for each column of the training rows whose scale a few far values decide (`far_values`).

    Names few columns: a single bad row can be far in all of them. Leaves out a column in which most rows of a class are
    far: a rare class, such as a fault, and no mistake.
    """
    found = far_values(training.rows, training.feature_names, scale)
    found = [far for far in found if not _are_a_class(training.labels, far)]
    said = [f"{training.where(far.row)}: {far.said}" for far in found[:_NAMED]]
    if more := len(found) - len(said):
        have = "has" if more == 1 else "have"
        said.append(f"{training.source}: {counted(more, 'more column')} {have} values as far from all others")
    return tuple(said)


def _are_a_class(labels: NDArray[Any], far: Far) -> bool:
    own = labels == labels[far.row]
    count = int(own[far.rows].sum())
    return count >= _FEW and 2 * count > int(own.sum())


def far_values(rows: NDArray[Any], names: Sequence[str], scale: Scale) -> list[Far]:
    """Returns the farthest value of each column in which a few values far from all others decide `scale`.

    Standard and minmax then make the other values nearly equal; the result is empty for other scales. A column of which
    half the values are equal (counts, for example) is left out: any other value is far there.
    """
    if scale not in ("standard", "minmax"):
        return []
    low, middle, high = np.quantile(rows[:: -(-len(rows) // _SAMPLE)].astype(np.float64), (0.25, 0.5, 0.75), axis=0)
    reach = np.maximum(rows.max(axis=0) - middle, middle - rows.min(axis=0))
    found = []
    for column in np.flatnonzero((high > low) & (reach > _FAR * (high - low))).tolist():
        off = np.abs(rows[:, column].astype(np.float64) - middle[column])
        far, squares = off > _FAR * (high[column] - low[column]), (off / off.max()) ** 2
        if far.mean() <= max(_FEW_FAR, 1.0 / len(far)) and squares[far].sum() > _DECIDE * squares.sum():
            row, more = int(off.argmax()), int(far.sum()) - 1
            said = f"{names[column]!r} is {rows[row, column]:.6g}{f' (and {more:,} more are as far)' if more else ''}"
            said += f", but half of its values lie between {low[column]:.6g} and {high[column]:.6g}; scale: {scale} "
            way = ", or take scale: robust" if off[row] < _TOO_FAR * (high[column] - low[column]) else ""
            found.append(
                Far(row, f"{said}makes these nearly equal: correct that row, or leave it out{way}", np.flatnonzero(far))
            )
    return found

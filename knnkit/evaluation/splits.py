"""Division of labelled rows into training and held-out rows.

`divide` follows `split` of deploy.yaml: `random` (scikit-learn's plain split), `stratified`, `group` (all rows of one
group on one side) and `time` (the latest rows are held out). Without `split` it divides at random; if that leaves a
class without a training row, it divides by class instead. Reads no file.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.features.categories import key_of
from device_agent.shared.file_hints import cleaned
from device_agent.shared.protocol.constants import counted
from knnkit.data import columns
from knnkit.data.dataset import Dataset
from knnkit.data.patterns import TEXTS
from knnkit.errors import DataError, needs

#: Stands in `Divided.how` where each row is measured without itself.
LEAVE_ONE_OUT = "leave-one-out"
#: Divisions by group to try until every class has a training row.
_TRIES = 50
#: From this share of classes with one row, nothing is held out: a gallery.
_LONELY = 0.5
#: A date with the year last, and the number of months.
_DATE, _MONTHS = re.compile(r"(\d\d)([/.-])(\d\d)\2\d{4}([ T].*)?"), 12

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Divided:
    """Training and held-out rows."""

    training: Dataset  # rows that become neighbours
    held_out: Dataset | None  # rows for measuring; None if no row is held out
    how: str = ""  # random, stratified, group, time, leave-one-out, or file (a test file); "" if nothing is measured
    warnings: tuple[str, ...] = ()  # messages for the user


def divide(everything: Dataset, share: float, seed: int, how: str | None = None) -> Divided:
    """Returns training and held-out rows.

    Args:
        everything: all rows; `everything.beside` holds their groups or times.
        share: part of the rows to hold out, between 0 and 1.
        seed: seed of the random division.
        how: random, stratified, group or time; None: random, or by class if the rows need it.

    Raises:
        DataError: too few rows, or a class without a training row.
    """
    if share == 0.0:
        return Divided(everything, None)
    if how is None:
        return _default(everything, share, seed)
    kept, held_out = _WAYS[how](everything, share, seed)
    lost = _unlearnt(everything.labels, kept)
    if lost:
        raise _all_held_out(everything, lost, how)
    warnings = _unmeasured(everything, held_out) if how == "group" else ()
    return Divided(everything.take(kept), everything.take(held_out), how, warnings)


def _unmeasured(everything: Dataset, held_out: Places) -> tuple[str, ...]:
    """Returns a warning about labels of which no row is held out; () if there are none."""
    lost = _unlearnt(everything.labels, held_out)
    if not lost:
        return ()
    more = f" and {counted(len(lost) - 1, 'more label')}" if lost[1:] else ""
    said = f"{everything.source}: no row of {lost[0]!r}{more} is held out, to measure with"
    return (f"{said}: a label needs 2 groups or recordings; if it has them, change seed: or test:",)


def _default(everything: Dataset, share: float, seed: int) -> Divided:
    """Holds out a random share; by class if a class would lose all rows; no row if half of all classes have one row."""
    kept, held_out = _random(everything, share, seed)
    lost = _unlearnt(everything.labels, kept)
    if not lost:
        return Divided(everything.take(kept), everything.take(held_out), "random")
    classes, counts = np.unique(everything.labels, return_counts=True)
    lonely = int((counts == 1).sum())
    source = everything.source
    doubt = columns.doubt(classes.tolist(), len(everything.labels))
    doubt = f". {doubt}" if doubt else ""
    if lonely >= _LONELY * len(classes):
        said = f"{lonely} of {len(classes)} classes have one row, so no row is held out"
        said += "; each row of the others is measured against all rows but itself (leave-one-out)"
        if lonely == len(classes):
            said = "every class has one row, so nothing can be measured without test: {file: test.csv}"
        return Divided(everything, None, LEAVE_ONE_OUT, (f"{source}: {said}{doubt}",))
    kept, held_out = _by_class(everything.labels, share, seed)
    said = f"a random split leaves {lost[0]!r} without a training row, so the rows are divided by class"
    if lonely:
        said += f"; classes with one row cannot be measured ({lonely}), such as {classes[counts == 1][0].item()!r}"
    return Divided(everything.take(kept), everything.take(held_out), "stratified", (f"{source}: {said}{doubt}",))


def _all_held_out(everything: Dataset, lost: list[Any], how: str) -> DataError:
    more = f", and of {counted(len(lost) - 1, 'more label')}" if len(lost) > 1 else ""
    hint = "split: stratified" if how == "random" else "try another test: or seed:, or correct `features:` and `label:`"
    if how in ("group", "time"):
        hint = f"split: stratified, or more rows of that label in other {'groups' if how == 'group' else 'times'}"
    return DataError(
        f"{everything.source}: all rows of the label {lost[0]!r} were held out{more}", hint=hint, key="split"
    )


def _unlearnt(labels: NDArray[Any], kept: Places) -> list[Any]:
    lost: list[Any] = np.setdiff1d(labels, labels[kept]).tolist()
    return lost


# --- the ways of dividing -----------------------------------------------------------------------------------------
def _random(everything: Dataset, share: float, seed: int) -> tuple[Places, Places]:
    with needs("scikit-learn is not installed"):
        from sklearn.model_selection import train_test_split
    try:
        kept, held_out = train_test_split(np.arange(len(everything.rows)), test_size=share, random_state=seed)
    except ValueError:
        raise _too_few(everything, share) from None
    return kept, held_out


def _stratified(everything: Dataset, share: float, seed: int) -> tuple[Places, Places]:
    from sklearn.model_selection import train_test_split

    places, labels = np.arange(len(everything.rows)), everything.labels
    try:
        kept, held_out = train_test_split(places, test_size=share, random_state=seed, stratify=labels)
    except ValueError:  # a class has one row, or fewer rows are held out than there are classes
        return _by_class(labels, share, seed)
    return (kept, held_out) if not _unlearnt(labels, kept) else _by_class(labels, share, seed)


def _by_class(labels: NDArray[Any], share: float, seed: int) -> tuple[Places, Places]:
    """Returns (training, held-out) row indices: a share of each class is held out, but never all its rows.

    Raises:
        DataError: each class has one row.
    """
    random, held_out = np.random.default_rng(seed), list[int]()
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        held_out += rows[: min(len(rows) - 1, max(1, round(share * len(rows))))].tolist()
    if not held_out:
        said, hint = "each label has one row, so none can be held out", "leave out split:, or test: 0"
        raise DataError(said, hint=hint, key="split")
    return np.setdiff1d(np.arange(len(labels)), held_out), np.sort(np.array(held_out, np.int64))


def groups_of(data: Dataset) -> NDArray[Any] | None:
    """Returns the (n,) groups of the rows, as texts; `1` for `1.0`, which is the same group. None: `data` has none."""
    return None if data.beside is None else np.array([key_of(str(cell)) for cell in data.beside.tolist()])


def _group(everything: Dataset, share: float, seed: int) -> tuple[Places, Places]:
    """Returns (training, held-out) row indices, whole groups at random.

    If possible, all classes have training rows, and classes in two groups or more have held-out rows, too.
    """
    from sklearn.model_selection import GroupShuffleSplit

    names = groups_of(everything)
    assert names is not None
    groups = len(np.unique(names))
    if groups < 2:
        said, hint = f"{everything.source}: all rows have one group", "split: stratified, or another column"
        raise DataError(said, hint=hint, key="split")
    divisions = GroupShuffleSplit(_TRIES, test_size=share, random_state=seed)
    try:
        found = list(divisions.split(everything.rows, groups=names))
    except ValueError:
        said = f"{everything.source}: too few groups to hold out {share:g} of them: {groups}"
        raise DataError(said, hint="test: 0.5, or rows of more groups", key="test") from None
    labels, codes = np.unique(everything.labels, return_inverse=True)

    def lost(places: Places) -> int:
        return int((np.bincount(codes[places], minlength=len(labels)) == 0).sum())

    kept, held_out = min(found, key=lambda each: (lost(each[0]), lost(each[1])))
    return kept, held_out


def _time(everything: Dataset, share: float, seed: int) -> tuple[Places, Places]:
    """Returns (training, held-out) row indices; the latest share is held out, rows with equal times together."""
    assert everything.beside is not None
    moments = np.array([*_moments(everything, everything.beside.tolist())])
    order = np.argsort(moments, kind="stable")
    wanted = len(order) - int(np.ceil(share * len(order)))
    cut = int(np.searchsorted(moments[order], moments[order][wanted])) if wanted else 0
    if not cut:
        raise _too_few(everything, share)
    return order[:cut], order[cut:]


def _moments(everything: Dataset, cells: list[str]) -> Iterator[float]:
    kinds: dict[bool, tuple[int, str]] = {}  # whether it is a number -> the first row with such a time
    for row, cell in enumerate(cells):
        try:
            moment, is_number = _moment(cell)
        except ValueError:
            said, source = f"{everything.where(row)}: {cell[:60]!r} is not a time", everything.source
            hint, change = "write 2026-01-31T12:00:00, or a number of seconds", _year_first(cells)
            if change and Path(source).suffix.lower() in TEXTS:
                hint += f": {change} {shlex.quote(source)} > {cleaned(source)}"
            raise DataError(said, hint=hint, key="split") from None
        kinds.setdefault(is_number, (row, cell))
        if len(kinds) > 1:  # their order would mean nothing
            (first, other), (second, text) = kinds[True], kinds[False]
            said = (
                f"{everything.where(first)}: {other!r} is a number, but {text!r} ({everything.where(second)}) is a date"
            )
            raise DataError(said, hint=f"write all times alike, such as {text[:60]}", key="split")
        yield moment


def _year_first(cells: list[str]) -> str:
    """Returns a command of sed that writes day-first or month-first dates with the year first; "" for other cells.

    "" also if no cell shows which of the two numbers is the day.
    """
    found = [_DATE.fullmatch(cell) for cell in cells]
    dates = [match for match in found if match]
    if len(dates) < len(found) or len({match[2] for match in dates}) > 1:
        return ""
    first, second = (max(int(match[place]) for match in dates) for place in (1, 3))
    sign = dates[0][2]
    if (first > _MONTHS and second > _MONTHS) or (max(first, second) <= _MONTHS and sign != "."):
        return ""
    order = r"\3-\2-\1" if second <= _MONTHS and (first > _MONTHS or sign == ".") else r"\3-\1-\2"
    two = "([0-9]{2})"
    return f"sed -E {shlex.quote(f's#{two}[{sign}]{two}[{sign}]([0-9]{{4}})#{order}#g')}"


def _moment(cell: str) -> tuple[float, bool]:
    """Returns the time in a cell as a number, and whether the cell is a number; ValueError for any other cell."""
    try:
        moment, is_number = float(cell), True
    except ValueError:
        found = datetime.fromisoformat(cell[:-1] + "+00:00" if cell.endswith("Z") else cell)
        moment, is_number = (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).timestamp(), False
    if not np.isfinite(moment):
        raise ValueError
    return moment, is_number


def _too_few(everything: Dataset, share: float) -> DataError:
    said = f"{everything.source}: too few rows to hold out {share:g} of them: {len(everything.rows)}"
    return DataError(said, hint="test: 0, or more rows", key="test")


_WAYS = {"random": _random, "stratified": _stratified, "group": _group, "time": _time}

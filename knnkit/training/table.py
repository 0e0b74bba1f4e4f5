"""Fits the table of a model, and applies it.

The table holds the values that fill missing cells, and the categories that become features. Medians come from the
training rows alone, categories from their whole file. `device_agent.shared.features` applies the table, here and on a
device. Reads files with `knnkit.data`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.console.lists import first_of
from device_agent.shared.enrolment.enrolled import without_fraction
from device_agent.shared.features.categories import Codes, key_of
from device_agent.shared.features.coder import KEEP, UNKNOWN_CATEGORY, UNUSED, expand, feature_names, transforms_of
from device_agent.shared.protocol.constants import counted
from device_agent.shared.protocol.table_info import Column, Table
from device_agent.shared.queries import default_names
from device_agent.shared.tabular.float_parser import TOO_LARGE
from knnkit.config.parse import Data, FileData
from knnkit.data import files, precision, targets
from knnkit.data.bad_cells import as_map, as_yaml, in_data, quoted
from knnkit.data.columns import Wanted, require_features
from knnkit.data.dataset import Dataset, spelt_as
from knnkit.data.policy import PLAIN, Policy
from knnkit.errors import DataError

#: The category that `constant` fills with, beside 0 for numbers.
MISSING_CATEGORY = "missing"


@dataclass(frozen=True)
class Prepared:
    """Training and held-out rows as features, after the model's table was applied, and warnings for the user."""

    table: Table | None
    training: Dataset
    held_out: Dataset | None
    warnings: tuple[str, ...] = ()


def policy_of(data: Data) -> Policy:
    """Returns the rules for reading cells, from keys of `data`; if `data` names no files, cells must be numbers."""
    if not isinstance(data, FileData):
        return PLAIN
    return Policy(data.drop, data.missing, data.categories, data.unknown_category, data.thousands)


def prepare_of(data: Data, everything: Dataset, training: Dataset, held_out: Dataset | None) -> Prepared:
    """Fits a table by the keys of `data` about cells, and applies it to the rows; without such keys, changes nothing.

    `everything` has all rows of the files of `data`, before some were held out.
    """
    policy = policy_of(data)
    if policy.is_plain:
        return Prepared(None, training, held_out)
    return prepare(policy.with_text(everything.text_columns), training, held_out)


def load_rows(data: FileData, beside: str | None) -> Dataset:
    """Reads the rows in the files of `data`. Columns of `target`, or several label columns, become `targets`.

    `beside` is a column to read as text beside the features, such as the group of each row; None: none.

    Raises:
        DataError: a column is missing, or a cell cannot be read.
    """
    answers = data.target or data.label
    policy = policy_of(data).for_answers(answers, are_labels=not data.target)

    def read(label: str, features: Sequence[str] | None, wide: bool = True) -> Dataset:
        return files.load_all(data.sources, Wanted(label, features, beside, policy, data.id, wide))

    if not data.target and len(answers) == 1:
        return read(answers[0], data.features, wide=False)
    known = None if data.target else ()
    return targets.read(read, answers, data.features, narrow=policy.is_plain, known=known)


def read_more(file: Path, answers: Sequence[str], training: Dataset, table: Table | None) -> Dataset:
    """Reads further labelled rows as features of the model; `answers` are the file's label columns or targets.

    `training` are the training rows, and `table` is their fitted table (None: rows of plain numbers).

    Raises:
        DataError: a column is missing, or a cell cannot be read.
    """
    wide = training.rows.dtype == np.float64
    if table is None:
        return _read(file, answers, training, training.feature_names, PLAIN, wide)
    names = [column.name for column in table.columns if column.encoding != UNUSED]
    found = apply(table, with_unused(table, _read(file, answers, training, names, policy_for(table), wide)))
    found = replace(found, feature_names=training.feature_names)
    return replace(found, rows=found.rows.astype(training.rows.dtype, copy=False))


def read_test(file: Path, answers: Sequence[str], data: Data, everything: Dataset) -> Dataset:
    """Reads the held-out rows of a file in the same way as `everything`, the rows of the training data, was read.

    `answers` are the file's label columns or targets.

    Raises:
        DataError: a column is missing, or a cell cannot be read.
    """
    policy = replace(policy_of(data).with_text(everything.text_columns), drop=())
    wide = everything.rows.dtype == np.float64
    return _read(file, answers, everything, everything.feature_names, policy, wide)


def _read(
    file: Path, answers: Sequence[str], like: Dataset, features: Sequence[str], policy: Policy, wide: bool
) -> Dataset:
    count = max(1, len(like.target_names))
    if len(answers) != count:
        named = f"{len(answers)} ({', '.join(answers)})"
        said = f"{file}: the model answers {counted(count, 'column')} for a row, not {named}"
        raise DataError(said, hint=f"name {count} of its columns", flags="leave --label out")
    if like.targets is None:
        found = files.load(file, answers[0], features, policy, wide=wide)
        return replace(found, labels=spelt_as(found.labels, np.unique(like.labels).tolist()))
    policy = policy.for_answers(answers, are_labels=bool(like.target_classes))

    def read(label: str, features: Sequence[str] | None) -> Dataset:
        return files.load(file, label, features, policy, wide=True)

    how: dict[str, Any] = {"narrow": policy.is_plain and not wide, "known": like.target_classes or None}
    return replace(targets.read(read, answers, features, **how), target_names=like.target_names)


def prepare(policy: Policy, training: Dataset, held_out: Dataset | None) -> Prepared:
    """Fits the table on the training rows, as the policy says, and applies it to these and to `held_out` (or None).

    Raises:
        DataError: a column has no value to fill with, a held-out row has a category that no training row has, or two
            features would have one name.
    """
    require_features(policy, list(training.feature_names), Path(training.source), {})
    training, left = _without_dropped(policy, training)
    warnings = [left] if left else []
    words = training.missing_words
    if held_out is not None:
        held_out, left = _without_dropped(policy, held_out)
        warnings += [left] if left else []
        words |= held_out.missing_words  # a device answers what is measured here
    table = Table(
        tuple(_fit(policy, training, place) for place in range(len(training.feature_names))),
        "ignore" if policy.unknown_category == "ignore" else "refuse",
        policy.thousands,
        missing_words=tuple(sorted(words)),
    )
    if twice := next((name for name, count in Counter(feature_names(table)).items() if count > 1), None):
        said = f"{training.source}: two features would be called {twice!r}: a category, and a column or its category"
        raise DataError(said, hint="rename one of the columns")
    warnings += _filled(table, training)
    made = apply(table, training)
    made = replace(made, rows=precision.float32_if_enough(made.rows))
    ready = None if held_out is None else apply(table, held_out)
    if ready is not None:
        ready = replace(ready, rows=ready.rows.astype(made.rows.dtype, copy=False))
    return Prepared(table, made, ready, tuple(warnings))


def apply(table: Table, rows: Dataset) -> Dataset:
    """Returns the model's features computed from raw rows; `raw` of the result holds the raw rows.

    Raises:
        DataError: the table refuses a missing cell or an unknown category.
    """
    matrix = rows.rows.copy()
    for place, column in enumerate(table.columns):
        if column.encoding == UNUSED:
            matrix[:, place] = 0.0
        elif column.encoding != "number":
            matrix[:, place] = _codes(table, column, rows, place)
        gaps = np.isnan(matrix[:, place])
        if column.missing == KEEP:
            continue
        if gaps.any() and column.fill is None:
            said = f"{rows.source}: the column {column.name!r} has {counted(int(gaps.sum()), 'empty cell')}"
            hint = in_data(rows.source, f"missing: {{{quoted(column.name)}: median}}")
            if table.transforms:  # of an estimator, which deploy.yaml cannot change
                hint = "leave these rows out, or fit the pipeline again with SimpleImputer() as its first step"
            raise DataError(said, hint=hint)
        matrix[gaps, place] = column.fill
    features, names = expand(table.columns, matrix), feature_names(table)
    if run := transforms_of(table):
        features = run(features)
        names = default_names(features.shape[1])
        wrong = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if len(wrong):
            said = f"{rows.where(wrong[0])}: the pipeline turns it into NaN or infinity"
            raise DataError(said, hint="drop the row")
    return replace(rows, rows=features, feature_names=names, levels=None, raw=rows)


def with_unused(table: Table, rows: Dataset) -> Dataset:
    """Adds to the rows the columns that the table lists but does not use; their cells are missing."""
    names = tuple(column.name for column in table.columns)
    places = [names.index(name) for name in rows.feature_names]
    matrix = np.full((len(rows.rows), len(names)), np.nan)
    matrix[:, places] = rows.rows
    levels = {places[place]: texts for place, texts in (rows.levels or {}).items()}
    return replace(rows, rows=matrix, feature_names=names, levels=levels or None)


def policy_for(table: Table) -> Policy:
    """Returns the rules by which cells of new rows are read before `apply`; columns that are not used get no rule."""
    used = [column for column in table.columns if column.encoding != UNUSED]
    missing = {
        column.name: "refuse" if column.fill is None and column.missing != KEEP else "constant" for column in used
    }
    categories = {column.name: column.encoding for column in used if column.encoding != "number"}
    known = {column.name: column.categories for column in used}
    return Policy((), missing, categories, table.unknown_category, table.thousands, table.missing_words, known)


def raw_lines(rows: Dataset) -> bytes:
    """Returns the raw rows of `rows` as JSON lines, as a device reads them (null: missing); b"" without raw rows."""
    raw = rows.raw
    if raw is None:
        return b""
    levels: Mapping[int, tuple[str, ...]] = raw.levels or {}
    lines = [[_json_cell(value, levels.get(place)) for place, value in enumerate(row)] for row in raw.rows.tolist()]
    return b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)


def _json_cell(value: float, levels: tuple[str, ...] | None) -> Any:
    if np.isnan(value):
        return None
    return value if levels is None else levels[int(value)]


def _without_dropped(policy: Policy, rows: Dataset) -> tuple[Dataset, str]:
    """Leaves out rows with a missing cell in a column whose policy is `drop`; also returns a message about them, or "".

    Raises DataError if no row is left.
    """
    kept = ~np.isnan(rows.rows[:, [policy.missing_of(name) == "drop" for name in rows.feature_names]]).any(axis=1)
    if kept.all():
        return rows, ""
    if not kept.any():
        raise DataError(f"{rows.source}: every row has a missing cell", hint=in_data(rows.source, "missing: median"))
    said = f"{rows.source}: {(~kept).sum():,} of {len(kept):,} rows have missing cells and were left out"
    return rows.take(np.flatnonzero(kept)), said


def _fit(policy: Policy, training: Dataset, place: int) -> Column:
    name, values = training.feature_names[place], training.rows[:, place]
    there, way = values[~np.isnan(values)], policy.missing_of(name)
    kind = policy.categories_of(name)
    word = way if isinstance(way, str) and way in ("refuse", "drop", "median", "constant") else "constant"
    if kind is None:
        return Column(name, word, _number_to_fill(policy, there, name, training.source))
    encoding: Literal["one-hot", "ordinal"] = "ordinal" if kind != "one-hot" else "one-hot"
    levels = (training.levels or {})[place]
    categories = list(levels)
    fill = _category_to_fill(way, there, levels)
    if fill is not None and fill not in categories:
        categories.append(fill)
    if not categories:
        raise _no_value(policy, name, training.source)
    return Column(name, word, None if fill is None else float(categories.index(fill)), encoding, tuple(categories))


def _number_to_fill(policy: Policy, values: NDArray[Any], name: str, source: str) -> float | None:
    way = policy.missing_of(name)
    if way in ("refuse", "drop"):
        return None
    if way == "median":
        if not len(values):
            raise _no_value(policy, name, source)
        return float(np.median(values))
    if way == "constant":
        return 0.0
    if isinstance(way, str | bool) or not abs(way) < TOO_LARGE:
        hint = in_data(source, f"missing: {as_map({**policy.missing, name: 0.0})}")  # type: ignore[dict-item]
        said = f"{source}: missing cells of {name!r} cannot become {way!r}"
        raise DataError(said, hint=hint, key=f"data/missing/{name}")
    return float(way)


def _no_value(policy: Policy, name: str, source: str) -> DataError:
    hint = in_data(source, f"drop: {as_yaml([*policy.drop, name])}")
    return DataError(f"{source}: the column {name!r} has no value", hint=hint)


def _category_to_fill(way: Any, values: NDArray[Any], levels: Sequence[str]) -> str | None:
    """Returns the category that fills missing cells; None: they are refused, or their rows are dropped.

    `way` is the column's word under `missing`: `median` fills with the most frequent category, `constant` with
    `MISSING_CATEGORY`, a category with itself; YAML's 3 is the float 3.0 here. `values` are the codes of cells with a
    value, indices in `levels`.
    """
    if way in ("refuse", "drop"):
        return None
    if way == "median":
        return levels[int(np.bincount(values.astype(int)).argmax())] if len(values) else None
    text = MISSING_CATEGORY if way == "constant" else str(way)
    if text in levels:
        return text
    known = next((each for each in levels if key_of(each) == key_of(text)), None)
    return known or (text if isinstance(way, str) else without_fraction(text))


def _codes(table: Table, column: Column, rows: Dataset, place: int) -> NDArray[Any]:
    """Returns column number `place` as indices in its categories; DataError for a new category that it refuses."""
    levels = (rows.levels or {})[place]
    known = Codes(column.categories, exact=bool(table.transforms))
    values = rows.rows[:, place]
    used = {levels[int(code)] for code in np.unique(values[~np.isnan(values)])}
    unknown = sorted(text for text in used if known.get(text) is None)
    if unknown and (column.unknown or table.unknown_category) == "refuse":
        said = f"{rows.source}: no training row has the category {unknown[0]!r} of {column.name!r}"
        hint = in_data(rows.source, "unknown_category: ignore")
        if column.unknown:  # as the encoder of a pipeline decided
            hint = "leave these rows out, or fit with OneHotEncoder(handle_unknown='ignore')"
        raise DataError(said, hint=hint)
    codes = np.array([UNKNOWN_CATEGORY if (code := known.get(text)) is None else code for text in levels] or [0.0])
    there = ~np.isnan(values)
    found = values.copy()
    found[there] = codes[values[there].astype(int)]
    return found


def _filled(table: Table, training: Dataset) -> list[str]:
    """Returns [one message] about the missing training cells that the table fills; [] if there are none."""
    counts = np.isnan(training.rows).sum(axis=0)
    parts = [
        f"{count:,} in {column.name!r} by {_shown(column)}"
        for column, count in zip(table.columns, counts.tolist())
        if count and column.fill is not None
    ]
    if not parts:
        return []
    said = f"{training.source}: {counts.sum():,} missing cells of the training rows are filled"
    return [f"{said}: {first_of(parts, 5)}"]


def _shown(column: Column) -> str:
    fill = column.fill or 0.0
    return f"{fill:.7g}" if column.encoding == "number" else repr(column.categories[int(fill)])

"""Loads the rows of deploy.yaml, and holds some out.

Rows that `knnkit promote` added are never held out.
Rows of raw inputs go through their stages here. Knows nothing of models.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.console.lists import listed
from device_agent.shared.protocol.input_info import Window
from knnkit.config.parse import Build, FileData, GroupSplit, SklearnData, SkopsData, TestFile, TimeSplit
from knnkit.data import columns, dataset, listing, patterns, precision, raw_files, recordings
from knnkit.data.bad_cells import quoted
from knnkit.data.dataset import Dataset
from knnkit.data.recordings import Labels
from knnkit.errors import DataError
from knnkit.evaluation.splits import Divided, divide
from knnkit.model.tflite.load_tensorflow import needs_build_extra
from knnkit.training import table
from knnkit.training.inputs import Embedder, embedder_of
from knnkit.training.table import read_more, read_test

#: Folder of the files that `knnkit promote` writes, beside deploy.yaml.
FIELD = "field"


@dataclass(frozen=True)
class Rows:
    """All rows of the training data."""

    rows: Dataset
    embedder: Embedder | None  # that computed them; None: no stages
    window: Window | None  # how windows were cut; None if the rows are not windows
    warnings: tuple[str, ...] = ()  # about what may be wrong
    notes: tuple[str, ...] = ()  # about what was read


def load_rows(build: Build) -> Rows:
    """Loads all rows of the training data; if the model has stages, they compute the rows from raw inputs.

    Raises:
        DataError: a file, column or cell is invalid.
        BuildError: a stage cannot be run.
    """
    asked, data = build.model.input, build.model.data
    embedder, window = embedder_of(asked), asked.window.record if asked and asked.window else None
    takes_files = asked is not None and asked.takes_files
    if asked and embedder and isinstance(data, FileData) and raw_files.are_raw(data.sources, data.path, takes_files):
        listed = raw_files.list_files(data.sources, data.label_column, data.path, build.model.beside, asked.suffixes)
        rows, embedder = embedder.apply_to_files(listed)
        others = [f"{rows.source}: {listed.others}"] if listed.others else []
        return Rows(rows, embedder, window, (*embedder.warnings, *others))
    try:
        cut = None if window is None else _load_windows(build, window)
        rows = _load(build) if cut is None else cut.windows
    except DataError as error:
        column = listing.column_of_files(data.sources) if takes_files and isinstance(data, FileData) else ""
        if not column:
            raise
        said = f"{error}\n  the column {column!r} names files, which are read if `path` names the column"
        raise DataError(said, hint=f"path: {quoted(column)} in `data:` of deploy.yaml") from None
    warnings, notes = ((), ()) if cut is None else (cut.warnings, (cut.counts,))
    if embedder is not None:
        warnings += _lost(rows, window)
        rows, embedder = embedder.apply(rows)
    return Rows(rows, embedder, window, warnings, notes)


def _lost(raw: Dataset, window: Window | None) -> tuple[str, ...]:
    """Returns a warning for each column of raw numbers that lose too much in float32, in which stages compute."""
    if raw.rows.dtype == np.float32:
        return ()
    names = raw.feature_names if window is None else window.columns
    how = "subtract a number near its values, in recordings and on the device alike"
    return precision.warnings(raw.rows.reshape(-1, len(names)), names, raw.source, shifted=False, advice=how)


@needs_build_extra()
def every_row(build: Build) -> Dataset:
    """Returns all rows of the training data as the model's features, in their order in the file.

    Raises:
        DataError: a file, column or cell is invalid, or `data` names a fitted estimator.
        MissingDependency: a package of `knnkit[build]` is not installed.
    """
    if isinstance(build.model.data, SkopsData):
        said = f"{build.model.data.skops} holds a fitted estimator; this command needs the file of its training rows"
        raise DataError(said, hint="data: {file: train.csv, label: species}")
    with build.line_in_errors():
        everything = load_rows(build).rows
        return table.prepare_of(build.model.data, everything, everything, None).training


def read_inputs(
    file: Path, label: str, training: Dataset, embedder: Embedder | None, window: Window | None, path: str | None = None
) -> Dataset:
    """Reads labelled rows in addition to the training data: a table of numbers or of raw input paths, or a recording.

    Args:
        file: the table or recording.
        label: its label column.
        training: the training rows, whose columns and dtype the result has.
        embedder: runs the model's stages; None: it has none.
        window: how windows are cut from a recording; None: `file` is a table.
        path: the column with the paths of raw inputs; None: the column called path.

    Raises:
        DataError: the table or a file cannot be read.
        BuildError: an input does not fit the stages.
    """
    raw = training if embedder is None else training.raw
    if embedder is not None and raw is None:
        return embedder.apply_to_files(raw_files.list_files([file], label, path or "path", None))[0]
    assert raw is not None
    found = read_more(file, (label,), raw, None) if window is None else _read_windows(file, label, raw, window)
    return found if embedder is None else embedder.apply(found)[0]


def _load_windows(build: Build, window: Window) -> recordings.Cut:
    data = build.model.data
    assert isinstance(data, FileData)
    cut = recordings.load(data.sources, window, Labels(data.label_column, data.labels), build.model.beside)
    assert cut.windows.beside is not None
    if isinstance(build.model.measured_on, float) and build.model.measured_on and len(set(cut.windows.beside)) < 2:
        said = f"{cut.windows.source}: all windows are of one recording, and a recording is never divided"
        hint = "more recordings, `recording:` in `window:`, test: {file: other.csv}, or test: 0"
        raise DataError(said, hint=hint, key="test")
    return cut


def _read_windows(file: Path, label: str, training: Dataset, window: Window) -> Dataset:
    """Returns the windows of the recordings in a file, in the dtype of `training`; `label` is its label column."""
    found = recordings.load([file], window, Labels(label)).windows
    return replace(found, rows=found.rows.astype(training.rows.dtype if len(training.rows) else np.float32))


def _load(build: Build) -> Dataset:
    data = build.model.data
    if isinstance(data, FileData):
        return table.load_rows(data, build.model.beside)
    assert isinstance(data, SklearnData)
    return dataset.load_sklearn(data.sklearn)


def divide_rows(build: Build, found: Rows) -> Divided:
    """Returns training and held-out rows. Held out are the rows of the test file; without one, a part of `found`.

    Raises:
        DataError: a column or cell of the test file is missing or cannot be read, or too few rows are left.
    """
    test, split, everything, embedder = build.model.measured_on, build.model.split, found.rows, found.embedder
    if isinstance(test, TestFile):
        if embedder is None and found.window is None:
            held_out = _read_test(build, test, everything)
        else:
            path = build.model.data.path if isinstance(build.model.data, FileData) else None
            held_out = read_inputs(test.file, answers_of(build)[0], everything, embedder, found.window, path)
        return Divided(everything, held_out, "file")
    how = "group" if isinstance(split, GroupSplit) else "time" if isinstance(split, TimeSplit) else split
    if found.window is not None:
        how = "group"
    assert not isinstance(how, TestFile)
    field = _from_field(build, everything)
    if not len(field):
        try:
            return divide(everything, test, build.model.seed, how)
        except DataError as error:
            if found.window is not None:  # `split` cannot divide recordings
                error.hint = "more recordings (or groups) of each label, test: {file: other.csv}, or test: 0"
            raise
    rest = np.setdiff1d(np.arange(len(everything.rows)), field)
    divided = divide(replace(everything, places=None).take(rest), test, build.model.seed, how)
    kept, left = (None if part is None else part.places for part in (divided.training, divided.held_out))
    assert kept is not None
    training = everything.take(np.concatenate([kept, field]))
    return replace(divided, training=training, held_out=None if left is None else everything.take(left))


def _read_test(build: Build, test: TestFile, everything: Dataset) -> Dataset:
    """Reads the held-out rows from the file of `test`; `everything` has all rows of the training data."""
    try:
        found = read_test(test.file, answers_of(build), build.model.data, everything)
    except DataError as error:
        if error.reason not in (columns.NO_ANSWER, columns.NO_FEATURE):
            raise
        hint = f"the test file needs every feature of {everything.source}, by the same name: correct its header"
        if error.reason == columns.NO_ANSWER:
            kind = "target" if getattr(build.model.data, "target", None) else "label"
            hint = f"{kind}: COLUMN beside `file` of `test` names one of them"
        raise DataError(str(error), hint=hint, reason=error.reason, key="test") from None
    known = set(map(str, everything.labels.tolist()))
    strange = [label for label in map(str, found.labels.tolist()) if label not in known]
    if strange and found.targets is None:
        count = f"{len(strange):,} of {len(found.rows):,} rows"
        said = f"{test.file}: {count} have a label that no training row has, such as {strange[0]!r}"
        hint = f"correct the labels, leave these rows out, or add rows of that label to {everything.source}"
        raise DataError(f"{said}; the training rows have {listed(sorted(known))}", hint=hint)
    return found


def _from_field(build: Build, everything: Dataset) -> NDArray[np.int64]:
    """Returns the (m,) indices of the rows in `everything` that came from the file that `knnkit promote` writes."""
    data = build.model.data
    if not isinstance(data, FileData) or everything.files is None:
        return np.array([], np.int64)
    ours = [path.parts[-2:] == (FIELD, f"{build.model.name}.csv") for path in patterns.expand(data.sources)]
    return np.flatnonzero(np.array(ours)[everything.files])


def answers_of(build: Build) -> tuple[str, ...]:
    """Returns the label columns or targets of the test file; if `test` names none, those of the training data.

    Raises:
        DataError: `test` names labels and the model answers targets, or the reverse.
    """
    data, test = build.model.data, build.model.measured_on
    usual = (data.target or data.label) if isinstance(data, FileData) else ("label",)
    if not isinstance(test, TestFile):
        return usual
    if not isinstance(data, SkopsData):
        kind, other = ("target", "label") if usual is getattr(data, "target", None) else ("label", "target")
        if getattr(test, other):
            said = f"{test.file}: the model answers the {kind} of `data`, and `test` names a {other}"
            raise DataError(said, hint=f"{kind}: COLUMN in place of {other}: of `test`", key="test")
    return test.target or test.label or usual

"""Loads the rows of deploy.yaml, and holds some out.

Rows of raw inputs go through their stages here. Knows nothing of models.
"""

from __future__ import annotations

from dataclasses import dataclass

from device_agent.shared.protocol.model_info import Window
from knnkit.config.parse import Build, FileData, GroupSplit, SklearnData, TestFile, TimeSplit
from knnkit.data import dataset
from knnkit.data.dataset import Dataset
from knnkit.evaluation.splits import Divided, divide
from knnkit.training import table, windows
from knnkit.training.inputs import Embedder, embedder_of
from knnkit.training.table import read_test


@dataclass(frozen=True)
class Rows:
    """All rows of the training data, what made them of raw inputs, and messages about what was left out."""

    rows: Dataset
    window: Window | None
    embedder: Embedder | None
    warnings: tuple[str, ...] = ()


def load_rows(build: Build) -> Rows:
    """Returns all rows of the training data, made by the stages if the model has any.

    Raises:
        DataError: a file, column or cell is invalid.
        BuildError: a stage cannot be run.
    """
    embedder, window = embedder_of(build.model.input), windows.window_of(build)
    rows, warnings = (_load(build), ()) if window is None else windows.load(build, window)
    if embedder is None:
        return Rows(rows, window, None, warnings)
    rows, embedder = embedder.apply(rows)
    return Rows(rows, window, embedder, warnings)


def _load(build: Build) -> Dataset:
    data, split = build.model.data, build.model.split
    if isinstance(data, FileData):
        beside = split.group if isinstance(split, GroupSplit) else split.time if isinstance(split, TimeSplit) else None
        return table.load_rows(data, beside)
    assert isinstance(data, SklearnData)
    return dataset.load_sklearn(data.sklearn)


def divide_rows(build: Build, found: Rows) -> Divided:
    """Returns the training rows and the held-out rows.

    Raises:
        DataError: a test file is invalid, or too few rows are left.
    """
    test, split, everything, embedder = build.model.measured_on, build.model.split, found.rows, found.embedder
    if isinstance(test, TestFile):
        raw = everything if embedder is None else everything.raw or everything
        if found.window is not None:
            held_out = windows.read_more(test.file, label_of(build), raw, found.window)
        else:
            held_out = read_test(test.file, label_of(build), build.model.data, raw)
        return Divided(everything, held_out if embedder is None else embedder.apply(held_out)[0], "file")
    how = "group" if isinstance(split, GroupSplit) else "time" if isinstance(split, TimeSplit) else split
    if found.window is not None:
        how = "group"
    assert not isinstance(how, TestFile)
    return divide(everything, test, build.model.seed, how)


def label_of(build: Build) -> str:
    """Returns the name of the label column: of the test file if it has one, else of the training data."""
    data, test = build.model.data, build.model.measured_on
    if isinstance(test, TestFile) and test.label is not None:
        return test.label
    return data.label if isinstance(data, FileData) else "label"

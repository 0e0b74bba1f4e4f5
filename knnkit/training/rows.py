"""Loads the rows of deploy.yaml, and holds some out.

Rows of raw inputs go through their stages here. Knows nothing of models.
"""

from __future__ import annotations

from pathlib import Path

from knnkit.config.parse import Build, FileData, GroupSplit, SklearnData, TestFile, TimeSplit
from knnkit.data import dataset, raw_files
from knnkit.data.dataset import Dataset
from knnkit.evaluation.splits import Divided, divide
from knnkit.training import table
from knnkit.training.inputs import Embedder, embedder_of
from knnkit.training.table import read_more, read_test


def load_rows(build: Build) -> tuple[Dataset, Embedder | None]:
    """Returns all rows of the training data, made by the stages if the model has any; and these.

    Raises:
        DataError: a file, column or cell is invalid.
        BuildError: a stage cannot be run.
    """
    embedder, data = embedder_of(build.model.input), build.model.data
    if embedder is None:
        return _load(build), None
    if isinstance(data, FileData) and raw_files.are_raw(data.sources, data.path):
        return embedder.apply_to_files(raw_files.list_files(data.sources, data.label, data.path, _beside(build)))
    return embedder.apply(_load(build))


def read_inputs(embedder: Embedder, file: Path, label: str, training: Dataset, path: str | None = None) -> Dataset:
    """Returns further labelled inputs, as rows: those of a table of numbers, or of a table of paths.

    Raises:
        DataError: the table or a file cannot be read.
        BuildError: an input does not fit the stages.
    """
    if training.raw is not None:
        return embedder.apply(read_more(file, label, training.raw, None))[0]
    return embedder.apply_to_files(raw_files.list_files([file], label, path or "path", None))[0]


def _load(build: Build) -> Dataset:
    data = build.model.data
    if isinstance(data, FileData):
        return table.load_rows(data, _beside(build))
    assert isinstance(data, SklearnData)
    return dataset.load_sklearn(data.sklearn)


def _beside(build: Build) -> str | None:
    split = build.model.split
    return split.group if isinstance(split, GroupSplit) else split.time if isinstance(split, TimeSplit) else None


def divide_rows(build: Build, everything: Dataset, embedder: Embedder | None) -> Divided:
    """Returns the training rows and the held-out rows.

    Raises:
        DataError: a test file is invalid, or too few rows are left.
    """
    test, split = build.model.measured_on, build.model.split
    if isinstance(test, TestFile):
        if embedder is None:
            held_out = read_test(test.file, label_of(build), build.model.data, everything)
        else:
            path = build.model.data.path if isinstance(build.model.data, FileData) else None
            held_out = read_inputs(embedder, test.file, label_of(build), everything, path)
        return Divided(everything, held_out, "file")
    how = "group" if isinstance(split, GroupSplit) else "time" if isinstance(split, TimeSplit) else split
    assert not isinstance(how, TestFile)
    return divide(everything, test, build.model.seed, how)


def label_of(build: Build) -> str:
    """Returns the name of the label column: of the test file if it has one, else of the training data."""
    data, test = build.model.data, build.model.measured_on
    if isinstance(test, TestFile) and test.label is not None:
        return test.label
    return data.label if isinstance(data, FileData) else "label"

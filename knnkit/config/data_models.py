"""Pydantic models of `data`, `test` and `split` in deploy.yaml.

The rows come from files, from a data set of scikit-learn, or from the file of a fitted estimator.
The docstring below a key is its description in the JSON Schema. No I/O.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from knnkit.config.field_types import ONE_OR_MORE, Example, FilePath, Section, Words, each_once, no_sense

RecordingLabels = Annotated[
    Annotated[Literal["folder"], pydantic.Tag("<folder>")] | Annotated[FilePath, pydantic.Tag("<file>")],
    pydantic.Discriminator(lambda value: "<folder>" if value == "folder" else "<file>"),
]
Targets = Annotated[
    tuple[str, ...], ONE_OR_MORE, Words("a column, or a list of columns"), Example("[longitude, latitude]")
]
Label = Annotated[
    tuple[str, ...],
    ONE_OR_MORE,
    pydantic.PlainSerializer(lambda value: value if value is None or len(value) > 1 else value[0], return_type=Any),
    Words("a column, or a list of columns"),
    Example("species"),
    Field(min_length=1),
]


class FileData(Section):
    """Labelled rows in a file."""

    file: Annotated[FilePath | None, Example("train.csv")] = None
    """A CSV file (with a header), Parquet or NPZ file; its suffix says which."""
    files: Annotated[
        tuple[FilePath, ...],
        ONE_OR_MORE,
        Words("a file, a pattern (data/*.csv) or a list of them"),
        Example("data/*.csv"),
    ] = ()
    """Instead of `file`: several files with the columns of the first, by name or pattern (`data/*.csv`)."""
    label: Label = ("label",)
    """The column (or NPZ array) that holds the labels. With a list of columns (`[species, health]`), the neighbours
    vote on each column separately."""
    target: Targets = ()
    """Instead of `label`: the column of numbers to predict, or a list of them. The model is then a regression:
    it answers the mean of the neighbours' targets."""
    features: Annotated[tuple[str, ...] | None, Example("[width, height]")] = None
    """The columns to use, in this order, by name or pattern (`acc_*`); default: all but the label."""
    id: Annotated[str | None, Example("sample")] = None
    """The column that identifies a row (a number, a file name), shown with each neighbour in answers. It is not a
    feature, unless `features` names it."""
    path: Annotated[str | None, Example("file")] = None
    """The column of a CSV file with the path of each row's sound, picture or array, relative to that file's folder.
    Without `path`, the label of a file is its folder (`files: 'sounds/*/*.wav'`) or a part of its path (`files:
    'sounds/{word}/{voice}-*.wav'` with `label: word`); `split: {group: voice}` then works, too."""
    drop: Annotated[tuple[str, ...], Example("[timestamp, device_id]")] = ()
    """Columns to leave out, by name or pattern (`gyro_*`)."""
    missing: Annotated[
        Literal["refuse", "drop", "median", "constant"] | dict[str, float | str],
        Words("refuse, drop, median, constant, or a column and one of them or a value ({temp: median, wind: 0.0})"),
        Example("median"),
    ] = "refuse"
    """What to do with an empty cell, NaN, null or a missing key: refuse; drop (the row is left out of training, and
    refused by a device); median (of the training rows; for text, the most frequent category); constant (0; for text,
    the category "missing"); or {column: one of these words, or the value}, which refuses in all other columns."""
    categories: Annotated[
        Literal["one-hot", "ordinal"] | dict[str, Literal["one-hot", "ordinal"] | tuple[str, ...]],
        Words("one-hot, ordinal, or a column and one of them or its list ({sex: one-hot, size: [small, large]})"),
        Example("{sex: one-hot}"),
    ] = Field(default={})
    """How text becomes numbers: one-hot (a feature for each category) or ordinal (the category's number), for all text
    columns, or {column: one of these words, or the ordered list of its categories}."""
    unknown_category: Literal["refuse", "ignore"] = "refuse"
    """What a device does with a category that the model does not have: refuse the row, or ignore the cell."""
    labels: Annotated[RecordingLabels | None, Example("folder")] = None
    """With `input`: where the label of a whole recording is, if the recording has no label column: folder (the name of
    the file's folder), or a CSV file with the columns `file` and `label`."""
    thousands: Annotated[Literal["", ",", ".", "'", " "], Example("','")] = ""
    """The separator of thousands in CSV (`1,234.5` with ","), in training and on a device; default: none."""

    @pydantic.model_validator(mode="after")
    def _one_source(self) -> FileData:
        if bool(self.file) == bool(self.files):
            problem = "give either `file` or `files`" if self.file else "the key 'file' is missing"
            raise no_sense(problem, "data: {file: train.csv, label: species}")
        if self.target and "label" in self.model_fields_set:
            problem = "give either `label` (classes) or `target` (numbers)"
            raise no_sense(problem, f"data: {{file: train.csv, target: [{', '.join(self.target)}]}}", "label")
        return self

    @property
    def sources(self) -> tuple[Path, ...]:
        """(`file`,) or `files`: paths, and patterns such as `field/*.csv`, which are not expanded here."""
        return self.files if self.file is None else (self.file,)

    @property
    def label_column(self) -> str:
        """The name of the label column; the first of several."""
        return self.label[0]

    _once = pydantic.field_validator("features", "drop", "target", "label")(each_once)

    @pydantic.field_validator("categories")
    @classmethod
    def _each_category_once(cls, value: Any) -> Any:
        for words in value.values() if isinstance(value, dict) else ():
            each_once(words if isinstance(words, tuple) else None)
        return value


class SklearnData(Section):
    """A data set that comes with scikit-learn; `blobs` has 1,000 rows, 2 features and 5 centres."""

    sklearn: Annotated[Literal["blobs", "breast_cancer", "digits", "iris", "moons", "wine"], Example("iris")]
    """Name of a data set of scikit-learn."""


class SkopsData(Section):
    """A fitted scikit-learn estimator, which brings its rows, k, metric, weights and scale."""

    skops: Annotated[FilePath, Example("model.skops")]
    """A file written by `skops.io.dump`, with a fitted nearest-neighbour estimator (docs/scikit-learn.md lists them) or
    a Pipeline that ends in one."""


class TestFile(Section):
    """Holds out the rows of a separate file."""

    __test__ = False  # pytest must not collect it
    file: Annotated[FilePath, Example("test.csv")]
    """CSV, Parquet or NPZ with the same columns as the training data."""
    label: Label | None = None
    """The label column; default: the same as in the training data."""
    target: Targets = ()
    """The columns of numbers to predict; default: the same as in the training data."""


class GroupSplit(Section):
    """Holds out whole groups of rows: a group is never divided."""

    group: Annotated[str, Example("device_id")]
    """The column of `data` that names the group of a row; not a feature, unless `features` names it."""


class TimeSplit(Section):
    """Holds out the latest rows."""

    time: Annotated[str, Example("timestamp")]
    """The column of `data` with the time of a row: ISO 8601 or a number; not a feature, unless `features` names it."""


# Tags become part of an error's location; angle brackets distinguish them from keys of the file.
def _data_kind(value: Any) -> str:
    if isinstance(value, dict):
        return next((f"<{key}>" for key in ("skops", "sklearn") if key in value), "<file>")
    return "<skops>" if isinstance(value, SkopsData) else "<sklearn>" if isinstance(value, SklearnData) else "<file>"


def _split_kind(value: Any) -> str:
    if isinstance(value, dict):
        return next((f"<{key}>" for key in ("time", "file") if key in value), "<group>")
    kinds = ((GroupSplit, "<group>"), (TimeSplit, "<time>"), (TestFile, "<file>"))
    return next((tag for kind, tag in kinds if isinstance(value, kind)), "<word>")


Data = Annotated[
    Annotated[FileData, pydantic.Tag("<file>")]
    | Annotated[SklearnData, pydantic.Tag("<sklearn>")]
    | Annotated[SkopsData, pydantic.Tag("<skops>")],
    pydantic.Discriminator(_data_kind),
]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Test = Annotated[
    Annotated[TestFile, pydantic.Tag("<file>")] | Annotated[Share, pydantic.Tag("<share>")],
    pydantic.Discriminator(lambda value: "<file>" if isinstance(value, dict | TestFile) else "<share>"),
]
Split = Annotated[
    Annotated[Literal["random", "stratified"], pydantic.Tag("<word>")]
    | Annotated[GroupSplit, pydantic.Tag("<group>")]
    | Annotated[TimeSplit, pydantic.Tag("<time>")]
    | Annotated[TestFile, pydantic.Tag("<file>")],
    pydantic.Discriminator(_split_kind),
]

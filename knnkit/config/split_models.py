"""Configuration of data, test and split.

The docstring below a key is its description in the JSON Schema. No I/O.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from knnkit.config.data_models import FileData, Label, SklearnData, SkopsData, Targets
from knnkit.config.field_types import Example, FilePath, Section


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

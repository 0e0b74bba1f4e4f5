"""A category is the same one however programs write it, on host and device, in one file and in several."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow
import pytest

import knnkit
from device_agent.shared.features.frames import encoded
from device_agent.shared.features.parsers import TableCsvParser, TableJsonParser
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.queries import check_rows
from knnkit.config import parse
from knnkit.errors import ConfigError, DataError
from knnkit.training import source
from knnkit.training.raw_cells import features_of
from knnkit.training.source import Material

#: What one program writes, what another writes, and a third category.
SPELT = [("1.0", "1", "2.0"), ("1", "1.0", "2"), ("True", "TRUE", "False"), ("\u00e9", "e\u0301", "a")]


def load(folder: Path, files: dict[str, list[str]], categories: str, more: str = "") -> Material:
    for name, cells in files.items():
        lines = [f"{at},{cell},{'ab'[at % 2]}" for at, cell in enumerate(cells)]
        (folder / name).write_text("\n".join(["n,zone,kind", *lines]) + "\n", encoding="utf-8")
    data = f"files: [{', '.join(name for name in files if name != 'test.csv')}], label: kind"
    text = f"model: {{name: m, k: 1, data: {{{data}, categories: {{zone: {categories}}}{more}}}, "
    text += f"test: {'{file: test.csv}' if 'test.csv' in files else 0}}}"
    return source.load(parse.parse(text, base=folder).builds()[0])


@pytest.mark.parametrize(("known", "other", "second"), SPELT)
@pytest.mark.parametrize("encoding", ["one-hot", "ordinal", "listed"])
def test_another_spelling_is_the_category_of_training(
    known: str, other: str, second: str, encoding: str, tmp_path: Path
) -> None:
    listed = json.dumps([known, second], ensure_ascii=False) if encoding == "listed" else encoding
    files = {"train.csv": [known, second, known], "test.csv": [other, second]}
    found = load(tmp_path, files, listed)
    assert found.table is not None
    assert found.held_out is not None
    wanted = found.held_out.rows[:1].tolist()
    assert wanted[0][1:] == found.training.rows[0, 1:].tolist()
    csv, lines = TableCsvParser(found.table), TableJsonParser(found.table)
    assert csv.parse(f"n,zone\n0,{other}\n".encode()).rows.tolist() == wanted
    assert lines.parse(json.dumps([0, other]).encode() + b"\n").rows.tolist() == wanted


@pytest.mark.parametrize(("known", "other", "second"), SPELT)
def test_files_of_two_programs_have_one_category(known: str, other: str, second: str, tmp_path: Path) -> None:
    """Such as a field file, whose rows a device was taught; the usual spelling stays."""
    parts = {"train.csv": [known, second, known], "field.csv": [other, second]}
    together = {"train.csv": [*parts["train.csv"], *parts["field.csv"]]}
    for files in parts, together:
        found = load(tmp_path, files, "one-hot")
        assert found.table is not None
        assert found.table.columns[1].categories == tuple(sorted([known, second]))
        assert (found.training.rows[0, 1:] == found.training.rows[3, 1:]).all()


def test_two_spellings_that_are_both_listed_stay_two_categories(tmp_path: Path) -> None:
    found = load(tmp_path, {"train.csv": ["1", "1.0", "1.00"]}, '["1", "1.0", "1.00"]')
    assert found.training.rows[:, 1].tolist() == [0.0, 1.0, 2.0]
    assert found.table is not None
    assert TableCsvParser(found.table).parse(b"n,zone\n0,1.000\n").errors


def test_the_value_for_a_missing_cell_may_be_spelt_otherwise(tmp_path: Path) -> None:
    found = load(tmp_path, {"train.csv": ["True", "False", ""]}, "one-hot", ", missing: {zone: TRUE}")
    assert found.table is not None
    assert found.table.columns[1].categories == ("False", "True")


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame, pyarrow.table])
def test_truth_values_beside_numbers_are_categories_in_each_frame(kind: Any) -> None:
    frame = kind({"x": [0.5, 1.5, 2.5, 3.5], "wet": [True, False, True, True]})
    model = knnkit.TfKNN(frame, 1, labels=["a", "b", "a", "b"], data={"categories": {"wet": "one-hot"}}).fitted
    info: Any = SimpleNamespace(table=model.table, origin=None, feature_names=model.enrolment.feature_names)
    expected = [[0.5, 0.0, 1.0], [1.5, 1.0, 0.0], [2.5, 0.0, 1.0], [3.5, 0.0, 1.0]]
    assert encoded(info, frame).tolist() == features_of(model, frame).rows.tolist() == expected


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame, pyarrow.table])
def test_a_missing_or_narrow_cell_of_a_frame_is_that_of_training(kind: Any) -> None:
    soil = pl.Series(["sand", "clay", None, "clay"]).cast(pl.Categorical)
    frame = pl.DataFrame({"x": [0.5, 1.5, 2.5, 3.5], "soil": soil, "n": pl.Series([0.1, 0.2] * 2, dtype=pl.Float32)})
    frame = frame if kind is pl.DataFrame else frame.to_pandas() if kind is pd.DataFrame else frame.to_arrow()
    data = {"missing": "constant", "categories": {"soil": "one-hot", "n": "one-hot"}}
    model = knnkit.TfKNN(frame, 1, labels=["a", "b", "a", "b"], data=data).fitted
    info: Any = SimpleNamespace(table=model.table, origin=None, feature_names=model.enrolment.feature_names)
    expected = [[0.5, 0, 1, 0, 1, 0, 0], [1.5, 1, 0, 0, 0, 1, 0], [2.5, 0, 0, 1, 1, 0, 0], [3.5, 1, 0, 0, 0, 1, 0]]
    assert encoded(info, frame).tolist() == features_of(model, frame).rows.tolist() == expected


def test_a_missing_number_of_a_dictionary_is_missing() -> None:
    table = pyarrow.table({"x": pyarrow.array([1.0, 2.0, None]).dictionary_encode(), "y": [1.0, 2.0, 3.0]})
    with pytest.raises(BadInput, match="row 2, column 0: nan is not a finite"):
        check_rows(table, ("x", "y"), None)
    assert check_rows(table[:2], ("x", "y"), None).tolist() == [[1.0, 1.0], [2.0, 2.0]]


@pytest.mark.parametrize("labels", [["a", "b", None], [1, 2, None]])
def test_a_missing_label_of_a_dictionary_is_missing(labels: list[Any]) -> None:
    column = pyarrow.chunked_array([pyarrow.array(labels).dictionary_encode()])
    rows = np.arange(6.0).reshape(3, 2)
    with pytest.raises(DataError, match="row 2: the label is missing"):
        knnkit.TfKNN(rows, 1, labels=column)
    assert knnkit.TfKNN(rows[:2], 1, labels=column[:2]).predict(rows[:2]).tolist() == labels[:2]


def test_a_category_is_listed_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="categories: 'small' is listed twice"):
        load(tmp_path, {"train.csv": ["small", "large"]}, "[small, small, large]")

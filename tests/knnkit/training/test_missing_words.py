"""What stands for a missing cell is one on the host and on a device alike, wherever the word was met first."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest

import knnkit
from device_agent.shared.features.coder import MISSING
from device_agent.shared.features.parsers import TableCsvParser, TableJsonParser
from knnkit.config import parse
from knnkit.data.policy import MISSING_WORDS
from knnkit.errors import DataError
from knnkit.training import source

HEADER = "size,soil,kind"
PLAIN = [f"{n / 2},{('sand', 'clay')[n % 2]},{'ab'[n % 2]}" for n in range(8)]
WORDS = sorted({*MISSING, *MISSING_WORDS, "N.A.", " ? ", "NaN", "\u2014", "unknown", "."})


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    if path.suffix == ".parquet":
        text = {"column_types": {"size": pyarrow.string()}} if any("x" in line for line in lines) else {}
        table = pyarrow.csv.read_csv(
            path, convert_options=pyarrow.csv.ConvertOptions(strings_can_be_null=False, **text)
        )
        pyarrow.parquet.write_table(table, path)
    return path


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("column", [0, 1])
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("more", ["missing: median", "missing: constant, unknown_category: ignore"])
def test_a_device_reads_the_rows_that_the_host_measures(
    word: str, column: int, known: bool, more: str, tmp_path: Path
) -> None:
    """Both give the same numbers, or both refuse the row."""
    cells = PLAIN[3].split(",")
    cells[column] = word
    odd = ",".join(cells)
    write(tmp_path / "train.csv", [*PLAIN, *([odd] if known else [])])
    test = write(tmp_path / "test.csv", [*PLAIN[:2], odd, *PLAIN[4:]])
    text = f"model: {{name: m, data: {{file: train.csv, label: kind, categories: {{soil: one-hot}}, {more}}}"
    text += ", test: {file: test.csv}}"
    try:
        found = source.load(parse.parse(text, base=tmp_path).builds()[0])
    except DataError:
        found = (
            source.load(parse.parse(text.replace("test.csv", "train.csv"), base=tmp_path).builds()[0])
            if not known
            else None
        )
        if found is None:
            return  # the word is refused in training
        parsed = TableCsvParser(found.table, ignore_extra=True).parse(test.read_bytes())
        assert list(parsed.errors) == [2], "the host refuses the file for this row"
        return
    assert found.held_out is not None
    parsed = TableCsvParser(found.table, ignore_extra=True).parse(test.read_bytes())
    assert parsed.errors == {}
    assert parsed.rows.tobytes() == found.held_out.rows.tobytes()


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("column", ["size", "soil"])
def test_a_frame_is_read_as_a_device_reads_its_cells(known: bool, column: str) -> None:
    frame = pd.DataFrame({"size": [0.5, None, 2.5, 4.0], "soil": ["sand", None, "clay", "clay"]}, dtype=object)
    kinds, odd = ["a", "b", "a", "b"], [*WORDS, None, np.nan, pd.NA, True, 3.0, 3, "3", "1.5", "sand "]
    given = frame.copy()
    if known and column == "soil":
        given.loc[1, "soil"] = "?"
    policy = {"missing": "median", "categories": {"soil": "one-hot"}, "unknown_category": "ignore"}
    model = knnkit.TfKNN(given.assign(size=given["size"].astype(float)), 1, labels=kinds, data=policy)
    reader = TableJsonParser(model.fitted.table)
    for cell in odd:
        row: dict[str, Any] = {"size": 2.5, "soil": "clay"} | {column: cell}
        line = {name: None if not isinstance(value, str) and pd.isna(value) else value for name, value in row.items()}
        parsed = reader.parse(json.dumps(line).encode() + b"\n")
        try:
            own = (
                model.fitted
                and knnkit.training.raw_cells.features_of(model.fitted, pd.DataFrame([row], dtype=object)).rows
            )
        except DataError:
            own = np.empty((0, 3))
        if isinstance(cell, str) and column == "size" and len(own) and not len(parsed.rows):
            continue  # a number in quotes is one in a frame and in CSV, and not in JSON
        assert own.tolist() == parsed.rows.tolist(), repr(cell)


@pytest.mark.parametrize("value", ["1.0e39", "-1.0e39", "3.5e38", "none"])
def test_a_value_that_no_cell_can_hold_fills_none(value: str, tmp_path: Path) -> None:
    """float32 has no 1e39: the rows became infinite."""
    write(tmp_path / "train.csv", [*PLAIN, ",sand,a"])
    text = (
        f"model: {{name: m, data: {{file: train.csv, label: kind, drop: [soil], missing: {{size: {value}}}}}, test: 0}}"
    )
    with pytest.raises(DataError, match="missing cells of 'size' cannot become") as caught:
        source.load(parse.parse(text, base=tmp_path).builds()[0])
    assert caught.value.hint.startswith("missing: {size: 0.0}")


@pytest.mark.parametrize("missing", ["median", "constant", "{size: median, soil: constant}"])
def test_a_text_column_of_mostly_missing_cells_is_text(missing: str, tmp_path: Path) -> None:
    write(tmp_path / "train.csv", [f"{n},{'sand' if n % 4 == 0 else ''},{'ab'[n % 2]}" for n in range(12)])
    data = f"{{file: train.csv, label: kind, missing: {missing}, categories: one-hot}}"
    found = source.load(parse.parse(f"model: {{name: m, data: {data}, test: 0}}", base=tmp_path).builds()[0])
    assert found.table is not None
    assert "sand" in found.table.columns[1].categories
    with pytest.raises(DataError) as caught:
        source.load(
            parse.parse(f"model: {{name: m, data: {data.replace('categories: one-hot', '')}}}", base=tmp_path).builds()[
                0
            ]
        )
    assert "categories: {soil: one-hot}" in caught.value.hint


def test_a_listed_category_is_a_value_in_further_rows_too(tmp_path: Path) -> None:
    """NA may be North America."""
    file = write(tmp_path / "train.csv", [f"{n},{('NA', 'EU')[n % 2]},{'ab'[n % 2]}" for n in range(8)])
    data = "{file: train.csv, label: kind, categories: {soil: [NA, EU]}}"
    found = source.load(parse.parse(f"model: {{name: m, data: {data}, test: 0}}", base=tmp_path).builds()[0])
    assert found.read(file, ["kind"]).rows.tolist() == found.training.rows.tolist()


def test_a_missing_cell_that_the_model_refuses_leads_to_rows_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hint gave keys made from the model, which would have changed those of deploy.yaml."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "train.csv", PLAIN)
    write(tmp_path / "more.csv", [*PLAIN[:3], ",sand,a", *PLAIN[3:]])
    data = "{file: train.csv, label: kind, missing: {size: drop, soil: median}, categories: one-hot}"
    found = source.load(parse.parse(f"model: {{name: m, data: {data}, test: 0}}", base=tmp_path).builds()[0])
    with pytest.raises(DataError, match="line 5, column 'size': the cell is empty") as caught:
        found.read(Path("more.csv"), ["kind"])
    said, _, command = caught.value.hint.partition(": ")
    assert said == "correct the cells of 'size', or leave out their lines"
    subprocess.run(command, shell=True, check=True)
    assert found.read(Path("more-clean.csv"), ["kind"]).rows.tolist() == found.training.rows.tolist()


@pytest.mark.parametrize("label", ["kind", "[kind, soil]"])
def test_labels_of_another_file_are_those_of_training(label: str, tmp_path: Path) -> None:
    """Without 1.5 among its labels, a file of `2.0` and `3.0` holds the whole numbers 2 and 3."""
    write(tmp_path / "train.csv", [f"{n},sand,{(1.5, 2.0, 3.0)[n % 3]}" for n in range(9)])
    write(tmp_path / "test.csv", ["0,sand,2.0", "1,sand,3.0"])
    data = f"{{file: train.csv, label: {label}, features: [size]}}"
    text = f"model: {{name: m, data: {data}, test: {{file: test.csv}}}}"
    found = source.load(parse.parse(text, base=tmp_path).builds()[0])
    more = found.read(tmp_path / "test.csv", ["kind", "soil"][: 1 + (label != "kind")])
    for rows in (found.held_out, more):
        assert rows is not None
        if rows.targets is None:
            assert rows.labels.tolist() == ["2.0", "3.0"]
        else:
            assert rows.targets[:, 0].tolist() == [1.0, 2.0]

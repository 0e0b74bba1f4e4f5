"""True and false are 1 and 0, on the host and on a device, in every format and in a block of any length."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.tabular.csv_reader import CsvParser
from device_agent.shared.tabular.json_reader import JsonParser
from knnkit.data.files import load

INFO = KnnInfo(
    name="n", k=1, n_features=3, feature_names=("on", "x", "off"), classes=(0, 1), metric="euclidean",
    weights="uniform", scale="none", n_train=2, batch=8, fingerprint="", minimum_runtime="1", versions={},
)  # fmt: skip
WORDS = [("True", "False"), ("true", "FALSE"), ("TRUE", "false"), ("1", "0"), ("1.0", " false")]


def rows_of(count: int) -> tuple[list[tuple[str, str, str]], list[list[float]]]:
    rng = np.random.default_rng(count)
    cells, numbers = [], []
    for row in range(count):
        one, other = rng.integers(0, 2, 2).tolist()
        words = WORDS[row % len(WORDS)]
        cells.append((words[1 - one], f"{row / 8}", words[1 - other]))
        numbers.append([float(one), row / 8, float(other)])
    return cells, numbers


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("count", [2, 900])
def test_words_of_truth_in_csv_are_one_and_zero(separator: str, count: int, tmp_path: Path) -> None:
    cells, numbers = rows_of(count)
    lines = [separator.join(INFO.feature_names), *(separator.join(row) for row in cells)]
    parsed = CsvParser(INFO.feature_names).parse(("\n".join(lines) + "\n").encode())
    assert (parsed.errors, parsed.rows.tolist()) == ({}, numbers)
    headless = CsvParser(INFO.feature_names).parse(("\n".join(lines[1:]) + "\n").encode())
    assert (headless.errors, headless.rows.tolist()) == ({}, numbers)
    (tmp_path / "t.csv").write_text(
        "\n".join(f"{line}{separator}{'y' if not at else 'a'}" for at, line in enumerate(lines))
    )
    assert load(tmp_path / "t.csv", "y").rows.tolist() == numbers


@pytest.mark.parametrize("count", [2, 900])
def test_booleans_in_json_are_one_and_zero(count: int) -> None:
    _, numbers = rows_of(count)
    lines = [json.dumps([bool(row[0]), row[1], bool(row[2])] if at % 3 else row) for at, row in enumerate(numbers)]
    lines[1] = json.dumps(dict(zip(INFO.feature_names, json.loads(lines[1]))))
    parsed = JsonParser(INFO.feature_names).parse(("\n".join(lines) + "\n").encode())
    assert (parsed.errors, parsed.rows.tolist()) == ({}, numbers)


def test_columns_of_booleans_in_parquet_and_npz_are_one_and_zero(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"on": [True, False], "y": ["a", "b"]}), tmp_path / "t.parquet")
    np.savez(tmp_path / "t.npz", rows=np.array([[True], [False]]), y=np.array(["a", "b"]))
    for name in ("t.parquet", "t.npz"):
        assert load(tmp_path / name, "y").rows.tolist() == [[1.0], [0.0]]


@pytest.mark.parametrize("word", ["yes", "T", "truee", "tru e", "True.", "1true"])
def test_other_words_are_not_numbers(word: str) -> None:
    parsed = CsvParser(INFO.feature_names).parse(f"on,x,off\n{word},1,2\n".encode())
    assert "is not a number" in str(parsed.errors)

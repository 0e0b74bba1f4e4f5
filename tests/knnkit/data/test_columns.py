"""A column that numbers the rows is told when a model is built, and no ordinary feature is taken for one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike

from knnkit.config import load
from knnkit.data.columns import doubt, numbering, warnings
from knnkit.data.dataset import SKLEARN_SETS, dataset, load_sklearn
from knnkit.data.files import load as load_file
from knnkit.errors import DataError
from knnkit.training import source

N = 60
RANDOM = np.random.default_rng(0)


def found(name: str, values: ArrayLike) -> bool:
    column = np.asarray(values, np.float64)
    rows = np.column_stack([column, RANDOM.normal(size=len(column))])
    return numbering(dataset(rows, ["a"] * len(column), [name, "width"], "rows")) == (name,)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("id", range(1, N + 1)),
        ("x", range(1, N + 1)),
        ("x", range(N)),
        ("Unnamed: 0", range(N)),
        ("x", RANDOM.permutation(N) + 1000),
        ("index", range(5)),
        ("sample_id", [3, 17, 18, 40, 99, 12]),
        ("PassengerId", [3, 17, 18, 40, 99, 12]),
        ("ID", np.arange(N) * 10),
        ("id", np.arange(N) + 20_000_000),  # float32 holds each second of them
    ],
)
def test_an_id_is_found(name: str, values: ArrayLike) -> None:
    assert found(name, values)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("age", RANDOM.integers(18, 90, N)),
        ("x", [*range(1, N), N - 1]),  # one of them twice
        ("x", [*range(1, N), N + 1]),  # a gap
        ("x", np.arange(N) + 0.5),
        ("x", np.arange(N) * 2),
        ("x", range(19)),  # few
        ("id", range(4)),  # very few
        ("index", RANDOM.normal(size=N)),
        ("row", np.arange(N) % 8),
        ("is_key", np.arange(N) % 2),
        ("grid", [3, 17, 18, 40, 99, 12]),
        ("year", np.repeat(np.arange(2000, 2000 + N // 2), 2)),
        ("constant_id", [7] * N),
        ("big_id", RANDOM.permutation(np.repeat(np.arange(N // 2) * 1e9, 2))),
    ],
)
def test_an_ordinary_feature_is_none(name: str, values: ArrayLike) -> None:
    assert not found(name, values)


@pytest.mark.parametrize("name", SKLEARN_SETS)
def test_the_data_sets_of_scikit_learn_have_none(name: str) -> None:
    assert numbering(load_sklearn(name)) == ()


def test_a_build_names_the_column_and_the_key_that_leaves_it_out(tmp_path: Path) -> None:
    lines = [f"{n},{n % 7},{n % 5},{'ab'[n % 2]}" for n in range(1, N + 1)]
    (tmp_path / "train.csv").write_text("\n".join(["id,width,height,y", *lines, ""]))
    file = tmp_path / "deploy.yaml"
    file.write_text("model: {name: a, data: {file: train.csv, label: y}}\n")
    said, *_ = source.load(load.load(file).builds()[0]).warnings
    assert said.removeprefix(str(tmp_path)) == (
        "/train.csv: the column 'id' holds 1 to 60, each once, as row numbers do, and is a feature of the model; "
        "drop: [id] beside `label` in deploy.yaml leaves it out"
    )
    for features in ("[width, height]", "[id, width]"):  # whoever names it, means it
        file.write_text(f"model: {{name: a, data: {{file: train.csv, label: y, features: {features}}}}}\n")
        assert not any("row numbers" in said for said in source.load(load.load(file).builds()[0]).warnings)


def test_an_id_is_quoted_as_yaml_and_alone_it_is_told_as_well() -> None:
    rows = np.column_stack([np.arange(N), RANDOM.normal(size=(N, 64))])
    (said,) = warnings(dataset(rows, ["a"] * N, ["id", *(f"f{i}" for i in range(64))], "rows"))
    assert "drop: [id] beside" in said
    (quoted,) = warnings(dataset(rows[:, :3], ["a"] * N, ["row, no", "air, %", "on"], "rows"))
    assert "drop: ['row, no'] beside" in quoted, "else YAML takes the comma for the end"
    (whole,) = warnings(dataset(rows[:, :2], ["a"] * N, ["id", "f"], "rows"), ["day"])
    assert "drop: [day, id] beside" in whole, "else the list would lose an entry"
    (alone,) = warnings(dataset(rows[:, :1], ["a"] * N, ["id"], "rows"))
    assert alone.endswith("it is the only feature")


def test_a_misspelt_label_leads_to_the_names_in_a_comment(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("# made in May\n#a, b,kind\n1,2,x\n3,4,y\n")
    with pytest.raises(DataError, match="no column 'kint'; there are a, b, kind") as caught:
        load_file(tmp_path / "t.csv", "kint", None)
    assert caught.value.hint == "did you mean 'kind' (label: in deploy.yaml)?"


@pytest.mark.parametrize(
    ("classes", "rows", "said"),
    [
        ([f"{each}.5" for each in range(90)], 200, "All 90 labels are numbers"),
        ([f"{each},5" for each in range(90)], 200, "All 90 labels are numbers"),
        ([*range(90)], 100, "All 90 labels are numbers"),
        ([*range(90)], 900, ""),
        ([f"2025-01-{day:02}" for day in range(1, 29)], 300, "There are 28 labels in 300 rows"),
        ([f"name {each}" for each in range(60)], 90, "There are 60 labels in 90 rows"),
        ([f"name {each}" for each in range(60)], 180, ""),
        (["0.5", "1.5"], 3, ""),
    ],
)
def test_an_odd_label_column_is_doubted(classes: list[object], rows: int, said: str) -> None:
    found = doubt(classes, rows)
    assert found.startswith(said)
    assert bool(found) == bool(said)

"""Rows are divided as deploy.yaml says; the plain split stays, and a gallery builds."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from knnkit.config import load
from knnkit.data.dataset import SKLEARN_SETS, Dataset, dataset, load_sklearn
from knnkit.errors import ConfigError, DataError
from knnkit.evaluation.splits import divide
from knnkit.training import source

RANDOM = np.random.default_rng(0)


def rows_of(labels: Any, beside: Any = None) -> Dataset:
    found = dataset(RANDOM.normal(size=(len(labels), 3)), labels, None, "rows")
    return found if beside is None else Dataset(found.rows, found.labels, found.feature_names, "rows", np.array(beside))


def gallery(people: int, photos: int) -> Dataset:
    return rows_of(np.repeat([f"p{person}" for person in range(people)], photos))


@pytest.mark.parametrize("name", SKLEARN_SETS)
@pytest.mark.parametrize("how", [None, "random"])
def test_the_plain_split_is_scikit_learns(name: str, how: str | None) -> None:
    everything = load_sklearn(name)
    found = divide(everything, 0.3, 0, how)
    rows, others, labels, truth = train_test_split(everything.rows, everything.labels, test_size=0.3, random_state=0)
    assert found.held_out is not None
    assert found.how == "random"
    assert found.warnings == ()
    for one, other in ((found.training.rows, rows), (found.held_out.rows, others)):
        assert np.array_equal(one, other)
    for mine, theirs in ((found.training.labels, labels), (found.held_out.labels, truth)):
        assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("name", SKLEARN_SETS)
def test_a_stratified_split_is_scikit_learns(name: str) -> None:
    everything = load_sklearn(name)
    found = divide(everything, 0.3, 7, "stratified")
    kept, _ = train_test_split(everything.labels, test_size=0.3, random_state=7, stratify=everything.labels)
    assert np.array_equal(found.training.labels, kept)


@pytest.mark.parametrize(("people", "photos", "seed"), [*product((2, 10, 100), (2, 3, 5), range(5))])
def test_a_gallery_is_held_out_by_class(people: int, photos: int, seed: int) -> None:
    everything = gallery(people, photos)
    for how in (None, "stratified"):
        found = divide(everything, 0.3, seed, how)
        assert set(found.training.labels.tolist()) == set(everything.labels.tolist())
        assert found.held_out is not None
        assert len(found.training.rows) + len(found.held_out.rows) == len(everything.rows)
        if found.how == "stratified":
            assert set(found.held_out.labels.tolist()) == set(everything.labels.tolist())


def test_a_gallery_of_single_photos_holds_nothing_out() -> None:
    found = divide(gallery(100, 1), 0.3, 0)
    assert found.held_out is None
    assert found.how == "leave-one-out"
    assert "nothing can be measured" in found.warnings[0]
    assert "is another column the label?" in found.warnings[0]


def test_a_lone_row_is_always_learnt() -> None:
    everything = rows_of([*"ab" * 10, "rare"])
    for seed in range(30):
        found = divide(everything, 0.3, seed)
        assert "rare" in found.training.labels.tolist()
        assert (found.how == "stratified") == bool(found.warnings)


def test_a_random_split_that_was_asked_for_is_not_replaced() -> None:
    with pytest.raises(DataError, match="held out, and of") as caught:
        divide(gallery(50, 2), 0.3, 0, "random")
    assert caught.value.hint == "split: stratified"


@pytest.mark.parametrize("seed", range(20))
def test_a_group_is_never_on_both_sides(seed: int) -> None:
    random = np.random.default_rng(seed)
    groups = random.integers(0, 12, 300).astype(str)
    everything = rows_of(random.integers(0, 3, 300), groups)
    found = divide(everything, 0.3, seed, "group")
    assert found.held_out is not None
    assert found.training.beside is not None
    assert found.held_out.beside is not None
    assert not set(found.training.beside.tolist()) & set(found.held_out.beside.tolist())
    assert len(found.training.rows) + len(found.held_out.rows) == 300


def test_a_group_that_two_programs_write_is_one_group() -> None:
    """pandas writes whole numbers as 1.0 if one cell of their column is empty."""
    groups = [str(each) for each in range(8)] + [f"{each}.0" for each in range(8)]
    for seed in range(10):
        found = divide(rows_of(["a", "b"] * 8, groups), 0.3, seed, "group")
        assert found.held_out is not None
        assert found.held_out.beside is not None
        assert found.training.beside is not None
        assert not {*map(float, found.held_out.beside)} & {*map(float, found.training.beside)}


def test_labels_of_two_groups_are_measured_and_others_reported() -> None:
    labels, groups = np.repeat(["a", "b", "c", "d"], [8, 8, 8, 2]), np.repeat([*"ABCDEFGHIJKLM"], 2)
    for seed in range(20):
        found = divide(rows_of(labels, groups), 0.3, seed, "group")
        assert found.held_out is not None
        assert set(found.held_out.labels.tolist()) == {"a", "b", "c"}
        assert found.warnings[0].endswith(
            "no row of 'd' is held out, to measure with: a label needs 2 groups or "
            "recordings; if it has them, change seed: or test:"
        )


def test_groups_are_chosen_so_that_every_class_is_learnt() -> None:
    everything = rows_of(["rare"] * 2 + ["a"] * 38, ["0"] + ["1"] + [str(n % 10) for n in range(38)])
    for seed in range(20):
        assert "rare" in divide(everything, 0.3, seed, "group").training.labels.tolist()


@pytest.mark.parametrize(
    "times",
    [
        [str(n) for n in range(40)],
        [f"2026-01-{n % 28 + 1:02}T{n % 24:02}:00:00Z" for n in range(40)],
        [f"2026-01-01 00:{n:02}:00" for n in range(40)],
        ["7"] * 10 + ["8"] * 25 + ["9"] * 5,
    ],
)
def test_the_latest_rows_are_held_out(times: list[str]) -> None:
    order = RANDOM.permutation(40)
    found = divide(rows_of(np.arange(40) % 2, np.array(times)[order]), 0.3, 0, "time")
    assert found.held_out is not None
    before, after = found.training.beside, found.held_out.beside
    assert before is not None
    assert after is not None
    key: Any = float if times[0].isdigit() else str
    assert max(map(key, before.tolist())) < min(map(key, after.tolist()))


@pytest.mark.parametrize(
    ("labels", "beside", "how", "said"),
    [
        (["a"] * 4, ["1"] * 4, "group", "all rows have one group"),
        (["a"] * 4, ["1", "2", "soon", "4"], "time", "row 2: 'soon' is not a time"),
        (["a"] * 4, ["1", "2", "nan", "4"], "time", "row 2: 'nan' is not a time"),
        (
            ["a"] * 4,
            ["2026-01-30", "20260131", "2026-02-01", "x"],
            "time",
            "row 1: '20260131' is a number, but '2026-01-30'",
        ),
        (["a"] * 4, ["1"] * 4, "time", "too few rows"),
        (["a", "a", "a", "b"], ["1", "2", "3", "4"], "time", "all rows of the label 'b' were held out"),
        (["a"], None, "random", "too few rows to hold out 0.3 of them: 1"),
        (["a"], None, None, "too few rows to hold out 0.3 of them: 1"),
    ],
)
def test_what_cannot_be_divided_is_refused(labels: list[str], beside: Any, how: str | None, said: str) -> None:
    with pytest.raises(DataError) as caught:
        divide(rows_of(labels, beside), 0.3, 0, how)
    assert said in str(caught.value)
    assert caught.value.hint


# --- deploy.yaml --------------------------------------------------------------------------------------------------
def write(folder: Path, split: str, kind: str = "csv") -> Path:
    names, count = ["device", "x", "y", "kind"], 60
    columns: list[Any] = [
        [f"board-{n % 6}" for n in range(count)],
        (np.arange(count) % 7).astype(float),
        RANDOM.normal(size=count),
        ["ab"[n % 2] for n in range(count)],
    ]
    if kind == "csv":
        lines = [",".join(names), *(",".join(map(str, row)) for row in zip(*columns)), ""]
        (folder / "train.csv").write_text("\n".join(lines))
    elif kind == "npz":
        np.savez(folder / "train.npz", **dict(zip(names, map(np.array, columns))))
    else:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.table(dict(zip(names, columns))), folder / "train.parquet")
    file = folder / "deploy.yaml"
    file.write_text(f"model: {{name: a, data: {{file: train.{kind}, label: kind}}, {split}}}\n")
    return file


@pytest.mark.parametrize("kind", ["csv", "npz", "parquet"])
def test_the_column_to_split_by_is_not_a_feature(tmp_path: Path, kind: str) -> None:
    found = source.load(load.load(write(tmp_path, "split: {group: device}", kind)).builds()[0])
    assert found.training.feature_names == ("x", "y")
    assert found.how == "group"
    assert found.held_out is not None
    assert found.training.beside is not None
    assert found.held_out.beside is not None
    sides = set(found.training.beside.tolist()), set(found.held_out.beside.tolist())
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == {f"board-{n}" for n in range(6)}


def test_a_file_of_split_is_the_test_file(tmp_path: Path) -> None:
    file = write(tmp_path, "features: [x, y], split: {file: train.csv}".replace("features: [x, y], ", ""))
    file.write_text(file.read_text().replace("label: kind", "label: kind, features: [x, y]"))
    found = source.load(load.load(file).builds()[0])
    assert found.how == "file"
    assert found.held_out is not None
    assert len(found.held_out.rows) == len(found.training.rows) == 60


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ("split: {group: board}", "no column 'board'"),
        ("split: sorted", "split"),
        ("split: {group: device, time: x}", "split"),
        ("split: stratified, test: {file: test.csv}", "leave `split` or `test` out"),
        ("split: {file: test.csv}, test: 0.2", "leave `split` or `test` out"),
    ],
)
def test_a_wrong_split_is_refused_by_name(tmp_path: Path, split: str, said: str) -> None:
    with pytest.raises((ConfigError, DataError)) as caught:
        source.load(load.load(write(tmp_path, split)).builds()[0])
    assert said in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("table", "said", "typed"),
    [
        ("y,x,kind\n1,2,a\n", "", ""),
        ("x,kind\n1,a\n", "no column 'y'", "the test file needs every feature of"),
        ("x,y,class\n1,2,a\n", "no column 'kind'", "label: COLUMN beside `file` of `test`"),
        ("x,y,kind\n1,2,a\n1,2,c\n", "1 of 2 rows have a label that no training row has, such as 'c'", "correct "),
    ],
)
def test_an_error_of_the_test_file_says_what_to_change_there(tmp_path: Path, table: str, said: str, typed: str) -> None:
    (tmp_path / "train.csv").write_text("x,y,kind\n" + "1,2,a\n2,1,b\n" * 9)
    (tmp_path / "test.csv").write_text(table)
    file = tmp_path / "deploy.yaml"
    file.write_text("model: {name: a, data: {file: train.csv, label: kind}, test: {file: test.csv}}\n")
    if not said:
        assert source.load(load.load(file).builds()[0]).held_out is not None
        return
    with pytest.raises(DataError, match=said) as found:
        source.load(load.load(file).builds()[0])
    assert "test.csv" in str(found.value)
    assert typed in found.value.hint

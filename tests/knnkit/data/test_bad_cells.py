"""Every bad cell of a file is counted in one run, in CSV and Parquet alike, and the hint leads out when it is typed."""

from __future__ import annotations

import csv
import random
import re
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from device_agent.shared.tabular.units import unit_of
from knnkit.config import parse
from knnkit.data.files import load
from knnkit.errors import DataError
from knnkit.training.table import policy_of

KINDS = {"": "empty", "NaN": "empty", "tall": "not numbers", "1e39": "not finite"}


def table(rng: random.Random, *, wrong: float) -> tuple[list[str], list[list[str]]]:
    """Columns of numbers with wrong cells, a time and a device id among them."""
    numbers = [f"axis {number}" for number in range(rng.choice([1, 3, 15]))]
    names = [*numbers, "Timestamp", "Device ID", "label"]
    rng.shuffle(names)
    rows = []
    for row in range(rng.choice([25, 400])):
        cells = {name: str(rng.choice(list(KINDS))) if rng.random() < wrong else f"{row}.5" for name in numbers}
        cells |= {"Timestamp": f"2024-01-01T00:00:{row:03d}", "Device ID": f"dev-{row % 3}", "label": "ab"[row % 2]}
        rows.append([cells[name] for name in names])
    return names, rows


def write_csv(path: Path, names: list[str], rows: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows([names, *rows])


def write_parquet(path: Path, names: list[str], rows: list[list[str]]) -> None:
    import pyarrow
    import pyarrow.parquet

    def column(name: str) -> object:
        cells = [row[names.index(name)] for row in rows]
        texts = name in ("Timestamp", "Device ID", "label")
        return cells if texts else [None if cell == "" else float(cell) for cell in cells]

    pyarrow.parquet.write_table(pyarrow.table({name: column(name) for name in names}), path)


def typed(hint: str, file: Path) -> parse.FileData:
    """deploy.yaml after the hint was written into it, word for word."""
    keys = hint.partition(" in `data:` of deploy.yaml")[0]
    text = yaml.safe_load(f"{{file: {file}, label: label, {keys}}}")
    data = parse.parse(yaml.safe_dump({"model": {"name": "a", "data": text}}), base=file.parent).builds()[0].model.data
    assert isinstance(data, parse.FileData)
    return data


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_all_bad_cells_are_counted_and_the_first_ten_are_shown(seed: int, suffix: str, tmp_path: Path) -> None:
    rng = random.Random(seed)
    names, rows = table(rng, wrong=rng.choice([0.0, 0.01, 0.2]))
    if suffix == "parquet":
        rows = [[cell.replace("tall", "1e39") for cell in row] for row in rows]
    path = tmp_path / f"rows.{suffix}"
    (write_csv if suffix == "csv" else write_parquet)(path, names, rows)
    counts: dict[str, Counter[str]] = {}
    first = []
    for number, row in enumerate(rows):
        for name, cell in zip(names, row):
            text = name in ("Timestamp", "Device ID")
            if name != "label" and (text or cell in KINDS):
                counts.setdefault(name, Counter())["not numbers" if text else KINDS[cell]] += 1
                first.append((number + 2 if suffix == "csv" else number, name))
    with pytest.raises(DataError) as caught:
        load(path, "label")
    said = str(caught.value)
    unit = "line" if suffix == "csv" else "row"
    assert said.startswith(f"{path}, {unit} {first[0][0]}, column {first[0][1]!r}: ")
    assert f"\n  {sum(sum(each.values()) for each in counts.values()):,} cells cannot be read (" in said
    shown = re.findall(rf"^    {unit} (\d+), column '(.*)': ", said, re.MULTILINE)
    assert shown == [(str(place), name) for place, name in first[:10]]
    listed = dict(re.findall(r"^    column '(.*)': (\d.*)$", said, re.MULTILINE))
    assert len(listed) == min(10, len(counts))
    for name, numbers in listed.items():
        assert sorted(numbers.split(", ")) == sorted(
            "1 not a number" if (count, kind) == (1, "not numbers") else f"{count:,} {kind}"
            for kind, count in counts[name].items()
        )


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_keys_of_the_hint_lead_out_when_they_are_typed(suffix: str, tmp_path: Path) -> None:
    names, rows = table(random.Random(3), wrong=0.0)
    rows[4][names.index("axis 0")] = ""
    rows[7][names.index("axis 0")] = "NaN" if suffix == "csv" else ""
    path = tmp_path / f"rows.{suffix}"
    (write_csv if suffix == "csv" else write_parquet)(path, names, rows)
    with pytest.raises(DataError) as caught:
        load(path, "label")
    assert "drop: [" in caught.value.hint
    assert "missing: median" in caught.value.hint
    data = typed(caught.value.hint, path)
    found = load(path, data.label_column, data.features, policy_of(data))
    assert set(found.feature_names) == {name for name in names if name.startswith("axis")}


def test_a_column_of_few_texts_is_shown_as_categories_and_an_id_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    lines = [f"{number}.5,{['f', 'm'][number % 2]},dev{number % 2},{'ab'[number % 2]}" for number in range(30)]
    path.write_text("\n".join(["x,sex,device_id,label", *lines, ""]))
    with pytest.raises(DataError) as caught:
        load(path, "label")
    data = typed(caught.value.hint, path)
    assert (data.drop, data.categories) == (("device_id",), {"sex": "one-hot"})
    assert load(path, "label", None, policy_of(data)).levels == {1: ("f", "m")}


@pytest.mark.parametrize(
    ("features", "drop", "left"),
    [
        (None, ("acc_*",), ["gyro_x", "t"]),
        (("acc_*",), (), ["acc_x", "acc_y"]),
        (("gyro_x", "acc_?"), ("acc_y",), ["gyro_x", "acc_x"]),
        (("*",), ("t", "gyro_*"), ["acc_x", "acc_y"]),
    ],
)
def test_columns_are_chosen_by_name_and_pattern(
    features: tuple[str, ...] | None, drop: tuple[str, ...], left: list[str], tmp_path: Path
) -> None:
    names = ["acc_x", "y", "gyro_x", "acc_y", "t"]
    write_csv(tmp_path / "a.csv", names, [["1", "a", "2", "3", "4"], ["5", "b", "6", "7", "8"]])
    write_parquet_numbers(tmp_path / "a.parquet", names)
    for file in ("a.csv", "a.parquet"):
        policy = policy_of(parse.FileData.model_construct(drop=drop, missing="refuse", categories={}))
        assert list(load(tmp_path / file, "y", features, policy).feature_names) == left


def write_parquet_numbers(path: Path, names: list[str]) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = {name: ["a", "b"] if name == "y" else [1.0, 2.0] for name in names}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


@pytest.mark.parametrize(("features", "drop"), [(None, ("accc_x",)), (("acc_z*",), ()), (None, ("y",))])
def test_a_pattern_without_a_column_is_an_error(
    features: tuple[str, ...] | None, drop: tuple[str, ...], tmp_path: Path
) -> None:
    write_csv(tmp_path / "a.csv", ["acc_x", "y"], [["1", "a"]])
    policy = policy_of(parse.FileData.model_construct(drop=drop, missing="refuse", categories={}))
    with pytest.raises(DataError) as caught:
        load(tmp_path / "a.csv", "y", features, policy)
    assert caught.value.hint


@pytest.mark.parametrize("kind", ["list", "fixed"])
def test_lists_of_a_parquet_file_are_a_feature_for_each_place(kind: str, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    width = pyarrow.list_(pyarrow.float32(), 4) if kind == "fixed" else pyarrow.list_(pyarrow.float32())
    vectors = pyarrow.array([[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]], width)
    table = pyarrow.table({"vector": vectors, "y": ["a", "b"], "w": [8.0, 9.0]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    found = load(tmp_path / "a.parquet", "y")
    assert found.feature_names == ("vector_0", "vector_1", "vector_2", "vector_3", "w")
    assert found.rows.tolist() == [[0.0, 1.0, 2.0, 3.0, 8.0], [4.0, 5.0, 6.0, 7.0, 9.0]]
    assert load(tmp_path / "a.parquet", "y", ["w", "vector_2"]).rows.tolist() == [[8.0, 2.0], [9.0, 6.0]]


def test_lists_of_different_lengths_are_bad_cells(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"vector": [[0.0, 1.0], [2.0], [3.0, 4.0]], "y": ["a", "b", "a"]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="row 1, column 'vector': a list of 1 numbers; the others have 2"):
        load(tmp_path / "a.parquet", "y")


@pytest.mark.parametrize(
    "unit", ["km", " C", "km/h", " \u00b0C", "%", " kg/m\u00b2", " mm.", "$", "m/s^2", " m/s2", "cm3"]
)
def test_the_hint_for_numbers_with_a_unit_removes_it(
    unit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"-{row}.85{unit},{row},{row}{unit},{'ab'[row % 2]}" for row in range(30)]
    Path("rows.csv").write_text("\r\n".join(["far,plain,near,kind", *rows, ""]), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load(Path("rows.csv"), "kind", None)
    assert f"the numbers have a unit: {unit.strip()!r} in column 'far'" in caught.value.hint
    subprocess.run(["sh", "-c", caught.value.hint.partition("remove it: ")[2]], check=True)
    found = load(Path("rows-clean.csv"), "kind", None).rows
    assert np.allclose(found, [[-float(f"{row}.85"), row, row] for row in range(30)])


@pytest.mark.parametrize("formula", ['="{}"', '"=""{}"""'])
def test_the_hint_for_numbers_in_formulas_leaves_the_numbers(
    formula: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"{formula.format(f'-{row}.85')},{row},{formula.format(row)},{'ab'[row % 2]}" for row in range(30)]
    Path("rows.csv").write_text("\n".join(["far,plain,near,kind", *rows, ""]))
    with pytest.raises(DataError) as caught:
        load(Path("rows.csv"), "kind", None)
    subprocess.run(["sh", "-c", caught.value.hint.partition("formula: ")[2]], check=True)
    found = load(Path("rows-clean.csv"), "kind", None).rows
    assert np.allclose(found, [[-float(f"{row}.85"), row, row] for row in range(30)])


@pytest.mark.parametrize("cell", ["1e400x", "1d3", "0b2", "0x10", "12-05-2026", "10:30", "3.1.4", "1_000", "5/6"])
def test_digits_after_a_number_are_no_unit(cell: str) -> None:
    assert not re.search("[0-9]", unit_of(cell))


def test_no_hint_drops_every_feature(tmp_path: Path) -> None:
    lines = [f"name {row}!,{row}-{row}-x,{'ab'[row % 2]}" for row in range(30)]
    (tmp_path / "rows.csv").write_text("\n".join(["who,what,kind", *lines, ""]))
    with pytest.raises(DataError) as caught:
        load(tmp_path / "rows.csv", "kind", None)
    assert caught.value.hint.startswith("no feature would be left without [who, what]: ")


def test_many_rows_without_a_label_may_have_another_one(tmp_path: Path) -> None:
    for empty, asked in ((1, False), (9, True)):
        lines = [f"{row},{'' if row < empty else row}.5,{'ab'[row % 2]}" for row in range(60)]
        lines = [line.replace(",.5,", ",,") for line in lines]
        (tmp_path / "rows.csv").write_text("\n".join(["width,girth,kind", *lines, ""]))
        with pytest.raises(DataError) as caught:
            load(tmp_path / "rows.csv", "girth", None)
        assert caught.value.hint.startswith("is it the right label column? ") is asked
        assert ("such as kind" in caught.value.hint) is asked


def test_the_hint_keeps_what_deploy_yaml_lists_already(tmp_path: Path) -> None:
    names, path = ["day", "kind", "sort", "when", "size", "width", "label"], tmp_path / "rows.csv"
    sorts = [["a", "b"][n % 2] for n in range(24)]
    write_csv(path, names, [[f"{n}", s, s, f"1-1T{n:06d}", "2" * (n != 3), "", s] for n, s in enumerate(sorts)])
    given = "drop: [day], categories: {kind: [a, b]}, missing: {width: 0.0}"
    with pytest.raises(DataError) as caught:
        load(path, "label", None, policy_of(typed(given, path)))
    data = typed(caught.value.hint, path)
    assert data.drop == ("day", "when")
    assert data.categories == {"kind": ("a", "b"), "sort": "one-hot"}
    assert "sort: one-hot" in caught.value.hint
    assert data.missing == {"width": 0.0, "size": "median"}
    load(path, "label", None, policy_of(data))

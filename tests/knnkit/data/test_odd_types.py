"""A file of any types and shapes is read, or refused with an error that names it; never with another exception."""

from __future__ import annotations

import contextlib
import datetime
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow
import pyarrow.parquet
import pytest

from knnkit.data.arrow_table import load_frame, of_frame
from knnkit.data.columns import Wanted
from knnkit.data.dataset import Dataset
from knnkit.data.files import load, load_all
from knnkit.data.policy import Policy
from knnkit.errors import DataError

NAMES = np.array(["u", "v"])
GOOD = {"X": np.arange(6.0).reshape(3, 2), "y": np.array([1, 0, 1]), "feature_names": NAMES}
#: The changed arrays of an archive, and whether it can be read then.
ARRAYS: dict[str, tuple[dict[str, Any], bool]] = {
    "good": ({}, True),
    "bits": ({"X": np.ones((3, 2), bool)}, True),
    "half numbers": ({"X": np.ones((3, 2), np.float16)}, True),
    "one label": ({"y": np.array(3)}, False),
    "one label beside columns": ({"X": np.ones(3), "y": np.array(3), "feature_names": np.ones(3)}, False),
    "labels in a column": ({"y": np.ones((3, 1), int)}, False),
    "no labels": ({"y": np.empty(0, int)}, False),
    "dates as labels": ({"y": np.array(["2026-01-01"] * 3, "M8[D]")}, True),
    "one name": ({"feature_names": np.array("u")}, False),
    "names in a column": ({"feature_names": NAMES[:, None]}, True),
    "too many names": ({"feature_names": np.array(["u", "v", "w"])}, False),
    "too few names": ({"feature_names": np.array(["u"])}, False),
    "one number": ({"X": np.array(1.0)}, False),
    "one column": ({"X": np.ones(3), "feature_names": np.array(["X"])}, True),
    "no rows": ({"X": np.ones((0, 2))}, False),
    "no columns": ({"X": np.ones((3, 0))}, False),
    "complex": ({"X": np.ones((3, 2), complex)}, False),
    "text": ({"X": np.array([["a", "b"]] * 3)}, False),
    "dates": ({"X": np.zeros((3, 2), "M8[D]")}, False),
    "records": ({"X": np.zeros((3, 2), [("a", float)])}, False),
}
DAY = datetime.date(2026, 1, 31)
#: Columns of a table, and whether they can be features, and labels.
COLUMNS: dict[str, tuple[Any, bool, bool]] = {
    "whole": (pyarrow.array([1, 2, 3], pyarrow.uint64()), True, True),
    "half": (pyarrow.array(np.array([1, 2, 3], np.float16)), True, True),
    "decimal": (pyarrow.array([Decimal("1.5"), Decimal("2.5"), Decimal("-1.5")]), True, True),
    "bits": (pyarrow.array([True, False, True]), True, True),
    "nothing": (pyarrow.nulls(3), False, False),
    "text": (pyarrow.array(["a", "b", "a"]), False, True),
    "large text": (pyarrow.array(["a", "b", "a"], pyarrow.large_string()), False, True),
    "coded text": (pyarrow.array(["a", "b", "a"]).dictionary_encode(), False, True),
    "coded numbers": (pyarrow.array([1.0, 2.0, 1.0]).dictionary_encode(), True, True),
    "bytes": (pyarrow.array([b"a", b"b", b"a"]), False, False),
    "dates": (pyarrow.array([DAY] * 3), False, True),
    "times": (pyarrow.array([datetime.datetime(2026, 1, 31)] * 3), False, True),
    "spans": (pyarrow.array([datetime.timedelta(1)] * 3), False, True),
    "records": (pyarrow.array([{"a": 1}] * 3), False, False),
    "pairs": (pyarrow.array([[("a", 1)]] * 3, pyarrow.map_(pyarrow.string(), pyarrow.int64())), False, False),
    "lists": (pyarrow.array([[1.0, 2.0]] * 3), True, False),
    "large lists": (pyarrow.array([[1, 2]] * 3, pyarrow.large_list(pyarrow.int64())), True, False),
    "matrices": (pyarrow.array([[[1.0, 2.0], [3.0, 4.0]]] * 3), True, False),
    "a missing line of a matrix": (pyarrow.array([[[1.0, 2.0], [3.0]]] * 2 + [[None, [3.0, 4.0]]]), False, False),
    "a missing matrix": (pyarrow.array([[[1.0, 2.0]], None, [[3.0, 4.0]]]), False, False),
    "empty lists": (pyarrow.array([[]] * 3, pyarrow.list_(pyarrow.float64())), True, False),
    "lists of text": (pyarrow.array([["a", "b"]] * 3), False, False),
    "lists of records": (pyarrow.array([[{"a": 1}]] * 3), False, False),
}
POLICIES = {
    "plain": (None, Policy()),
    "chosen": (["v", "u"], Policy()),
    "dropped": (None, Policy(drop=("w",))),
    "filled": (None, Policy(missing="median")),
    "coded": (None, Policy(categories="one-hot")),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ARRAYS)
def test_an_archive_of_any_arrays_is_read_or_refused(name: str, policy: str, tmp_path: Path) -> None:
    changed, good = ARRAYS[name]
    features, how = POLICIES[policy]
    file = tmp_path / "rows.npz"
    np.savez(file, **{**GOOD, **changed})
    found = _read(file, "y", features, how)
    assert (found is not None) == good or policy in ("chosen", "dropped")
    assert found is None or (good and {*found.feature_names} <= {"u", "v", "X"})


@pytest.mark.parametrize("policy", ["plain", "filled", "coded"])
@pytest.mark.parametrize("name", COLUMNS)
def test_a_table_of_any_types_is_read_or_refused(name: str, policy: str, tmp_path: Path) -> None:
    column, as_feature, as_label = COLUMNS[name]
    file = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"x": column, "u": [1.0, 2.0, 3.0], "y": ["a", "b", "a"]}), file)
    for label, features, good in (("y", ["x", "u"], as_feature), ("x", ["u"], as_label)):
        found = _read(file, label, features, POLICIES[policy][1])
        assert (found is not None) == good or policy != "plain"


@pytest.mark.parametrize("name", ["decimal", "dates", "times", "spans"])
def test_a_type_without_one_text_cannot_be_categories(name: str, tmp_path: Path) -> None:
    """Decimals 1.5 and 1.25 of one pandas column are 1.50 and 1.25 in Arrow, and a device would get 1.5."""
    file = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"x": COLUMNS[name][0], "y": ["a", "b", "a"]}), file)
    with pytest.raises(DataError, match="which cannot be categories") as refused:
        load(file, "y", None, Policy(categories={"x": "one-hot"}))
    assert refused.value.hint == "store text: frame['x'] = frame['x'].astype(str)"


def test_a_frame_with_too_large_numbers_is_refused() -> None:
    with pytest.raises(DataError, match="the data frame cannot be read: ") as refused:
        of_frame(pandas.DataFrame({"x": [2**70, 1, 2]}), "rows")
    assert refused.value.hint


def test_a_column_of_several_types_is_named() -> None:
    with pytest.raises(DataError, match="column 'x' holds values of several types") as refused:
        of_frame(pandas.DataFrame({"x": ["x", 1], "u": [1, 2]}), "rows")
    assert refused.value.hint == "frame['x'] = frame['x'].astype(str)"


ODD: dict[str, Callable[[], Any]] = {
    "Sparse": lambda: pandas.DataFrame({"x": pandas.arrays.SparseArray([0.0, 1.0]), "u": [1, 2]}),
    "complex": lambda: pandas.DataFrame({"x": [1j, 2j], "u": [1, 2]}),
    "Int128": lambda: polars.DataFrame({"x": polars.Series([1, 2], dtype=polars.Int128), "u": [1, 2]}),
    "UInt128": lambda: polars.DataFrame({"x": polars.Series([1, 2], dtype=polars.UInt128), "u": [1, 2]}),
}


@pytest.mark.parametrize("name", ODD)
def test_the_hint_for_a_type_that_arrow_lacks_converts_the_column(name: str) -> None:
    found = {"frame": ODD[name](), "numpy": np, "polars": polars}
    with pytest.raises(DataError, match=f"column 'x' is of type {name}") as refused:
        of_frame(found["frame"], "rows")
    exec(refused.value.hint, found)
    assert of_frame(found["frame"], "rows").num_rows == 2


def test_runs_of_numbers_are_numbers() -> None:
    runs = pyarrow.RunEndEncodedArray.from_arrays([1, 3], [1.5, 2.5])
    table = pyarrow.table({"x": runs, "y": [0, 1, 1]})
    assert load_frame(table, Wanted("y", None)).rows.tolist() == [[1.5], [2.5], [2.5]]


def _read(file: Path, label: str, features: list[str] | None, policy: Policy) -> Dataset | None:
    """Returns the rows of a file; None if it is refused."""
    with contextlib.suppress(DataError):
        found = load(file, label, features, policy)
        assert found.rows.shape == (len(found.labels), len(found.feature_names))
        return found
    with pytest.raises(DataError, match=re.escape(str(file))) as refused:
        load(file, label, features, policy)
    assert refused.value.hint
    return None


@pytest.mark.parametrize("kind", [pyarrow.float16(), pyarrow.float32(), pyarrow.float64()])
def test_a_narrow_number_as_text_has_no_more_digits_than_it_holds(kind: Any, tmp_path: Path) -> None:
    """A device looks up the category 0.1 of a CSV file; no file has the category 0.10000000149011612."""
    narrow = [np.float16(0.1), np.float16(0.25), np.float16(0.1)] if kind == pyarrow.float16() else [0.1, 0.25, 0.1]
    cells = pyarrow.array(narrow, kind)
    table = pyarrow.table({"n": [1, 2, 3], "zone": cells, "kind": cells, "name": cells})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    policy = Policy(categories={"zone": "one-hot"})
    found = load_all([tmp_path / "a.parquet"], Wanted("kind", policy=policy, ids="name"))
    assert found.labels.tolist() == ["0.1", "0.25", "0.1"]
    assert found.levels == {1: ("0.1", "0.25")}
    assert found.ids is not None
    assert found.ids.tolist() == ["0.1", "0.25", "0.1"]
    with pytest.raises(DataError) as caught:
        load(tmp_path / "a.parquet", "kind", policy=Policy(categories={"zone": ("0.25", "0.5")}))
    assert "'0.1' is not one of the listed categories" in str(caught.value)


@pytest.mark.parametrize(("cells", "helps"), [(["1", "2", None], True), (["1", "2", "x"], False)])
def test_only_a_column_of_numbers_is_converted_by_the_hint(cells: list[Any], helps: bool, tmp_path: Path) -> None:
    table = pyarrow.table({"n": [1, 2, 3], "zone": cells, "kind": ["a", "b", "a"]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError) as caught:
        load(tmp_path / "a.parquet", "kind")
    assert ("pandas.to_numeric(frame['zone'])" in caught.value.hint) == helps
    assert caught.value.hint


@pytest.mark.parametrize("cells", [["1,5", "2,25", "3"], ["1,5", "x", "2,5"]])
def test_a_frame_with_decimal_commas_is_told_how_to_read_them(cells: list[str]) -> None:
    frame = pandas.DataFrame({"mass": cells, "width": [1, 2, 3], "y": ["u", "v", "u"]})
    with pytest.raises(DataError) as error:
        load_frame(of_frame(frame, "labels='y'"), Wanted("y"))
    assert ("write decimal points in 'mass'" in error.value.hint) == ("x" not in cells)
    assert ("pandas.read_csv(FILE, decimal=',', na_values=['-'])" in error.value.hint) == ("x" not in cells)


def test_categories_in_an_npz_lead_to_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    policy = Policy((), categories={"soil": "one-hot"})
    for name, soil in (("text", np.array(["sand", "clay", "sand"])), ("codes", np.array([0, 1, 0]))):
        np.savez(f"{name}.npz", x=np.arange(3.0), soil=soil, y=np.array([1, 2, 1]))
        with pytest.raises(DataError, match="numbers") as caught:
            load(f"{name}.npz", "y", policy=policy)
        subprocess.run([sys.executable, *shlex.split(caught.value.hint)[1:]], check=True)
        assert load(f"{name}.parquet", "y", policy=policy).text_columns == ["soil"]

"""Columns that float32 cannot hold are named, and those that it holds are not."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from support.offsets import KINDS, write_csv

from knnkit.data import precision
from knnkit.data.dataset import SKLEARN_SETS, dataset, load_sklearn
from knnkit.data.files import load
from knnkit.errors import DataError

RNG = np.random.default_rng(5)
NEXT = float(np.nextafter(np.float32(3.3), np.float32(4)))
BURSTS = np.concatenate([1.4e12 + np.arange(200) * 40_000.0, 1.7e12 + np.arange(200) * 40_000.0])


def warned(column: np.ndarray) -> tuple[str, ...]:
    rows = np.column_stack([column, RNG.normal(size=len(column))])
    found = dataset(rows, np.zeros(len(rows), int), ("bad", "good"), "train.csv")
    return precision.warnings(found.rows, found.feature_names, found.source)


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (BURSTS, "train.csv: float32 holds the column 'bad' in steps of .*, but neighbouring values are 4e.04 apart"),
        (np.append(BURSTS[:300], 0.0), "float32 holds the column 'bad'"),
        (np.array([1.0, 2.0**30] * 50) + np.repeat(np.arange(50), 2) / 64.0 + 0.001, "float32 holds the column 'bad'"),
        (np.where(RNG.random(90) < 0.3, 3.3000002, 3.3), "'bad' varies only by rounding, from 3.3 to 3.3000002;"),
        (np.where(RNG.random(90) < 0.3, NEXT, float(np.float32(3.3))), "'bad' varies only by rounding"),
        (np.where(RNG.random(90) < 0.3, 0.1 + 0.2, 0.3), "'bad' varies only by rounding, from 0.3 to 0.300000000000"),
        (-np.where(RNG.random(90) < 0.3, 1e-9, np.nextafter(np.float32(1e-9), np.float32(1))), "only by rounding"),
        (np.arange(2**53, 2**53 + 50), "the column 'bad' has whole numbers beyond 2.53, some of which are equal in"),
        (-np.full(50, 2**53 + 1), "whole numbers beyond 2.53"),
        (np.arange(50, dtype=np.uint64) + 2**63, "whole numbers beyond 2.53"),
    ],
)
def test_a_column_that_float32_cannot_hold_is_named(column: np.ndarray, said: str) -> None:
    found = warned(column)
    assert len(found) == 1
    assert re.search(said, found[0])


@pytest.mark.parametrize(
    "column",
    [
        *(make()[0][:, 0] for make in KINDS.values()),
        np.full(50, 3.3),
        np.arange(50.0),
        np.where(RNG.random(90) < 0.3, 0.0, 1.0),
        5_600_000.0 + np.arange(50) % 3 / 2.0,  # halves are measured, not rounded
        5_600_000.07 + np.arange(50) * 0.05,
        RNG.normal(size=20_000),
        RNG.normal(300.0, 5.0, 20_000),
        RNG.lognormal(sigma=6.0, size=5_000),
        np.append(RNG.normal(size=500), 1e30),
        RNG.integers(0, 10**12, 500).astype(float),
        1_000_000_000_000.0 + np.arange(500),
        np.round(RNG.normal(1013.25, 9.0, 500), 2),
        RNG.random(400).astype(np.float32).astype(float),
    ],
)
def test_a_column_that_is_held_is_not_named(column: np.ndarray) -> None:
    assert warned(column) == ()


@pytest.mark.parametrize("name", SKLEARN_SETS)
def test_data_sets_of_scikit_learn_are_held_and_have_no_origin(name: str) -> None:
    rows = load_sklearn(name)
    assert rows.rows.dtype == np.float32
    assert precision.warnings(rows.rows, rows.feature_names, rows.source) == ()


@pytest.mark.parametrize("kind", KINDS)
def test_differences_from_an_origin_are_exact(kind: str) -> None:
    rows = KINDS[kind]()[0]
    origin = precision.find_origin(rows)
    assert origin is not None
    for column, start in enumerate(origin.tolist()):
        assert start.is_integer() or (start * 2.0**40).is_integer(), "few bits: text keeps it"
        near = rows[(rows[:, column] >= start / 2) & (rows[:, column] <= 2 * start), column]
        for value in near[:100].tolist():
            assert Fraction(value - start) == Fraction(value) - Fraction(start)


def test_an_outlier_does_not_move_the_origin() -> None:
    rows = KINDS["seconds"]()[0]
    assert (rows == 0.0).any()
    origin = precision.find_origin(rows)
    assert origin is not None
    assert abs(origin[0] - np.median(rows)) < 10_000


@pytest.mark.parametrize("make", [lambda: np.array([[1.5]]), lambda: np.zeros((3, 2)), lambda: np.full((1, 3), 5.6e6)])
def test_few_rows_have_no_origin(make: Callable[[], np.ndarray]) -> None:
    assert precision.find_origin(make()) is None
    assert precision.float32_if_enough(make()).dtype == np.float32


@pytest.mark.parametrize("kind", KINDS)
def test_a_csv_file_is_read_in_float64_only_where_it_must_be(tmp_path: Path, kind: str) -> None:
    rows, labels, _ = KINDS[kind]()
    wide = load(write_csv(tmp_path / "far.csv", rows, labels), "y").rows
    assert wide.dtype == np.float64
    assert np.array_equal(wide, rows)
    near = rows - np.median(rows, axis=0)
    assert load(write_csv(tmp_path / "near.csv", near, labels), "y").rows.dtype == np.float32
    kept = load(tmp_path / "near.csv", "y", wide=True).rows
    assert np.array_equal(kept, near), "test rows of a model with an origin"


@pytest.mark.parametrize("kind", [np.int32, np.uint32, np.int64, np.longdouble, object])
def test_whole_numbers_of_any_type_keep_what_float32_cannot_hold(kind: type) -> None:
    seconds = (1_767_225_600 + np.arange(200)[:, None] * 10).astype(kind)
    assert dataset(seconds, np.zeros(200, int)).rows.dtype == np.float64
    assert dataset(seconds.tolist(), np.zeros(200, int)).rows[3, 0] == 1_767_225_630


@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.int16, np.float16, np.float32])
def test_types_that_float32_holds_are_not_widened(kind: type) -> None:
    assert dataset(np.arange(90)[:, None].astype(kind), np.zeros(90, int)).rows.dtype == np.float32


@pytest.mark.parametrize("bad", [np.inf, -np.inf, 1e39, -1e300])
def test_numbers_that_are_not_finite_are_named_without_a_warning_of_numpy(bad: float) -> None:
    rows = KINDS["utm"]()[0].copy()
    rows[7, 1] = bad
    with pytest.raises(DataError, match=r"row 7, column 'feature_1': .* is not a finite float32 number"):
        dataset(rows, np.zeros(len(rows), int))


def test_seconds_that_are_one_number_in_float32_are_read_in_float64(tmp_path: Path) -> None:
    """All of the file lies within one step of float32."""
    lines = [f"{1_700_000_000 + second},{second % 2}" for second in range(60)]
    (tmp_path / "a.csv").write_text("\n".join(["t,label", *lines, ""]))
    found = load(tmp_path / "a.csv", "label")
    assert found.rows[:, 0].tolist() == [1_700_000_000.0 + second for second in range(60)]
    assert precision.find_origin(found.rows) is not None

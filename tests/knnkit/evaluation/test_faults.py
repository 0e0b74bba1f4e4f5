"""Each fault of the rows is counted and reported, and ordinary rows are not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from knnkit.data.columns import numbering
from knnkit.data.dataset import SKLEARN_SETS, Dataset, dataset, load_sklearn
from knnkit.data.targets import with_labels
from knnkit.evaluation.faults import find, of_categories, of_columns, scale_by_far, stand_ins
from knnkit.evaluation.splits import divide

RANDOM = np.random.default_rng(0)


def rows_of(rows: Any, labels: Any) -> Dataset:
    return dataset(rows, labels, None, "rows")


@pytest.mark.parametrize("name", SKLEARN_SETS)
@pytest.mark.parametrize("how", [None, "stratified"])
@pytest.mark.parametrize("seed", range(3))
def test_the_data_sets_of_scikit_learn_have_no_fault(name: str, how: str | None, seed: int) -> None:
    found = divide(load_sklearn(name), 0.3, seed, how)
    assert find(found.training, found.held_out) == ()
    assert scale_by_far(found.training, "standard") == scale_by_far(found.training, "minmax") == ()


@pytest.mark.parametrize(("distinct", "times"), [(100, 6), (50, 2), (10, 20)])
def test_rows_on_both_sides_are_counted(distinct: int, times: int) -> None:
    once = RANDOM.normal(size=(distinct, 4))
    everything = rows_of(np.tile(once, (times, 1)), np.tile(np.arange(distinct) % 2, times))
    found = divide(everything, 0.3, 0)
    assert found.held_out is not None
    known = {row.tobytes() for row in found.training.rows}
    count = sum(row.tobytes() in known for row in found.held_out.rows)
    (said,) = find(found.training, found.held_out)
    assert f"{count} of {len(found.held_out.rows)} held-out rows are equal to a training row" in said


def test_one_equal_row_among_many_is_chance() -> None:
    training = rows_of(RANDOM.normal(size=(100, 2)), np.arange(100) % 2)
    held_out = rows_of([training.rows[0], *RANDOM.normal(size=(40, 2))], [0, *np.arange(40) % 2])
    assert find(training, held_out) == ()


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_equal_rows_of_different_labels_are_counted(zero: float) -> None:
    training = rows_of([[0.0, 1.0], [zero, 1.0], [2.0, 3.0]], ["fall", "walk", "fall"])
    (said,) = find(training, None)
    assert said == ("rows: 2 rows have the features of another row and a different label, such as 'fall' and 'walk'")
    assert find(rows_of([[0.0, 1.0], [zero, 1.0]], ["fall", "fall"]), None) == ()


@pytest.mark.parametrize("first", [2**53, 2**53 + 1, -(2**63) + 1, 2**63 - 40])
def test_labels_that_readers_of_json_would_mix_up_are_named(first: int) -> None:
    rows = RANDOM.normal(size=(40, 2))
    (said,) = find(rows_of(rows, first + np.arange(40) % 2), None)
    assert "labels beyond 2^53 become equal to others in programs that read JSON's numbers as float64" in said
    assert find(rows_of(rows, np.arange(40) % 2 + 2**53 - 2), None) == ()


@pytest.mark.parametrize("copy", [lambda c: c, lambda c: c * 10.0 - 3, lambda c: (c + 1) % 3, lambda c: 1 / (c + 1)])
def test_a_column_that_is_the_label_is_named(copy: Any) -> None:
    codes = np.arange(60) % 3
    rows = np.column_stack([RANDOM.normal(size=60), copy(codes)])
    (said,) = find(rows_of(rows, np.array(["a", "b", "c"])[codes]), None)
    assert "the column 'feature_1' is a copy of the label" in said


@pytest.mark.parametrize(
    "column",
    [
        lambda codes: codes + RANDOM.normal(scale=0.01, size=len(codes)),  # it follows the label, and is measured
        lambda codes: np.minimum(codes, 1),  # tells one class from the others
        lambda codes: np.where(np.arange(len(codes)) == 5, 0, codes + 1),
        lambda codes: np.ones(len(codes)),
        lambda codes: np.arange(len(codes)) % 5,
    ],
)
def test_a_column_that_is_not_the_label_is_not_named(column: Any) -> None:
    codes = np.arange(60) % 3
    rows = np.column_stack([RANDOM.normal(size=60), column(codes)])
    assert find(rows_of(rows, codes), None) == ()


@pytest.mark.parametrize(
    "labels", [("Fall", "fall"), ("not fall", "notfall"), ("not fall", "Not  Fall"), ("a b", "a\u3000b"), ("ß1", "SS1")]
)
def test_labels_in_two_spellings_are_named(labels: tuple[str, str]) -> None:
    rows = Dataset(RANDOM.normal(size=(30, 2)).astype(np.float32), np.array([*labels, "walk"] * 10), ("a", "b"), "rows")
    (said,) = find(rows, None)
    assert all(f"{label!r} (10 rows)" in said for label in labels)


@pytest.mark.parametrize("labels", [("0.5", "0.50"), ("1e3", "1000"), ("+3", "3"), ("007", "7")])
def test_labels_that_are_equal_as_numbers_are_named(labels: tuple[str, str]) -> None:
    rows = rows_of(RANDOM.normal(size=(30, 2)), np.array([*labels, "2.5"] * 10))
    (said,) = find(rows, None)
    assert "labels are equal as numbers: " in said
    assert all(f"{label!r} (10 rows)" in said for label in labels)


def test_two_spellings_of_a_number_are_named_once() -> None:
    (said,) = find(rows_of(RANDOM.normal(size=(30, 2)), np.array(["1e5", "1E5", "2.5"] * 10)), None)
    assert "labels differ only in blanks or case: " in said


def test_each_of_several_label_columns_is_looked_at() -> None:
    columns = [np.array(texts * 10) for texts in (["oak", "Oak", "elm"], ["a", "b", "NA"], ["2.5", "2.50", "3"])]
    rows = with_labels(rows_of(RANDOM.normal(size=(30, 2)), None), columns, ("kind", "health", "age"))
    one, two, three = of_columns(rows)
    assert "rows: column 'kind': labels differ only in blanks or case: 'Oak' (10 rows), 'oak' (10 rows)" in one
    assert "column 'health': the label 'NA' is on 10 rows" in two
    assert "column 'age': labels are equal as numbers: '2.5' (10 rows), '2.50' (10 rows)" in three
    assert of_columns(rows_of(RANDOM.normal(size=(20, 2)), np.arange(20) % 2)) == ()


@pytest.mark.parametrize("value", [-9999.0, 999.0, -32768.0])
def test_a_number_that_may_stand_for_a_missing_value_is_named(value: float) -> None:
    rows = RANDOM.normal(size=(30, 3))
    rows[[3, 7], 1] = value
    (said,) = stand_ins(rows_of(rows, np.arange(30) % 2))
    assert said.startswith(f"rows: {value:g} in 2 cells of 'feature_1' is far from all other values.")
    assert said.endswith("write missing: {feature_1: median}")


@pytest.mark.parametrize(
    "column",
    [
        np.linspace(-9999.0, 0.0, 30),  # once
        np.where(np.arange(30) < 2, -9999.0, np.arange(30) * 900.0),  # not far
        np.where(np.arange(30) < 2, -9998.0, np.arange(30)),
        np.where(np.arange(30) < 2, -9999.0, 5.0),  # a flag
        np.full(30, -9999.0),
    ],
)
def test_other_numbers_stand_for_nothing(column: Any) -> None:
    assert stand_ins(rows_of(np.column_stack([RANDOM.normal(size=30), column]), np.arange(30) % 2)) == ()


def test_categories_that_may_be_one_are_named() -> None:
    rows = rows_of(RANDOM.normal(size=(6, 1)), np.arange(6) % 2)
    raw = replace(rows, levels={0: ("Sand", "a", "A", "clay", "sand ")})
    (said,) = of_categories(replace(rows, raw=raw))
    assert said.startswith(
        "rows: categories of 'feature_0' differ only in blanks or case: 'Sand', 'sand '; if they mean"
    )
    assert of_categories(rows) == ()


@pytest.mark.parametrize("labels", [("a", "A"), ("fall", "falls"), ("oak 1", "oak 2"), (1, 11), ("0.5", "0.25")])
def test_labels_that_differ_are_not_named(labels: Any) -> None:
    assert find(rows_of(RANDOM.normal(size=(20, 2)), np.array([*labels] * 10)), None) == ()


@pytest.mark.parametrize("name", ["Unnamed: 0", "__index_level_0__", "Unnamed: 0.1", "__index_level_1__"])
@pytest.mark.parametrize(
    "values",
    [range(50), np.arange(50) * 3 + 7, RANDOM.permutation(500)[:50], [*range(25), *range(25)], [3, 9, 10, 40, 41]],
)
def test_an_index_of_pandas_is_found(name: str, values: Any) -> None:
    values = np.asarray(values, float)
    rows = np.column_stack([values, RANDOM.normal(size=len(values))])
    assert numbering(dataset(rows, ["a"] * len(values), [name, "width"], "rows")) == (name,)


@pytest.mark.parametrize("values", [RANDOM.normal(size=50), np.zeros(50)])
def test_other_columns_without_a_name_are_not_an_index(values: Any) -> None:
    rows = np.column_stack([values, RANDOM.normal(size=50)])
    assert numbering(dataset(rows, ["a"] * 50, ["Unnamed: 0", "width"], "rows")) == ()


@pytest.mark.parametrize("word", ["nan", "NaN", "N/A", "null", "None", "?"])
def test_a_label_that_may_mean_none_is_named(word: str) -> None:
    rows = RANDOM.normal(size=(40, 2))
    labels = np.array(["oak", "elm", "oak", word])[np.arange(40) % 4]
    (said,) = find(rows_of(rows, labels), None)
    assert f"the label {word!r} is on 10 rows" in said
    assert find(rows_of(rows, np.arange(40) % 3), None) == ()


@pytest.mark.parametrize("scale", ["standard", "minmax"])
@pytest.mark.parametrize("value", [1e38, -1e38, 1e6])
@pytest.mark.parametrize("count", [1, 3])
def test_far_values_that_decide_a_scale_are_named(count: int, value: float, scale: Any) -> None:
    points = RANDOM.normal(5.0, 2.0, size=(200, 3))
    points[17 : 17 + count, 1] = value / 2
    points[17, 1] = value
    rows = rows_of(points, np.arange(200) % 2)
    (said,) = scale_by_far(rows, scale)
    assert said.startswith(f"rows: row 17: 'feature_1' is {value:.6g}")
    assert ("(and 2 more are as far)" in said) == (count == 3)
    assert f"scale: {scale} makes these nearly equal: correct that row, or leave it out" in said
    assert said.endswith(", or take scale: robust") == (value == 1e6)
    assert scale_by_far(rows, "robust") == scale_by_far(rows, "none") == ()


@pytest.mark.parametrize(
    "column",
    [RANDOM.lognormal(0.0, 1.0, 300), RANDOM.standard_t(3, 300), RANDOM.poisson(0.1, 300), np.arange(300) // 150 * 1e6,
     np.arange(300) == 7, np.zeros(300)],
)  # fmt: skip
def test_ordinary_columns_have_no_far_values(column: Any) -> None:
    rows = rows_of(np.stack([column, RANDOM.normal(size=300)], axis=1).astype(float), np.arange(300) % 2)
    assert scale_by_far(rows, "standard") == ()


def test_a_rare_class_that_lies_far_away_is_no_mistake() -> None:
    points = RANDOM.normal(size=(300, 2))
    points[:9] += 1e4
    assert scale_by_far(rows_of(points, np.arange(300) < 9), "standard") == ()
    assert len(scale_by_far(rows_of(points, np.arange(300) % 2), "standard")) == 2


def test_a_row_that_is_far_in_every_column_is_named_a_few_times() -> None:
    points = RANDOM.normal(size=(300, 60))
    points[7] = 1e30
    *named, more = scale_by_far(rows_of(points, np.arange(300) % 2), "standard")
    assert [said.split(" is ")[0] for said in named] == [f"rows: row 7: 'feature_{number}'" for number in range(3)]
    assert more == "rows: 57 more columns have values as far from all others"

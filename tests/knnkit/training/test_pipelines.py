"""Nonlinear transformers give a device's rows the features that scikit-learn gives them, from CSV and from JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import PCA
from sklearn.feature_selection import SelectKBest
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

import knnkit
from device_agent import TfliteKNN
from device_agent.shared.features.parsers import TableCsvParser, TableJsonParser
from device_agent.shared.golden.golden_set import Golden
from knnkit.errors import BuildError, DataError
from knnkit.model.build import make_reference
from knnkit.release import keys
from knnkit.training.fitted import Fitted
from knnkit.training.raw_cells import features_of

RNG = np.random.default_rng(3)
KNN = KNeighborsClassifier(3, weights="distance")
NUMBERS = np.round(np.exp(RNG.normal(0.5, 1.0, (120, 4))), 3)
GAPS = np.where(RNG.random((120, 4)) < 0.15, np.nan, NUMBERS)
SPECIES = np.array(["sand", "clay", "lo\u00e9ss", "silt"], object)[RNG.integers(0, 4, 120)]
SIZES = np.array(["small", "large"], object)[RNG.integers(0, 2, 120)]
#: Two columns of numbers with gaps, a text with gaps, a text, and a whole number that is a category.
MIXED = np.column_stack(
    [GAPS[:, :2], np.where(RNG.random(120) < 0.1, np.nan, SPECIES), SIZES, RNG.integers(1, 5, 120)]
).astype(object)
LABELS = (NUMBERS[:, 0] > np.median(NUMBERS[:, 0])).astype(int) + 2 * (NUMBERS[:, 1] > np.median(NUMBERS[:, 1]))

#: Transformers of rows without gaps.
PLAIN: dict[str, Any] = {
    "binarizer": Binarizer(threshold=1.5),
    "bins, one-hot": KBinsDiscretizer(4, strategy="quantile", quantile_method="averaged_inverted_cdf"),
    "bins, ordinal": KBinsDiscretizer(5, encode="ordinal", strategy="uniform"),
    "bins, k-means": KBinsDiscretizer(3, encode="onehot-dense", strategy="kmeans"),
    "min-max, clipped": MinMaxScaler((-1, 2), clip=True),
    "quantiles, uniform": QuantileTransformer(n_quantiles=30),
    "quantiles, normal": QuantileTransformer(n_quantiles=120, output_distribution="normal"),
    "yeo-johnson": PowerTransformer(),
    "yeo-johnson, raw": PowerTransformer(standardize=False),
    "box-cox": PowerTransformer(method="box-cox"),
    **{f"np.{name}": FunctionTransformer(getattr(np, name)) for name in ("log1p", "sqrt", "abs", "log")},
    "np.expm1": make_pipeline(MinMaxScaler(), FunctionTransformer(np.expm1)),
    "polynomial": PolynomialFeatures(2),
    "products": PolynomialFeatures(2, interaction_only=True, include_bias=False),
    "cubes": PolynomialFeatures(3, include_bias=False),
    "then linear": make_pipeline(PolynomialFeatures(2), StandardScaler(), PCA(5), FunctionTransformer(np.abs)),
    "side by side": FeatureUnion(
        [("log", FunctionTransformer(np.log)), ("pca", PCA(2)), ("norm", Normalizer("l1")), ("off", "drop")],
        transformer_weights={"log": 0.5},
    ),
    "one-hot of numbers": ColumnTransformer(
        [("hot", OneHotEncoder(sparse_output=False), [0])], remainder=MaxAbsScaler()
    ),
}
#: Transformers of numbers with gaps.
GAPPED: dict[str, Any] = {
    "mean": SimpleImputer(),
    "median and marks": SimpleImputer(strategy="median", add_indicator=True),
    "most frequent": SimpleImputer(strategy="most_frequent"),
    "constant": SimpleImputer(strategy="constant", fill_value=-1.0),
    "marks": FeatureUnion([("filled", SimpleImputer()), ("marks", MissingIndicator(features="all"))]),
    "filled, chosen": make_pipeline(SimpleImputer(), SelectKBest(k=2), QuantileTransformer(n_quantiles=20)),
}
#: Transformers of mixed columns.
TEXTS: dict[str, Any] = {
    "imputed, scaled and one-hot": ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), [0, 1]),
            ("text", make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()), [2]),
            ("size", OrdinalEncoder(), [3]),
        ]
    ),
    "unknown ignored": ColumnTransformer(
        [
            ("numbers", SimpleImputer(), [0, 1]),
            ("text", OneHotEncoder(handle_unknown="ignore", drop="if_binary"), [2, 3]),
            (
                "again",
                OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-5, encoded_missing_value=-9),
                [2],
            ),
        ]
    ),
    "infrequent": ColumnTransformer(
        [
            ("numbers", SimpleImputer(), [1]),
            ("text", OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=3, drop="first"), [2, 4]),
        ],
        sparse_threshold=1.0,
    ),
}


def features(fitted: Fitted, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[int, tuple[int, str]]]:
    """Returns what a device makes of raw rows: from JSON lines, from CSV, and the lines that it refuses."""
    table = fitted.table
    assert table is not None
    plain = [[None if cell is None or cell != cell else cell for cell in row] for row in rows.tolist()]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in plain)
    by_json = TableJsonParser(table, np.float64).parse(lines.encode())
    header = ",".join(column.name for column in table.columns) + "\n"
    text = header + "".join(",".join("" if cell is None else str(cell) for cell in row) + "\n" for row in plain)
    by_csv = TableCsvParser(table, np.float64).parse(text.encode())
    assert by_json.errors.keys() == by_csv.errors.keys()
    return by_json.rows, by_csv.rows, by_json.errors


def imported(steps: Any, rows: np.ndarray) -> tuple[Fitted, Pipeline]:
    pipeline = make_pipeline(clone(steps), KNN).fit(rows, LABELS)
    return knnkit.from_sklearn(pipeline).fitted, pipeline


CASES = [(name, steps, NUMBERS) for name, steps in PLAIN.items()]
CASES += [(name, steps, GAPS) for name, steps in GAPPED.items()]
CASES += [(name, steps, MIXED) for name, steps in TEXTS.items()]


@pytest.mark.parametrize(("name", "steps", "rows"), CASES, ids=[name for name, *_ in CASES])
def test_a_device_makes_the_features_of_scikit_learn(name: str, steps: Any, rows: np.ndarray) -> None:
    fitted, pipeline = imported(steps, rows)
    expected = pipeline[:-1].transform(rows)
    expected = np.asarray(expected.toarray() if hasattr(expected, "toarray") else expected, np.float64)
    for found in features(fitted, rows)[:2]:
        assert found.shape == expected.shape
        assert np.allclose(found, expected, rtol=1e-11, atol=1e-11)


def test_what_is_beyond_the_training_rows_is_as_in_scikit_learn() -> None:
    beyond = np.concatenate([NUMBERS * 3.0, NUMBERS[:40] * 0.01])
    for name in ("quantiles, normal", "quantiles, uniform", "min-max, clipped", "bins, ordinal", "yeo-johnson"):
        fitted, pipeline = imported(PLAIN[name], NUMBERS)
        assert np.allclose(features(fitted, beyond)[0], pipeline[:-1].transform(beyond), rtol=1e-9, atol=1e-11), name


@pytest.mark.parametrize("scaler", [StandardScaler(), RobustScaler(), MaxAbsScaler(), MinMaxScaler()])
def test_scaled_values_equal_the_edges_of_a_later_step(scaler: Any) -> None:
    """A value that repeats is an edge of bins and quantiles: a last bit of its own would put it into another bin."""
    counts = np.round(NUMBERS, 1)
    for later in (QuantileTransformer(n_quantiles=20), KBinsDiscretizer(5, encode="ordinal", strategy="quantile")):
        fitted, pipeline = imported(make_pipeline(clone(scaler), later), counts)
        assert np.allclose(features(fitted, counts)[0], pipeline[:-1].transform(counts))


@pytest.mark.filterwarnings("ignore:Found unknown categories")
def test_an_unknown_category_is_refused_or_ignored_as_its_encoder_says() -> None:
    strange = MIXED[:3].copy()
    strange[0, 2], strange[1, 3] = "gravel", "huge"
    strange[2, 2] = np.nan
    fitted, _ = imported(TEXTS["imputed, scaled and one-hot"], MIXED)
    assert [sorted(features(fitted, strange)[2])] == [[0, 1]]
    fitted, pipeline = imported(TEXTS["unknown ignored"], MIXED)
    assert np.allclose(features(fitted, strange)[0], pipeline[:-1].transform(strange))
    strange[2, 4] = 77
    fitted, pipeline = imported(TEXTS["infrequent"], MIXED)
    expected = pipeline[:-1].transform(strange)
    assert np.allclose(features(fitted, strange)[0], expected.toarray())


@pytest.mark.parametrize("encoder", [OneHotEncoder(sparse_output=False), OrdinalEncoder()])
@pytest.mark.parametrize("later", [SimpleImputer(), KBinsDiscretizer(2, encode="ordinal", strategy="uniform")])
def test_a_refused_category_is_not_filled_by_a_later_step(encoder: Any, later: Any) -> None:
    """scikit-learn raises an error for it, whatever comes after the encoder."""
    steps = ColumnTransformer([("text", make_pipeline(encoder, later), [3, 4])], remainder="drop")
    fitted, pipeline = imported(steps, MIXED)
    strange = MIXED[:4].copy()
    strange[0, 3], strange[1, 4], strange[2, 4] = "huge", 77, np.nan
    *_, errors = features(fitted, strange)
    assert sorted(errors) == [0, 1, 2]
    for row in range(3):
        with pytest.raises(ValueError, match="unknown categories"):
            pipeline.predict(strange[row : row + 1])


def test_a_cell_that_no_transformer_fills_is_refused_by_name() -> None:
    fitted, _ = imported(PLAIN["yeo-johnson"], NUMBERS)
    assert fitted.table is not None
    assert {column.missing for column in fitted.table.columns} == {"refuse"}
    *_, errors = features(fitted, GAPS)
    assert len(errors) == int(np.isnan(GAPS).any(axis=1).sum())
    fitted, _ = imported(PLAIN["np.log"], NUMBERS)
    zero = NUMBERS[:2].copy()
    zero[1, 2] = 0.0
    *_, errors = features(fitted, zero)
    assert list(errors) == [1]
    assert "the pipeline turns the row into NaN or infinity" in errors[1][1]


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_text_and_missing_cells_are_answered_in_python_and_from_skops(name: str, tmp_path: Path) -> None:
    pipeline = make_pipeline(clone(TEXTS[name]), KNN).fit(MIXED, LABELS)
    skops.io.dump(pipeline, tmp_path / "mixed.skops")
    model = knnkit.from_skops(tmp_path / "mixed.skops")
    assert model.predict(MIXED).tolist() == pipeline.predict(MIXED).tolist()
    assert np.abs(model.predict_proba(MIXED) - pipeline.predict_proba(MIXED)).max() <= 1e-5
    with pytest.raises(DataError, match="expected rows of 5 cells"):
        model.predict(MIXED[:, :4])


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (FunctionTransformer(np.sin), "a FunctionTransformer of sin is not supported"),
        (FunctionTransformer(lambda rows: rows), "a FunctionTransformer of <lambda> is not supported"),
        (PolynomialFeatures(4), "PolynomialFeatures of degree 4"),
    ],
)
def test_what_is_left_out_is_named(steps: Any, said: str) -> None:
    with pytest.raises(BuildError, match=said):
        imported(steps, NUMBERS)


def test_without_test_rows_there_is_no_release(tmp_path: Path) -> None:
    model = knnkit.from_sklearn(make_pipeline(PowerTransformer(), KNN).fit(NUMBERS, LABELS))
    keys.generate(tmp_path / "key")
    with pytest.raises(DataError, match="cannot be computed back through its transformers, so test rows are needed"):
        model.build_release(tmp_path / "out", signing_key=tmp_path / "key.pem")


def test_every_transformer_is_read_from_skops(tmp_path: Path) -> None:
    for name, steps, rows in CASES:
        pipeline = make_pipeline(clone(steps), KNN).fit(rows, LABELS)
        skops.io.dump(pipeline, tmp_path / "a.skops")
        assert knnkit.from_skops(tmp_path / "a.skops").fitted.table == knnkit.from_sklearn(pipeline).fitted.table, name


@pytest.mark.parametrize("encoder", [OneHotEncoder(handle_unknown="ignore"), OrdinalEncoder()])
def test_categories_that_no_device_could_tell_apart_are_refused(encoder: Any) -> None:
    """A device reads ` a` as `a`, and a column as numbers or as text."""
    spaced = np.array([["a"], [" a"], ["b"]] * 40, object)
    with pytest.raises(BuildError, match="' a' has blanks at its ends") as caught:
        knnkit.from_sklearn(make_pipeline(clone(encoder), KNN).fit(spaced, LABELS))
    assert "str.strip()" in caught.value.hint
    whole = np.array([[1], [2], [3]] * 40, object)
    filled = SimpleImputer(strategy="constant", fill_value="missing")
    with pytest.raises(BuildError, match="both numbers and text"):
        knnkit.from_sklearn(make_pipeline(filled, clone(encoder), KNN).fit(whole, LABELS))


def test_a_category_that_is_no_text_and_no_number_is_named() -> None:
    binned = pd.DataFrame({"size": pd.cut(NUMBERS[:, 0], 3), "other": NUMBERS[:, 1]})
    encode = ColumnTransformer([("size", OneHotEncoder(), ["size"])], remainder="passthrough")
    with pytest.raises(BuildError, match="is neither text nor a number, but of type Interval") as caught:
        knnkit.from_sklearn(make_pipeline(encode, KNN).fit(binned, LABELS))
    assert "astype(str)" in caught.value.hint
    binned["size"] = binned["size"].astype(str)
    assert knnkit.from_sklearn(make_pipeline(encode, KNN).fit(binned, LABELS))


def test_truth_values_are_numbers_to_another_branch() -> None:
    frame = pd.DataFrame({"alive": True, "old": NUMBERS[:, 1] > 1, "size": NUMBERS[:, 2]})  # none is False
    both = ColumnTransformer([("code", OneHotEncoder(), ["alive"]), ("as it is", "passthrough", [*frame])])
    pipeline = make_pipeline(both, KNN).fit(frame, LABELS)
    expected = pipeline[:-1].transform(frame).astype(np.float32)
    assert features_of(knnkit.from_sklearn(pipeline).fitted, frame).rows.tolist() == expected.tolist()


def test_a_column_that_is_text_and_a_number_is_named() -> None:
    frame = pd.DataFrame({"grade": pd.Series(["1", "3"] * 60, dtype=object), "size": NUMBERS[:, 2]})
    for other in ("passthrough", StandardScaler()):
        both = ColumnTransformer([("code", OneHotEncoder(), ["grade"]), ("as it is", other, [*frame])])
        with pytest.raises(BuildError, match="the column 'grade' is text to one step, and a number to") as caught:
            knnkit.from_sklearn(make_pipeline(both, KNN).fit(frame, LABELS))
        assert "frame['grade'].astype(str)" in caught.value.hint


def test_none_and_nan_are_not_told_apart() -> None:
    rows = MIXED.copy()
    rows[:, 2] = np.where(RNG.random(120) < 0.1, None, SPECIES)
    with pytest.raises(BuildError, match="treats None and NaN as two categories"):
        imported(TEXTS["imputed, scaled and one-hot"], rows)


HELD: dict[str, Any] = {
    "linear": ColumnTransformer([("size", StandardScaler(), ["a", "b"])]),
    "by type": ColumnTransformer([("size", "passthrough", make_column_selector(dtype_include=float))]),
    "twice": FeatureUnion(
        [
            ("size", ColumnTransformer([("size", StandardScaler(), ["b"])])),
            ("kind", ColumnTransformer([("kind", OneHotEncoder(), ["kind"])])),
        ]
    ),
}


@pytest.mark.parametrize("name", sorted(HELD))
def test_a_dropped_column_may_hold_anything(name: str, tmp_path: Path) -> None:
    """A column of ids is text, and one that is always empty is not a number."""
    frame = pd.DataFrame({"id": [f"r{row}" for row in range(120)], "kind": SIZES, "gap": None, "last": "x"})
    frame = frame.assign(a=NUMBERS[:, 0], b=NUMBERS[:, 1])[["id", "a", "gap", "b", "kind", "last"]]
    pipeline = make_pipeline(clone(HELD[name]), KNN).fit(frame, LABELS)
    model = knnkit.from_sklearn(pipeline)
    cells = frame.to_numpy(object)
    cells[:, 5] = ["", "NaN", 3.5] * 40
    for found in features(model.fitted, cells)[:2]:
        raw = features_of(model.fitted, frame).rows
        assert found.shape == raw.shape
        assert np.allclose(found, raw, rtol=1e-6)
    reference = make_reference(model.fitted.spec, model.fitted.enrolment)
    assert np.allclose(reference.answer(raw).probabilities, pipeline.predict_proba(frame))


@pytest.mark.parametrize("kind", [np.number, float, ["float64"], np.floating])
@pytest.mark.parametrize("other", [object, "object", pd.CategoricalDtype])
@pytest.mark.filterwarnings("ignore:For backward compatibility", "ignore:Instantiating CategoricalDtype")
def test_columns_chosen_by_their_type_are_read_from_skops(kind: Any, other: Any, tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": NUMBERS[:, 0], "b": NUMBERS[:, 1], "kind": SIZES})
    frame = frame.astype({"kind": "category"}) if other is pd.CategoricalDtype else frame
    chosen = (make_column_selector(dtype_include=each) for each in (kind, other))
    parts = zip(("size", "kind"), (StandardScaler(), OneHotEncoder()), chosen)
    pipeline = make_pipeline(ColumnTransformer(list(parts)), KNN).fit(frame, LABELS)
    skops.io.dump(pipeline, tmp_path / "a.skops")
    assert knnkit.from_skops(tmp_path / "a.skops").fitted.table == knnkit.from_sklearn(pipeline).fitted.table


def test_a_release_of_dropped_columns_needs_no_test_rows(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": SIZES, "a": NUMBERS[:, 0], "b": NUMBERS[:, 1]})
    model = knnkit.from_sklearn(make_pipeline(clone(HELD["linear"]), KNN).fit(frame, LABELS))
    keys.generate(tmp_path / "key")
    model.build_release(tmp_path / "out", signing_key=tmp_path / "key.pem")
    golden = Golden.from_bytes((tmp_path / "out" / "golden.npz").read_bytes())
    assert json.loads(golden.raw.splitlines()[0])[0] == 0.0
    device = TfliteKNN(model.export(tmp_path / "model.tflite"))
    assert device.predict(frame).tolist() == model.predict(frame).tolist()


@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_hamming_counts_the_columns_that_differ(weights: str, tmp_path: Path) -> None:
    rows = RNG.integers(0, 4, (150, 6)).astype(float)
    asked = np.concatenate([rows[:20], RNG.integers(0, 6, (60, 6))]).astype(float)  # 4 and 5 are new values
    estimator = KNeighborsClassifier(4, metric="hamming", weights=weights).fit(
        rows, LABELS[:1].repeat(150) + rows[:, 0]
    )
    model = knnkit.from_sklearn(estimator)
    far = (asked[:, np.newaxis] != rows).mean(axis=2)
    order = np.argsort(far, axis=1, kind="stable")[:, :4]  # by (distance, row)
    found = model.neighbors(asked)
    assert np.array_equal(found.indices, order)
    assert np.allclose(found.distances, np.take_along_axis(far, order, axis=1), atol=1e-6)
    clear = np.sort(far, axis=1)[:, 3] < np.sort(far, axis=1)[:, 4]  # scikit-learn leaves the order of ties open
    assert np.abs(model.predict_proba(asked) - estimator.predict_proba(asked))[clear].max() <= 1e-5
    with pytest.raises(BuildError, match="hamming behind transformers that compute numbers"):
        knnkit.from_sklearn(make_pipeline(StandardScaler(), estimator).fit(rows, LABELS[:1].repeat(150) + rows[:, 0]))


def test_neighbours_without_labels_are_imported() -> None:
    estimator = make_pipeline(StandardScaler(), NearestNeighbors(n_neighbors=4)).fit(NUMBERS)
    model = knnkit.from_sklearn(estimator)
    distances, indices = estimator[-1].kneighbors(estimator[:-1].transform(NUMBERS))
    assert np.array_equal(model.kneighbors(NUMBERS)[1], indices)
    assert np.allclose(model.kneighbors(NUMBERS)[0], distances, atol=1e-6)
    with pytest.raises(BuildError, match="no labels"):
        model.predict(NUMBERS)

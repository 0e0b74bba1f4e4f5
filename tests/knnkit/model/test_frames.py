"""Data frames of pandas and polars as people have them: columns by name, missing cells, categories, times."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow
import pytest
from sklearn.compose import make_column_transformer
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from support import palmer

import knnkit
from device_agent import TfliteKNN
from device_agent.shared.protocol.errors import BadInput
from knnkit.errors import BuildError, DataError
from knnkit.training.raw_cells import labelled_rows

ROWS, SPECIES = palmer.birds()[0]
FRAME = pd.DataFrame(ROWS)
NUMBERS = FRAME[palmer.NUMBERS].dropna()
LABELS = pd.Series(SPECIES)[NUMBERS.index]
POLICY = {"missing": "median", "categories": "one-hot"}


@pytest.mark.parametrize("make", [pd.DataFrame, lambda frame: pl.DataFrame(frame.to_dict("list"))])
def test_columns_are_taken_by_name(make: Any) -> None:
    frame = make(NUMBERS)
    model = knnkit.TfKNN(frame, 3, labels=np.array(LABELS))
    turned = frame[palmer.NUMBERS[::-1]]
    assert model.predict(turned).tolist() == model.predict(frame).tolist() == model.predict(NUMBERS.to_numpy()).tolist()
    with pytest.raises(DataError, match=r"there is no column 'bill_length_mm' \(nor 1 more\)"):
        model.predict(frame[palmer.NUMBERS[2:]])
    with pytest.raises(DataError, match="the columns are ") as caught:
        model.predict(make(NUMBERS.assign(extra=1.0)))
    assert model.predict(eval(caught.value.hint, {"rows": make(NUMBERS.assign(extra=1.0))})).tolist()


@pytest.mark.parametrize("kind", ["float32", "Float64", "string", "category", "object"])
def test_a_column_of_any_type_of_pandas_means_the_same(kind: str) -> None:
    """An index is not a column; nullable types, categories and booleans are cells like any others."""
    frame = FRAME.assign(tagged=pd.array([None if n % 7 == 0 else n % 2 == 0 for n in range(len(FRAME))], "boolean"))
    frame["mass"] = pd.array([None if cell != cell else int(cell) for cell in frame.pop("body_mass_g")], "Int64")
    plain = knnkit.TfKNN(frame, 5, labels=SPECIES, scale="standard", data=POLICY)
    changed = frame.set_index(pd.Index(range(5, len(frame) + 5), name="number"))
    for name in ("island", "sex") if kind in ("string", "category", "object") else palmer.NUMBERS[:3]:
        changed[name] = changed[name].astype(kind)
    model = knnkit.TfKNN(changed, 5, labels=pd.Series(SPECIES, dtype="category"), scale="standard", data=POLICY)
    names = plain.fitted.enrolment.feature_names
    assert {"island=Biscoe", "island=Dream", "sex=female", "sex=male", "tagged", "mass"} < {*names}
    assert model.fitted.enrolment.feature_names == names
    expected = plain.predict(frame).tolist()
    assert model.predict(changed).tolist() == model.predict(frame).tolist() == expected
    assert np.mean(np.array(expected) == SPECIES) > 0.95
    assert plain.predict(frame.astype(object).where(frame.notna(), None)).tolist() == expected


def test_a_frame_of_polars_means_the_same(tmp_path: Path) -> None:
    own = pl.DataFrame(ROWS).with_columns(pl.Series("species", SPECIES), pl.col("island").cast(pl.Categorical))
    model = knnkit.TfKNN(own, 5, labels="species", data=POLICY | {"drop": ["sex"]})
    like = knnkit.TfKNN(FRAME, 5, labels=SPECIES, data=POLICY | {"drop": ["sex"]})
    assert model.predict(own).tolist() == like.predict(FRAME).tolist()


def test_a_pipeline_takes_the_types_of_pandas() -> None:
    frame = NUMBERS.assign(island=FRAME["island"].astype("category"), tagged=pd.array(LABELS == "Gentoo", "boolean"))
    encode = make_column_transformer((OneHotEncoder(), ["island", "tagged"]), remainder="passthrough")
    pipeline = make_pipeline(encode, KNeighborsClassifier(3)).fit(frame, LABELS)
    model = knnkit.from_sklearn(pipeline)
    assert model.predict(frame[frame.columns[::-1]]).tolist() == pipeline.predict(frame).tolist()


TIMES = pd.date_range("2026-01-01", periods=len(NUMBERS))


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (NUMBERS.assign(when=TIMES), "row 0, column 'when': 2026-01-01 00:00:00 is a time, not a number"),
        (pd.DataFrame({"when": TIMES}), "row 0, column 'when': 2026-01-01 00:00:00 is a time, not a number"),
        (pd.DataFrame({"took": TIMES - TIMES[0]}), "row 0, column 'took': 0 days 00:00:00 is a time, not a number"),
        (pl.DataFrame({"n": [1.5], "when": [datetime(2026, 1, 1)]}), "row 0, column 'when': 2026-01-01 00:00:00 is a"),
        (pl.DataFrame({"n": [1], "took": [timedelta(1)]}), "row 0, column 'took': 1 day, 0:00:00 is a time"),
        (pl.DataFrame({"n": [1], "at": [time(1)]}), "row 0, column 'at': 01:00:00 is a time"),
        (NUMBERS.assign(island="Dream"), "row 0, column 'island': 'Dream' is not a number"),
        (NUMBERS.assign(n=pd.array([1, None, *range(2, len(NUMBERS))], "Int64")), "row 1, column 'n': the cell is"),
    ],
)  # fmt: skip
def test_what_is_not_a_number_is_named_by_row_and_column(frame: Any, said: str) -> None:
    with pytest.raises(DataError) as caught:
        knnkit.TfKNN(frame, 3, labels=np.array(LABELS)[: len(frame)])
    assert said in str(caught.value)
    assert caught.value.hint
    model = knnkit.TfKNN(np.zeros((3, frame.shape[1])), 1, labels=[0, 1, 2], feature_names=list(frame.columns))
    with pytest.raises(DataError) as caught:
        model.predict(frame)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("frame", "data", "said", "hint"),
    [
        (FRAME.assign(when=pd.Timestamp(0)), POLICY | {"categories": {"island": "one-hot", "sex": "one-hot"}},
         "'1970-01-01 00:00:00' is not a number", "data={'drop': ['when']}"),
        (FRAME, {}, "cells cannot be read", "data={'categories': {'island': 'one-hot', 'sex': 'one-hot'}, 'missing': "),
        (FRAME, {"missing": "mean"}, "found 'mean', expected refuse, drop, median, constant", "median"),
        (FRAME, {"fill": 0}, "data has no key 'fill'", "missing"),
        (FRAME.assign(gone=None), POLICY, "the column 'gone' has no value", "data={'drop': ['gone']}"),
        (FRAME.assign(both=[*range(1, len(FRAME)), "a"]), POLICY, "'both' holds values of several types", "astype"),
    ],
)  # fmt: skip
def test_what_a_frame_lacks_is_said_in_keys(frame: pd.DataFrame, data: Any, said: str, hint: str) -> None:
    with pytest.raises(DataError) as caught:
        knnkit.TfKNN(frame, 3, labels=SPECIES, data=data)
    assert said in str(caught.value)
    assert hint in caught.value.hint


@pytest.mark.parametrize("gap", [None, np.nan, pd.NA])
def test_a_missing_label_is_named(gap: Any) -> None:
    labels: list[Any] = [*SPECIES[:3], gap, *SPECIES[4:]]
    for given in (labels, pd.Series(labels), pd.Series(labels, dtype="string")):
        with pytest.raises(DataError, match="row 3: the label is missing"):
            knnkit.TfKNN(np.zeros((len(labels), 2)), 3, labels=given)


def test_a_frame_takes_every_setting_that_an_array_takes() -> None:
    frame = pd.DataFrame({"a": [0.0, 1.0, 3.0, 7.0], "b": [0.0, 2.0, 3.0, 1.0]})
    given: dict[str, Any] = {"labels": ["x", "x", "y", "y"], "metric": "minkowski", "p": 8}
    queries = [[2.0, 5.0], [6.0, 6.0]]
    like, model = knnkit.TfKNN(frame.to_numpy(), 2, **given), knnkit.TfKNN(frame, 2, **given, data={})
    assert model.neighbors(queries).distances.tolist() == like.neighbors(queries).distances.tolist()
    given = {"labels": ["x", "x", "y", "y"], "radius": 0.5, "outlier_label": "nowhere"}
    assert knnkit.TfKNN(frame, 2, **given, data={}).predict(queries).tolist() == ["nowhere", "nowhere"]
    with pytest.raises(BuildError, match="k is 5, but there are 4"):
        knnkit.TfKNN(frame, 5, labels=["x", "x", "y", "y"], data={})
    with pytest.raises(DataError, match="no labels"):
        knnkit.TfKNN(frame, 2, data={})
    with pytest.raises(DataError, match="labels"):
        knnkit.TfKNN(frame, 2, labels=[["x", "1"]] * 4, data={})


def test_a_column_of_a_frame_is_named_with_and_without_data() -> None:
    frame = NUMBERS.assign(species=LABELS)
    expected = knnkit.TfKNN(NUMBERS, 3, labels=np.array(LABELS)).predict(NUMBERS).tolist()
    for data in (None, {}, POLICY):
        assert knnkit.TfKNN(frame, 3, labels="species", data=data).predict(NUMBERS).tolist() == expected
    for wrong in (["species", "island"], SPECIES[:5]):
        with pytest.raises(DataError, match=rf"228 rows, but labels of shape \({len(wrong)},\)"):
            knnkit.TfKNN(frame, 3, labels=wrong, data=POLICY)


NUMBER_TARGETS = ["bill_length_mm", "body_mass_g"]


@pytest.mark.parametrize("make", [pd.DataFrame, pl.from_pandas])
@pytest.mark.parametrize("targets", [NUMBER_TARGETS, "body_mass_g"])
def test_a_regression_takes_a_frame_as_a_classifier_does(make: Any, targets: Any, tmp_path: Path) -> None:
    """Its values are those of scikit-learn on the frame that was filled and encoded by hand."""
    known, rng = FRAME.dropna(subset=NUMBER_TARGETS), np.random.default_rng(3)
    known = known.assign(flipper_length_mm=known["flipper_length_mm"].where(np.arange(len(known)) % 9 > 0))
    known["noise"] = rng.normal(size=len(known))  # no two rows are equal
    features = known.drop(columns=targets)
    filled = features.fillna({name: features[name].median() for name in features.select_dtypes("number")})
    filled["sex"] = features["sex"].fillna(features["sex"].mode()[0])
    filled, other = pd.get_dummies(filled).astype(float), rng.normal(size=len(known))
    like = KNeighborsRegressor(5, weights="distance").fit(filled, known[targets])
    model = knnkit.TfKNN(make(known), 5, targets=targets, weights="distance", data=POLICY)
    queries = make(features.assign(noise=other))
    assert np.allclose(model.predict(queries), like.predict(filled.assign(noise=other)), rtol=1e-6)
    device = TfliteKNN(model.export(tmp_path / "model.tflite"))
    assert device.info.targets is not None
    assert device.info.targets.names == tuple(np.atleast_1d(targets).tolist())
    assert np.allclose(device.predict(queries), model.predict(queries))
    beside = knnkit.TfKNN(make(features), 5, targets=make(known)[targets], weights="distance", data=POLICY)
    assert beside.fitted.enrolment.target_names == device.info.targets.names
    assert np.array_equal(beside.predict(queries), model.predict(queries))


@pytest.mark.parametrize("kind", [pd, pl])
def test_targets_have_the_names_of_their_series_or_columns(kind: Any) -> None:
    frame = kind.DataFrame({"x": [0.0, 1.0, 3.0], "y": [2.0, 4.0, 8.0], "z": [1.0, 5.0, 7.0]})
    rows, both = frame[["x"]], frame[["y", "z"]]
    models = [knnkit.TfKNN(rows, 1, targets=given) for given in (frame["y"], frame[["y"]], both, both.to_numpy())]
    models.append(knnkit.TfKNN(frame, 1, targets=["y", "z"]))
    names = [model.fitted.enrolment.target_names for model in models]
    assert names == [("y",), ("y",), ("y", "z"), ("target_0", "target_1"), ("y", "z")]
    assert models[-1].predict([[2.9]]).tolist() == [[8.0, 7.0]]
    assert models[0].score(rows, frame["y"]) == 1.0


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame, pyarrow.table])
@pytest.mark.parametrize("word", ["targets", "labels"])
def test_several_right_answers_of_a_frame_go_by_name(word: str, kind: Any, tmp_path: Path) -> None:
    cells = {"b": [3, 4, 3, 5], "a": [1, 2, 2, 1]}
    rows, given = np.arange(4.0)[:, np.newaxis], kind(cells)
    host = knnkit.TfKNN(rows, 1, **{word: given})
    device = TfliteKNN(host.export(tmp_path / "m.tflite"))
    right, wrong = kind({"a": cells["a"], "c": cells["a"], "b": cells["b"]}), kind({"b": cells["b"], "c": cells["a"]})
    for model in (host, device):
        assert model.score(rows, right) == model.score(rows, given) == model.score(rows, np.array([*cells.values()]).T)
        assert model.score(rows, right) == 1.0
        with pytest.raises((DataError, BadInput), match="labels or targets have no column 'a'; the model answers b, a"):
            model.score(rows, wrong)
    unnamed = knnkit.TfKNN(rows, 1, **{word: np.array([*cells.values()]).T})
    assert unnamed.score(rows, given) == 1.0
    held_out = labelled_rows(host.fitted, (rows, right))
    assert held_out is not None
    assert np.array_equal(held_out.targets, host.fitted.enrolment.targets)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="labels or targets have no column 'a'"):
        labelled_rows(host.fitted, (rows, wrong))


@pytest.mark.parametrize(
    ("targets", "data", "said", "hint"),
    [
        ("body_mas_g", POLICY, "no column 'body_mas_g'", "did you mean 'body_mass_g'"),
        ("body_mass_g", POLICY, "column 'body_mass_g': the cell is empty", "frame.dropna(subset=['body_mass_g'])"),
        (["body_mass_g", "island"], POLICY, "'Torgersen' is not a number", "labels='island' instead of targets="),
        (["body_mass_g"], POLICY | {"drop": ["body_mass_g"]}, "it cannot be left out", "remove it from drop"),
        (["sex", "sex"], POLICY, "both called 'sex'", ""),
        (np.arange(3.0), POLICY, "229 rows, but targets of shape (3,)", "one number"),
    ],
)  # fmt: skip
def test_targets_of_a_frame_that_cannot_be_used_are_named(targets: Any, data: Any, said: str, hint: str) -> None:
    with pytest.raises(DataError) as caught:
        knnkit.TfKNN(FRAME, 3, targets=targets, data=data)
    assert said in str(caught.value)
    assert hint in caught.value.hint


def test_names_beside_a_frame_s_own_are_refused() -> None:
    for how in ({"labels": "island"}, {"labels": SPECIES, "data": POLICY}, {"targets": ["body_mass_g"]}):
        with pytest.raises(DataError, match="feature_names does not go with data=") as caught:
            knnkit.TfKNN(FRAME, 3, feature_names=["a", "b"], **how)
        assert "rename the columns" in caught.value.hint


def test_a_target_of_lists_is_refused() -> None:
    frame = pl.DataFrame({"x": [0.0, 1.0], "both": [[0.0, 1.0], [1.0, 0.0]]})
    with pytest.raises(DataError, match="the target 'both' is a column of lists"):
        knnkit.TfKNN(frame, 1, targets="both")


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame, pyarrow.table])
@pytest.mark.parametrize("data", [{}, {"missing": "median"}])
def test_lists_of_a_frame_are_features_for_host_and_device(kind: Any, data: Any, tmp_path: Path) -> None:
    points = np.random.default_rng(4).normal(size=(40, 3))
    labels = ["up" if first > 0 else "down" for first in points[:, 0]]
    cells = {"vector": points.tolist(), "x": points[:, 0].tolist()}
    host = knnkit.TfKNN(kind(cells), k=1, labels=labels, data=data)
    host.export(tmp_path / "m.tflite")
    turned = kind(dict(reversed(cells.items())))
    assert host.score(turned, labels) == TfliteKNN(tmp_path / "m.tflite").score(turned, labels) == 1.0
    for wrong in ([[1.0, 2.0]], [None]):
        with pytest.raises(DataError, match="there is no column 'vector_0'"):
            host.predict(kind({"vector": wrong, "x": [1.0]}))


@pytest.mark.parametrize("data", [{}, {"missing": "median"}])
def test_odd_columns_beside_lists_are_refused_or_empty(data: Any) -> None:
    cells = {"x": [0.0, 1.0], "vector": [[0.0, 1.0], [1.0, 0.0]]}
    host = knnkit.TfKNN(pd.DataFrame(cells), k=1, labels=["a", "b"], data=data)
    frame = pd.DataFrame(cells)
    with pytest.raises(DataError, match="two columns have the name 'x'"):
        host.predict(frame[["x", "x", "vector"]])
    with pytest.raises(DataError, match="there is no column 'vector_0'"):
        host.predict(frame.assign(vector=["57", "75"]))
    assert len(host.predict(frame.iloc[:0])) == 0

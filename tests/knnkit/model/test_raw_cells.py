"""TfliteKNN takes the frames that TfKNN takes, and answers alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PowerTransformer
from support import palmer

from device_agent import TfliteKNN
from device_agent.shared.protocol.errors import BadInput
from knnkit import TfKNN, from_sklearn
from knnkit.errors import DataError

ROWS, SPECIES = palmer.birds()[0]
FRAME = pd.DataFrame(ROWS)
RUNTIMES = ["auto", "ai_edge_litert", "numpy"]
FORMS: dict[str, Any] = {
    "pandas": lambda frame: frame,
    "turned": lambda frame: frame[frame.columns[::-1]].assign(more="x"),
    "polars": lambda frame: pl.DataFrame(json.loads(frame.to_json(orient="records"))),
    "dictionaries": lambda frame: json.loads(frame.to_json(orient="records")),
    "one": lambda frame: json.loads(frame.to_json(orient="records"))[3],
    "objects": lambda frame: frame.to_numpy(object),
    "lists": lambda frame: frame.astype(object).where(frame.notna(), None).to_numpy().tolist(),
    "numbers": lambda frame: frame[palmer.NUMBERS].to_numpy(),
}  # fmt: skip


def _pipeline() -> Any:
    numbers = make_pipeline(SimpleImputer(), PowerTransformer())
    words = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    encode = make_column_transformer((numbers, palmer.NUMBERS), (words, ["island", "sex"]))
    return from_sklearn(make_pipeline(encode, KNeighborsClassifier(5)).fit(FRAME, SPECIES))


def _of(frame: pd.DataFrame = FRAME, **keys: Any) -> Any:
    return lambda: TfKNN(frame, 5, labels=SPECIES, scale="standard", data=keys)


MODELS: dict[str, Any] = {
    "median": _of(FRAME[palmer.NUMBERS], missing="median"),
    "far": _of(FRAME[palmer.NUMBERS].assign(when=np.arange(len(FRAME)) * 0.01 + 1.7e9), missing="median"),
    "one-hot": _of(missing="median", categories="one-hot", unknown_category="ignore"),
    "ordinal": _of(missing="constant", categories={"island": ["Dream", "Biscoe", "Torgersen"], "sex": "one-hot"}),
    "refused": _of(missing="drop", categories="one-hot"),
    "dropped": _of(missing="median", drop=["sex", "island"]),
    "pipeline": _pipeline,
}


@pytest.fixture(scope="module", params=MODELS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    host = MODELS[request.param]()
    return host, host.export(tmp_path_factory.mktemp("model") / "knn.tflite")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_frames_get_the_answers_of_the_host(exported: Any, runtime: str) -> None:
    host, path = exported
    device = TfliteKNN(path, runtime=runtime)
    names = [column.name for column in device.info.table.columns]
    frame = FRAME.assign(when=np.arange(len(FRAME)) * 0.01 + 1.7e9)[names]
    frames = {"known": frame, "complete": frame.dropna()}
    if "island" in names:
        frames["unknown"] = frame.dropna().assign(island="Atlantis")
    outcomes = set()
    for form, make in FORMS.items():
        for kind, rows in frames.items():
            if form == "numbers" and (len(names) != len(palmer.NUMBERS) or device.info.table.transforms):
                continue
            given = make(rows)
            try:
                expected = host.predict(given).tolist()
            except DataError:
                expected = "refused"
            try:
                found: Any = device.predict(given).tolist()
                assert np.array_equal(device.neighbors(given).indices, device.classify(given).indices)
            except BadInput as error:
                found = "refused" if error.hint and {"row", "column"} < {*str(error).split()} else str(error)
            assert found == expected, (form, kind)
            outcomes.add(found == "refused")
    assert False in outcomes
    assert host.predict(frame[:0]).shape == device.predict(frame[:0]).shape == (0,)


def test_features_encoded_before_stay_features(tmp_path: Path) -> None:
    host = MODELS["one-hot"]()
    device = TfliteKNN(host.export(tmp_path / "knn.tflite"))
    rows = FRAME.dropna()
    expected = host.predict(rows).tolist()
    names = device.info.feature_names
    parts = [name.partition("=") for name in names]
    numbers = np.array(
        [
            [row[column] == category if is_hot else float(row[column]) for column, is_hot, category in parts]
            for row in rows.to_dict("records")
        ],
        np.float32,
    )
    for given in (numbers, numbers.tolist(), numbers.astype(float), pd.DataFrame(numbers, columns=list(names))):
        assert device.predict(given).tolist() == expected
    assert device.predict(numbers[:1]).tolist() == expected[:1]
    with pytest.raises(BadInput, match=f"rows of {len(FRAME.columns)} cells") as caught:
        device.predict([[1.0, 2.0]])
    assert f"a frame with these columns: {FRAME.columns[0]}, " in caught.value.hint
    numbers[2, 1] = np.nan
    with pytest.raises(BadInput, match="row 2, column 1: nan"):
        device.predict(numbers)
    with pytest.raises(BadInput, match="there is no column 'sex'"):
        device.predict(rows.drop(columns=["sex"]))
    with pytest.raises(BadInput, match="row 1, column 'bill_length_mm': 'long' is not a number"):
        device.predict(rows.assign(bill_length_mm=["1", "long", *["2"] * (len(rows) - 2)]))


def _of_arrays(step: Any) -> Any:
    """A pipeline that was fitted on an array, and keeps its width."""
    rows = np.exp(np.random.default_rng(0).normal(size=(80, 3)))
    return from_sklearn(make_pipeline(step, KNeighborsClassifier(3)).fit(rows, np.arange(80) % 4)), rows


def _ordinal() -> Any:
    frame = pd.DataFrame({"size": ["1", "2", "3", "4"] * 20, "a": np.arange(80) / 8})
    keys = {"categories": {"size": ["2", "1", "4", "3"]}}
    model = TfKNN(frame, 1, labels=np.arange(80) % 4, data=keys)
    return model, np.column_stack([np.arange(1, 5).repeat(20), np.arange(80) / 8])


@pytest.mark.parametrize("make", [lambda: _of_arrays(PowerTransformer()), _ordinal], ids=["pipeline", "ordinal"])
def test_numbers_as_many_as_columns_are_cells_on_both_sides(make: Any, tmp_path: Path) -> None:
    host, rows = make()
    path = host.export(tmp_path / "knn.tflite")
    for given in (rows, rows.astype(np.float32), rows.tolist(), rows[:1], rows[3:4].astype(np.float32)):
        expected, nearest = host.predict(given).tolist(), host.neighbors(given).indices
        for device in (TfliteKNN(path, runtime=runtime) for runtime in RUNTIMES):
            assert device.predict(given).tolist() == expected
            assert np.array_equal(device.neighbors(given).indices, nearest)


def test_the_largest_numbers_are_answered_without_a_warning(tmp_path: Path) -> None:
    rows = np.random.default_rng(1).normal(size=(40, 4))
    host = TfKNN(rows, 3, labels=np.arange(40) % 3, reject=0.9)
    device = TfliteKNN(host.export(tmp_path / "knn.tflite"))
    for value in (3.4e38, -3.4e38, 1e20, 1e-38, 5e-324):
        for given in (np.full((2, 4), value), np.full((1, 4), value, np.float32)):
            assert host.predict(given).tolist() == device.predict(given).tolist()
            assert np.isfinite(host.predict_proba(given)).all()
            np.testing.assert_allclose(host.neighbors(given).distances, device.neighbors(given).distances, 1e-6)

"""A regression answers on a device as scikit-learn's does; what has no meaning for it is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support.device_process import DeviceProcess
from support.runtimes import RUNTIMES

import knnkit
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.golden.judge import judge
from device_agent.shared.protocol.model_info import Gates
from device_agent.shared.protocol.record import replace
from knnkit.config import parse
from knnkit.data.dataset import dataset
from knnkit.data.targets import with_targets
from knnkit.errors import BuildError, ConfigError, DataError
from knnkit.model.golden import make_golden
from knnkit.training import source

RNG = np.random.default_rng(17)
ROWS = RNG.normal(size=(160, 5))
TARGETS = np.column_stack([ROWS @ RNG.normal(size=5) * 40, 4.86e6 + np.sin(ROWS[:, 0])])
#: New rows, and training rows: an exact match takes all the weight.
QUERIES = np.concatenate([RNG.normal(size=(60, 5)), ROWS[:20]])
KNN = KNeighborsRegressor
REGRESSIONS: dict[str, tuple[Any, Any]] = {
    "two, by distance": (KNN(5, weights="distance"), TARGETS),
    "scaled, manhattan": (make_pipeline(StandardScaler(), KNN(3, p=1, weights="distance")), TARGETS[:, 1]),
    "mapped": (make_pipeline(PCA(3), KNN(5, weights="distance")), TARGETS),
    "searched, cosine": (GridSearchCV(KNN(metric="cosine"), {"n_neighbors": [2, 3]}, cv=3), TARGETS[:, 0]),
}


@pytest.mark.parametrize("name", sorted(REGRESSIONS))
def test_values_are_those_of_scikit_learn(name: str, device: DeviceProcess, tmp_path: Path) -> None:
    estimator, targets = REGRESSIONS[name]
    expected = estimator.fit(ROWS, targets).predict(QUERIES)
    within = 1e-6 * np.ptp(targets, axis=0)
    model = knnkit.from_sklearn(estimator, name="wifi")
    assert model.predict(QUERIES).shape == expected.shape
    assert (np.abs(model.predict(QUERIES) - expected) <= within).all()
    assert model.score(QUERIES, expected) > 1 - 1e-9
    path = model.export(tmp_path / "model.tflite")
    for runtime in RUNTIMES:
        found = device.classify(path, QUERIES.astype(np.float32), runtime=runtime)
        assert (np.abs(found.predicted - expected) <= within).all(), runtime


def test_rows_that_tie_are_taken_by_their_number() -> None:
    rows = np.zeros((6, 2))
    model = knnkit.TfKNN(rows, 3, targets=np.arange(6.0))
    assert model.predict([[0.0, 0.0], [1.0, 0.0]]).tolist() == [1.0, 1.0]
    assert repr(model).startswith("<TfKNN 'model' from arrays: 6 rows x 2 features, targets target, k = 3")


def test_a_rejected_row_has_no_value() -> None:
    model = knnkit.TfKNN(ROWS, 3, targets=TARGETS, reject=0.9)
    far = np.concatenate([ROWS[:1], ROWS[:1] + 1000.0]).astype(np.float32)
    assert np.isnan(model.predict(far)).tolist() == [[False, False], [True, True]]
    with pytest.raises(DataError, match="1 of 2 rows are rejected and have no value"):
        model.score(far, TARGETS[:2])


def test_skops_brings_a_regression_and_a_test_file_names_its_targets(tmp_path: Path) -> None:
    skops.io.dump(KNN(3).fit(ROWS, TARGETS), tmp_path / "wifi.skops")
    header = ",".join([*(f"feature_{place}" for place in range(5)), "east", "north"])
    np.savetxt(tmp_path / "test.csv", np.hstack([ROWS, TARGETS])[:30], "%.17g", ",", header=header, comments="")
    text = "model: {name: wifi, data: {skops: wifi.skops}, test: {file: test.csv, target: [east, north]}}"
    made = source.load(parse.parse(text, base=tmp_path).builds()[0])
    assert made.held_out is not None
    assert made.held_out.targets is not None
    assert made.held_out.targets.tolist() == TARGETS[:30].tolist()
    assert made.training.target_names == ("east", "north")


def test_a_wrong_value_is_different_and_an_error_above_its_gate_is_named() -> None:
    made = knnkit.TfKNN(ROWS[:120], 3, targets=TARGETS[:120])
    built = made.build()
    held_out = with_targets(dataset(ROWS[120:], None), TARGETS[120:])
    golden = make_golden(built, held_out, made.fitted.training_rows())
    golden = Golden.from_bytes(golden.to_bytes())
    assert golden.values is not None
    k, answers = built.info.k, built.reference.answer(golden.rows)
    told = replace_answers(answers, k)
    gates = Gates(rmse={"target_1": 1e9}, max_error={"default": 1e-3, "target_9": 1.0})
    verdict = judge(golden, told, built.info, gates, values=golden.values)
    assert (verdict.different, verdict.accuracy, [each.rows for each in verdict.errors]) == (0, None, [40, 40])
    assert [text.partition(":")[0] for text in verdict.failures] == [
        "max_error of 'target_9'", "max_error of 'target_0'", "max_error of 'target_1'",
    ]  # fmt: skip
    off = golden.values.copy()
    off[7, 1] += 1e-3 * np.ptp(TARGETS[:, 1])
    verdict = judge(golden, told, built.info, Gates(), values=off)
    assert [row.row for row in verdict.differences] == [7]
    unknown = replace(golden, targets=np.full_like(golden.values, np.nan))
    assert judge(unknown, told, built.info, Gates(rmse={"default": 1.0}), values=golden.values).failures == (
        "rmse: there is a gate, but no evaluation row has known targets",
    )


def replace_answers(answers: Any, k: int) -> Any:
    """Returns answers as a device gives them."""
    cut = {"indices": answers.indices[:, :k], "distances": answers.distances[:, :k]}
    return SimpleNamespace(**{**vars(answers), **cut})


@pytest.mark.parametrize(
    ("data", "more", "said"),
    [
        ("{file: a.csv, label: x, target: y}", "", "either `label` (classes) or `target` (numbers)"),
        ("{file: a.csv, target: y}", ", label_sets: 0.9", "leave `label_sets` out"),
        ("{file: a.csv, target: y}", ", reduce: condensed", "leave `reduce` out"),
        ("{file: a.csv, target: y}", ", split: stratified", "leave `split` out"),
        ("{file: a.csv, target: [y, y]}", "", "'y' is listed twice"),
    ],
)
def test_keys_of_classes_are_refused(data: str, more: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse.parse(f"model: {{name: m, data: {data}{more}}}")
    assert said in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ("1.5,2,here\n1,2,3\n", "line 2, column 'y': 'here' is not a number"),
        ("1.5,2,nan\n1,2,3\n", "line 2, column 'y': 'nan' stands for a missing value"),
        ("1.5,2,\n1,2,3\n", "line 2: the target ('y') is empty"),
    ],
)
def test_a_target_that_is_no_number_is_named(cells: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b,y\n" + cells)
    text = "model: {name: m, data: {file: a.csv, target: y}, test: 0, k: 1}"
    with pytest.raises(DataError) as caught:
        source.load(parse.parse(text, base=tmp_path).builds()[0])
    assert said in str(caught.value)


def test_labels_and_targets_are_one_or_the_other() -> None:
    with pytest.raises(DataError, match="labels or targets, not both"):
        knnkit.TfKNN(ROWS, labels=["a"] * 160, targets=TARGETS)
    with pytest.raises(DataError, match="160 rows, but targets of shape"):
        knnkit.TfKNN(ROWS, targets=TARGETS[:7])
    with pytest.raises(BuildError, match="no labels"):
        knnkit.TfKNN(ROWS, targets=TARGETS).predict_proba(ROWS)


def test_one_target_may_stand_in_a_table_of_one_column() -> None:
    model = knnkit.TfKNN(ROWS, targets=TARGETS[:, :1])
    assert model.score(QUERIES, TARGETS[: len(QUERIES), :1]) == model.score(QUERIES, TARGETS[: len(QUERIES), 0])

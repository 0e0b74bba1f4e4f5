"""Several label columns are voted one by one, as in scikit-learn; what needs one label for each row is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support.device_process import DeviceProcess
from support.runtimes import RUNTIMES, TFLITE

import knnkit
from device_agent.shared.golden.error_gates import scores_of
from device_agent.shared.protocol.model_info import Gates
from knnkit.config import parse
from knnkit.errors import BuildError, ConfigError, DataError
from knnkit.training import source

RNG = np.random.default_rng(117)
ROWS = RNG.normal(size=(180, 5))
KIND = (ROWS[:, 0] > 0.3).astype(int) + 2 * (ROWS[:, 1] > 0)
LABELS = np.column_stack([np.array(["fir", "ash", "\u00e9rable", "oak"])[KIND], RNG.choice(["sick", "well"], 180)])
#: Columns of numbers, of which one has negative ones.
NUMBERS = np.column_stack([KIND, RNG.integers(-1, 2, 180), RNG.integers(0, 7, 180)])
QUERIES = np.concatenate([RNG.normal(size=(60, 5)), ROWS[:20]])
KNN = KNeighborsClassifier
CLASSIFIERS: dict[str, tuple[Any, Any]] = {
    "votes that tie": (KNN(4), LABELS),
    "by distance": (KNN(5, weights="distance"), NUMBERS),
    "scaled, manhattan": (make_pipeline(StandardScaler(), KNN(3, p=1, weights="distance")), LABELS),
    "searched, mapped": (GridSearchCV(make_pipeline(PCA(3), KNN()), {"pca__n_components": [2, 3]}, cv=2,
                                      scoring=lambda *_: 1.0), NUMBERS),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CLASSIFIERS))
def test_each_column_is_answered_as_in_scikit_learn(name: str, device: DeviceProcess, tmp_path: Path) -> None:
    estimator, labels = CLASSIFIERS[name]
    expected, shares = estimator.fit(ROWS, labels).predict(QUERIES), estimator.predict_proba(QUERIES)
    model = knnkit.from_sklearn(estimator, name="trees")
    assert model.predict(QUERIES).tolist() == expected.tolist()
    assert model.score(QUERIES, expected) == 1.0
    assert model.predict(QUERIES[:0]).shape == (0, labels.shape[1])
    for found, column, own, classes in zip(model.predict_proba(QUERIES), shares, model.classes_, estimator.classes_):
        assert np.abs(found - column).max() <= 1e-5
        assert own.tolist() == classes.tolist()
    path = model.export(tmp_path / "model.tflite")
    for runtime in RUNTIMES:
        found = device.classify(path, QUERIES.astype(np.float32), runtime=runtime)
        assert found.predicted.tolist() == expected.tolist(), runtime


def test_votes_that_float32_cannot_tell_apart_are_counted_in_float64(device: DeviceProcess, tmp_path: Path) -> None:
    centres = (RNG.integers(0, 40, (300, 4)) * 2).astype(np.float32)
    centres = np.unique(centres, axis=0)
    ways = RNG.normal(size=(2, len(centres), 4))
    pairs = (centres + 0.25 * ways / np.linalg.norm(ways, axis=2, keepdims=True)).astype(np.float32)
    labels = RNG.choice(["a", "b", "c"], (2 * len(centres), 2))
    model = knnkit.TfKNN(np.concatenate(pairs), 2, labels=labels, weights="distance")
    exact = model._reference.answer(centres)
    near, (first, second) = exact.distances[:, :2], labels[exact.indices[:, :2].T]
    even = np.isclose(near[:, 0], near[:, 1], rtol=1e-12, atol=0.0)[:, np.newaxis]
    expected = np.where(even & (second < first), second, first)
    assert 1e-9 < np.abs(near[:, 1] / near[:, 0] - 1).max() < 1e-4, "float32 cannot tell a pair apart with certainty"
    assert (expected != np.where(second < first, second, first)).any(), "nor do all of them tie"
    assert model.predict(centres).tolist() == expected.tolist()
    found = device.classify(model.export(tmp_path / "model.tflite"), centres, runtime=TFLITE[0])
    assert found.predicted.tolist() == expected.tolist()


def test_a_rejected_row_is_unknown_in_every_column() -> None:
    model = knnkit.TfKNN(ROWS, 3, labels=LABELS, reject=0.95)
    assert model.predict([*ROWS[:1], ROWS[0] + 100.0])[1].tolist() == ["unknown", "unknown"]
    assert repr(model).startswith("<TfKNN 'model' from arrays: 180 rows x 5 features, labels label_0, label_1, k = 3")


def write(path: Path, rows: Any, labels: Any) -> None:
    lines = [[*map(repr, row), *map(str, own)] for row, own in zip(rows.tolist(), labels.tolist())]
    text = "".join(",".join(line) + "\n" for line in [["a", "b", "c", "d", "e", "tree", "health"], *lines])
    path.write_text(text, encoding="utf-8")


def material(folder: Path, model: str, gates: str = "{}") -> source.Material:
    return source.load(parse.parse(f"model: {{name: trees, {model}}}\ngates: {gates}", base=folder).builds()[0])


@pytest.mark.parametrize("extra", ["", ", missing: median", ", categories: one-hot"])
def test_a_file_has_several_label_columns(extra: str, tmp_path: Path) -> None:
    write(tmp_path / "trees.csv", ROWS, LABELS)
    write(tmp_path / "test.csv", ROWS[:9], LABELS[:9])
    data = f"data: {{file: trees.csv, label: [health, tree]{extra}}}, k: 5"
    made = material(tmp_path, f"{data}, test: {{file: test.csv}}").build(Gates(column_accuracy={"default": 0.5}))
    targets, own = made.model.info.targets, LABELS[:9, ::-1].tolist()
    assert targets is not None
    assert targets.classes == (("sick", "well"), ("ash", "fir", "oak", "\u00e9rable"))
    assert [(each.how, each.rows, len(each.support)) for each in targets.evaluations] == [
        ("file", 9, 2),
        ("file", 9, 4),
    ]
    right = (knnkit.TfKNN(ROWS, 5, labels=LABELS[:, ::-1]).predict(ROWS[:9]) == own).sum(axis=0)
    assert [(each.column, each.right) for each in scores_of(targets)] == [("health", right[0]), ("tree", right[1])]
    assert made.verdict.columns == scores_of(targets)
    with pytest.raises(BuildError, match=r"accuracy of 'health': .* is below the gate of 1"):
        material(tmp_path, f"{data}, test: 0.5").build(Gates(column_accuracy={"health": 1.0}))


def test_a_file_of_an_estimator_s_test_rows_names_its_columns(tmp_path: Path) -> None:
    skops.io.dump(KNN(3).fit(ROWS, LABELS), tmp_path / "trees.skops")
    write(tmp_path / "test.csv", ROWS[:40], LABELS[:40])
    found = material(tmp_path, "data: {skops: trees.skops}, test: {file: test.csv, label: [tree, health]}")
    assert found.held_out is not None
    assert found.imported is not None
    assert found.imported.enrolment.target_names == ("tree", "health")
    assert found.held_out.target_classes == (("ash", "fir", "oak", "\u00e9rable"), ("sick", "well"))
    with pytest.raises(DataError, match="answers 2 label columns, and `label` names 1"):
        material(tmp_path, "data: {skops: trees.skops}, test: {file: test.csv, label: tree}")
    write(tmp_path / "test.csv", ROWS[:1], np.array([["elm", "well"]]))
    with pytest.raises(DataError, match="the column 'tree' has a label that no training row has: 'elm'"):
        material(tmp_path, "data: {skops: trees.skops}, test: {file: test.csv, label: [tree, health]}")


@pytest.mark.parametrize("key", ["label_sets: 0.9", "reduce: condensed", "keep: {random: 5}", "enrol: {rows: 5}"])
def test_what_needs_one_label_for_each_row_is_refused(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse.parse(f"model: {{name: m, data: {{file: a.csv, label: [a, b]}}, {key}}}")
    word = key.partition(":")[0]
    assert f"`{word}` needs one label for each row, and `label` is a list" in str(caught.value)
    assert f"leave `{word}` out" in (caught.value.hint or "")


def test_gates_of_classes_and_of_columns_are_told_apart(tmp_path: Path) -> None:
    model = knnkit.TfKNN(ROWS, 3, labels=LABELS)
    key = tmp_path / "missing.pem"
    for made, gates, said in (
        (model, Gates(min_recall=0.5), "{min_recall} is for one label column, and the model has several"),
        (model, Gates(column_accuracy={"nope": 0.5}), "{column_accuracy} names 'nope', which the model does not have"),
        (model, Gates(rmse={"default": 0.5}), "{rmse} is for a regression, and the model answers labels"),
        (knnkit.TfKNN(ROWS, 3, labels=KIND), Gates(column_accuracy={"a": 0.5}), "and the model has one"),
        (knnkit.TfKNN(ROWS, 3, labels=KIND), Gates(rmse={"default": 0.5}), "and the model answers classes"),
        (knnkit.TfKNN(ROWS, 3, labels=KIND), Gates(recall={"9": 0.5}), "{recall} names '9', which the model does not"),
        (knnkit.TfKNN(ROWS, 3, targets=KIND), Gates(accuracy=0.5), "and the model answers numbers"),
        (knnkit.TfKNN(ROWS, 3, targets=KIND), Gates(rmse={"a": 0.5}), "{rmse} names 'a', which the model does not"),
    ):
        with pytest.raises(BuildError, match=said.replace("{", r"\{")):
            made.build_release(tmp_path / "out", signing_key=_NoSigner(key), gates=gates)


@pytest.mark.parametrize(
    ("keys", "hint"),
    [
        ({"radius": 1.0}, "leave radius out"),
        ({"class_weight": "balanced"}, "leave class_weight out"),
        ({"metric": "chebyshev"}, "metric: euclidean"),
        ({"weights": "tricube", "bandwidth": 1e-9}, "weights: uniform"),
        ({"reject": {"fir": 0.9, "default": 0.8}}, "reject: 0.99"),
    ],
)
def test_a_key_that_does_not_go_with_columns_is_named_in_the_hint(keys: dict[str, Any], hint: str) -> None:
    with pytest.raises(BuildError) as caught:  # before an answer that would ignore the key
        knnkit.TfKNN(ROWS, 3, labels=LABELS, **keys)
    assert hint in caught.value.hint


class _NoSigner:
    """A signer that is never asked: the gates are refused first."""

    public_pem = b""

    def __init__(self, path: Path) -> None:
        self.path = path

    def sign(self, message: bytes) -> bytes:
        raise AssertionError(message)

"""What a notebook does: TfKNN and TfliteKNN answer alike, take what scikit-learn takes, and say what is wrong."""

from __future__ import annotations

import contextlib
import copy
import pickle
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support.models import build_model

from device_agent import TfliteKNN
from device_agent.shared.protocol.errors import AgentError, BadInput, DeviceUnfit
from knnkit import TfKNN, from_sklearn
from knnkit.data.dataset import dataset
from knnkit.errors import BuildError, DataError, KnnkitError, UsageError
from knnkit.model.reference.spec import KnnSpec

RNG = np.random.default_rng(8)
ROWS = RNG.normal(size=(200, 4)).astype(np.float32)
LABELS = RNG.integers(0, 3, 200)
QUERIES = RNG.normal(size=(80, 4)).astype(np.float32)
WORDS = np.array(["ash", "beech", "cedar"])
#: Rows of which many are at the same distance: float32 leaves them in doubt.
GRID = RNG.integers(0, 4, (200, 4)).astype(np.float32)


class Frame:
    """As much of a data frame as is looked at."""

    def __init__(self, values: np.ndarray, columns: list[Any]) -> None:
        self._values, self.columns = values, columns

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, names: list[str]) -> Frame:
        return Frame(self._values[:, [self.columns.index(name) for name in names]], names)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.array(self._values, dtype=dtype)


@pytest.mark.parametrize(
    ("metric", "weights", "scale", "reject"),
    [
        ("euclidean", "uniform", "none", None),
        ("euclidean", "distance", "minmax", 0.9),
        ("sqeuclidean", "distance", "standard", None),
        ("manhattan", "uniform", "robust", 0.9),
        ("cosine", "distance", "none", None),
    ],
)
@pytest.mark.parametrize("rows", [ROWS, GRID], ids=["scattered", "tied"])
def test_the_host_answers_as_the_file_that_it_exports(
    metric: Any, weights: Any, scale: Any, reject: float | None, rows: np.ndarray, tmp_path: Path
) -> None:
    how = {"metric": metric, "weights": weights, "scale": scale, "reject": reject}
    host = TfKNN(rows, 5, labels=WORDS[LABELS], **how)
    device = TfliteKNN(host.export(tmp_path / "knn.tflite"))
    queries = np.concatenate([QUERIES, rows[:60], GRID[60:100]])
    found, expected = host.neighbors(queries), device.neighbors(queries)
    assert np.array_equal(np.sort(found.indices), np.sort(expected.indices))  # those that are tied may change places
    assert np.allclose(found.distances, expected.distances, rtol=1e-5, atol=1e-6)
    assert host.predict(queries).tolist() == device.predict(queries).tolist()
    assert np.abs(host.predict_proba(queries) - device.predict_proba(queries)).max() <= 1e-5
    assert host.classes_.tolist() == device.classes_.tolist() == WORDS.tolist()
    assert host.score(queries, host.predict(queries)) == device.score(queries, host.predict(queries)) == 1.0
    if rows is GRID:
        assert device.settled


def test_it_answers_as_scikit_learn() -> None:
    peer = KNeighborsClassifier(7).fit(ROWS, WORDS[LABELS])
    model = TfKNN(ROWS, k=7, labels=WORDS[LABELS])
    truth = WORDS[RNG.integers(0, 3, len(QUERIES))]
    assert model.predict(QUERIES).tolist() == peer.predict(QUERIES).tolist()
    assert np.abs(model.predict_proba(QUERIES) - peer.predict_proba(QUERIES)).max() <= 1e-6
    assert model.score(QUERIES, truth) == peer.score(QUERIES, truth)
    for asked in ({}, {"n_neighbors": 3}, {"queries": None}, {"queries": None, "n_neighbors": 1}):
        queries = {"queries": QUERIES} | asked
        distances, indices = model.kneighbors(**queries)
        expected = peer.kneighbors(queries["queries"], queries.get("n_neighbors"))
        assert np.array_equal(indices, expected[1])
        assert np.allclose(distances, expected[0], rtol=1e-5)
        assert np.array_equal(model.kneighbors(**queries, return_distance=False), indices)
    again = pickle.loads(pickle.dumps(model))
    assert again.predict(QUERIES).tolist() == peer.predict(QUERIES).tolist()
    assert model.predict(np.empty((0, 4))).shape == (0,)


def test_rows_of_zeros_are_as_far_from_each_other_as_in_scikit_learn() -> None:
    rows = np.concatenate([np.zeros((3, 4)), ROWS[:9]])
    distances, _ = TfKNN(rows, 2, metric="cosine").kneighbors()
    expected, _ = NearestNeighbors(n_neighbors=2, metric="cosine").fit(rows).kneighbors()
    assert np.allclose(distances, expected, atol=1e-6)


def test_the_file_is_what_build_writes_whatever_was_asked_before(tmp_path: Path) -> None:
    training = dataset(ROWS, LABELS)
    expected = build_model(KnnSpec("blobs", 3, scale="minmax"), training).data
    model = TfKNN(ROWS, labels=LABELS, scale="minmax", name="blobs")
    assert model.export(tmp_path / "before.tflite").read_bytes() == expected
    model.predict(QUERIES)
    assert model.export(str(tmp_path / "after.tflite")).read_bytes() == expected


@pytest.mark.parametrize(
    "labels",
    [
        LABELS.astype(np.uint8),
        LABELS.astype(float),
        WORDS[LABELS].astype(object),
        np.array(["7", "10", "007"])[LABELS],
        np.array(["1", "2", "None"])[LABELS].tolist(),
    ],
    ids=["uint8", "whole floats", "object", "digits", "list"],
)
def test_labels_come_back_as_they_were(labels: Any, tmp_path: Path) -> None:
    model = TfKNN(ROWS, 1, labels=labels)
    device = TfliteKNN(model.export(tmp_path / "knn.tflite"))
    expected = np.asarray(labels).tolist()
    assert model.predict(ROWS).tolist() == device.predict(ROWS).tolist() == expected
    assert model.score(ROWS, labels) == device.score(ROWS, labels) == 1.0
    assert model.classes_.tolist() == device.classes_.tolist() == np.unique(labels).tolist()


@pytest.mark.parametrize(
    "labels",
    [LABELS > 1, LABELS + 0.5, [1, "a"] * 100, [b"a"] * 200, LABELS + 1j],
    ids=["bool", "halves", "mixed", "bytes", "complex"],
)
def test_labels_that_would_change_are_refused(labels: Any) -> None:
    values = labels if isinstance(labels, np.ndarray) else np.array(labels, dtype=object)
    with pytest.raises(DataError, match="are not supported") as caught:
        TfKNN(ROWS, labels=values)
    assert "astype(str)" in caught.value.hint


@pytest.mark.parametrize(
    ("how", "error", "said", "hint"),
    [
        ({"k": 201}, BuildError, "k is 201, but there are 200 training rows", "k=200"),
        ({"k": 0}, BuildError, "k is 0", ""),
        ({"k": 2.5}, BuildError, "k is 2.5; a whole number", ""),
        ({"k": "3"}, BuildError, "k is '3'; a whole number", ""),
        ({"metric": "canberra"}, BuildError, "not one of euclidean", ""),
        ({"weights": np.exp}, BuildError, "not one of uniform, distance", ""),
        ({"scale": True}, BuildError, "not one of none", ""),
        ({"name": "a b"}, BuildError, "model name", ""),
        ({"rows": 5, "labels": None}, DataError, r"array of shape \(1,\)", ""),
        ({"rows": [[1.0], []], "labels": None}, DataError, "not a table of numbers", ""),
        ({"rows": ROWS[0]}, DataError, r"array of shape \(4,\)", ""),
        ({"rows": [[1.0, 2.0], [3.0]]}, DataError, "not a table of numbers", ""),
        ({"rows": [["a", "b"]] * 200}, DataError, "not a table of numbers", ""),
        ({"rows": csr_matrix(ROWS)}, DataError, "not a table of numbers", "rows.toarray()"),
        (
            {"rows": np.where(np.arange(800).reshape(200, 4) == 13, np.nan, ROWS)},
            DataError,
            r"row 3, column 'feature_1': the cell is empty \(nan\)",
            "drop",
        ),
        ({"rows": ROWS.astype(float) * 1e300}, DataError, "not a finite float32 number", ""),
        ({"labels": LABELS[:9]}, DataError, r"200 rows, but labels of shape \(9,\)", ""),
        ({"labels": LABELS[:, None]}, DataError, r"labels of shape \(200, 1\)", "labels.ravel()"),
        ({"feature_names": ["a", "b"]}, DataError, "2 feature names for 4 columns", ""),
    ],
)
def test_what_cannot_be_learnt_is_named_at_once(how: dict[str, Any], error: Any, said: str, hint: str) -> None:
    with pytest.raises(error, match=said) as caught:
        TfKNN(**({"rows": ROWS, "labels": LABELS} | how))
    assert hint in caught.value.hint


NAMED = ["height", "width", "depth", "weight"]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[TfKNN, TfliteKNN]:
    host = TfKNN(Frame(ROWS, NAMED), labels=LABELS)
    return host, TfliteKNN(host.export(tmp_path_factory.mktemp("named") / "knn.tflite"))


@pytest.mark.parametrize(
    ("queries", "said", "hint"),
    [
        (QUERIES[0], r"rows of 4 numbers, found an array of shape \(4,\)", "np.reshape(rows, (1, -1))"),
        (QUERIES[:, :3], r"rows of 4 numbers, found an array of shape \(80, 3\)", ""),
        ([[0.0, 1.0, np.nan, 3.0]], "row 0, column 2: nan is not a finite", ""),
        ([[0.0, 1e300, 2.0, 3.0]], "row 0, column 1: inf is not a finite", ""),
        ([["a", "b", "c", "d"]], "not a table of numbers", ""),
        (csr_matrix(QUERIES), "not a table of numbers", "rows.toarray()"),
        (Frame(QUERIES, ["a", "b", "c", "d"]), r"no column 'height' \(nor 3 more\); the model has height, width", ""),
        (Frame(QUERIES[:, [0, *range(4)]], ["a", *NAMED]), "the columns are a, height, width", f"rows[{NAMED}]"),
    ],
)
def test_what_cannot_be_classified_is_named_on_both_sides(
    both: tuple[TfKNN, TfliteKNN], queries: Any, said: str, hint: str
) -> None:
    for model, error in zip(both, (DataError, BadInput)):
        for ask in (model.predict, model.predict_proba, model.neighbors):
            with pytest.raises(error, match=said) as caught:
                ask(queries)
            assert hint in caught.value.hint
        with pytest.raises(error, match=r"80 rows, but labels of shape \(3,\)"):
            model.score(QUERIES, [1, 2, 3])


def test_labels_of_another_type_are_not_counted_as_wrong(both: tuple[TfKNN, TfliteKNN]) -> None:
    for model, error in zip(both, (DataError, BadInput)):
        right = model.predict(QUERIES)
        assert model.score(QUERIES, right + 1.0) == 0.0
        with pytest.raises(error, match=r"the labels are '\d', \.\.\., but the model's are \d, ") as caught:
            model.score(QUERIES, right.astype(str))
        assert "labels.astype(int)" in caught.value.hint


def test_a_device_is_neither_copied_nor_pickled(both: tuple[TfKNN, TfliteKNN]) -> None:
    """A copy would use the open file after the first object has closed it."""
    for way in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"open the file again: TfliteKNN\('.*knn.tflite'\)"):
            way(both[1])


def test_a_data_frame_brings_its_names(both: tuple[TfKNN, TfliteKNN]) -> None:
    host, device = both
    assert list(device.info.feature_names) == NAMED
    expected = host.predict(QUERIES).tolist()
    turned = Frame(QUERIES[:, ::-1], NAMED[::-1])
    for frame in (
        Frame(QUERIES, NAMED),
        turned,
        Frame(QUERIES, list(range(4))),
        QUERIES.tolist(),
        QUERIES.astype(float),
    ):
        assert host.predict(frame).tolist() == device.predict(frame).tolist() == expected
    plain = TfKNN(ROWS, labels=LABELS)  # nobody named its columns
    assert plain.predict(Frame(QUERIES, NAMED)).tolist() == expected
    named = TfKNN(ROWS, labels=LABELS, feature_names=NAMED)
    assert named.build().info.feature_names == tuple(NAMED)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_what_was_given_may_change_afterwards(kind: type) -> None:
    rows, targets, labels = ROWS.astype(kind), ROWS[:, :2].astype(kind), LABELS.copy()
    models = [TfKNN(rows, targets=targets, metric="chebyshev"), TfKNN(rows, labels=labels, metric="chebyshev")]
    models.append(from_sklearn(KNeighborsRegressor(3, metric="chebyshev").fit(rows, targets)))
    rows[:], targets[:], labels[:] = 0, 0, 0
    assert models[0].predict(QUERIES).any()
    assert models[1].predict(QUERIES).any()
    np.testing.assert_allclose(models[0].predict(QUERIES), models[2].predict(QUERIES), rtol=1e-6)


def test_without_labels_there_are_neighbours_alone(tmp_path: Path) -> None:
    model = TfKNN(ROWS, np.int64(4))
    peer = NearestNeighbors(n_neighbors=4).fit(ROWS)
    assert np.array_equal(model.neighbors(QUERIES).indices, peer.kneighbors(QUERIES, return_distance=False))
    device = TfliteKNN(model.export(tmp_path / "knn.tflite"))
    assert np.array_equal(device.neighbors(QUERIES).indices, model.neighbors(QUERIES).indices)
    for ask in (
        model.predict,
        model.predict_proba,
        lambda rows: model.score(rows, LABELS[:80]),
        lambda _: model.classes_,
    ):
        with pytest.raises(BuildError, match="has no labels") as caught:
            ask(QUERIES)
        assert "labels=" in caught.value.hint


def test_more_neighbours_than_it_looks_for_are_refused() -> None:
    model = TfKNN(ROWS, labels=LABELS)
    for wanted, hint in ((0, "n_neighbors=1"), (-1, "n_neighbors=1"), (4, "TfKNN(rows, k=4)")):
        with pytest.raises(DataError, match=f"n_neighbors is {wanted}, but") as caught:
            model.kneighbors(QUERIES, wanted)
        assert caught.value.hint == hint
    with pytest.raises(DataError, match="each training row has only 2 other rows"):
        TfKNN(ROWS[:3], labels=LABELS[:3]).kneighbors()


def test_a_notebook_shows_what_each_is(tmp_path: Path) -> None:
    model = TfKNN(ROWS, labels=LABELS, metric="cosine", weights="distance", name="trees")
    path = model.export(tmp_path / "knn.tflite")
    said = "200 rows x 4 features, 3 classes, k = 3, cosine, weights distance"
    assert repr(model) == f"<TfKNN 'trees' from arrays: {said}>"
    device = TfliteKNN(path)
    runtime = f"{device.runtime.name} {device.runtime.version}"
    assert repr(device) == f"<TfliteKNN 'trees' from {path}: {said}, {runtime}>"
    taken = from_sklearn(make_pipeline(StandardScaler(), KNeighborsClassifier(3)).fit(ROWS, LABELS))
    assert (
        repr(taken)
        == f"<TfKNN 'model' from Pipeline: {said.replace('cosine', 'euclidean').replace('distance', 'uniform')}>"
    )
    assert "no labels" in repr(TfKNN(ROWS))


@pytest.mark.parametrize("tied", [False, True])
def test_a_file_that_is_replaced_leaves_what_is_open_alone(tied: bool, tmp_path: Path) -> None:
    rows = GRID / 3.0 if tied else ROWS  # in thirds: float32 cannot decide ties
    queries = GRID / 3.0 if tied else QUERIES
    first = TfKNN(rows, labels=WORDS[LABELS])
    path = first.export(tmp_path / "knn.tflite")
    opened = TfliteKNN(path)
    TfKNN(ROWS[::-1] * 9, k=1, labels=WORDS[LABELS[::-1]], metric="manhattan").export(path)
    assert np.array_equal(opened.neighbors(queries).indices, first.neighbors(queries).indices)
    assert opened.settled or not tied
    assert [each.name for each in tmp_path.iterdir()] == ["knn.tflite"]


def test_a_place_that_cannot_be_written_is_named_before_the_build(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="missing is not a directory") as caught:
        TfKNN(ROWS, labels=LABELS).export(tmp_path / "missing" / "knn.tflite")
    assert caught.value.hint == f"mkdir -p {tmp_path / 'missing'}"


def test_tflite_runtime_is_refused_beside_tensorflow(tmp_path: Path) -> None:
    path = TfKNN(ROWS, labels=LABELS).export(tmp_path / "knn.tflite")
    with pytest.raises(DeviceUnfit, match="tflite_runtime fails in a process that has loaded TensorFlow") as caught:
        TfliteKNN(path, runtime="tflite_runtime")
    assert caught.value.hint == "runtime='auto'"
    expected = TfliteKNN(path).predict(QUERIES).tolist()
    with contextlib.suppress(ImportError):
        import ai_edge_litert  # noqa: F401

        assert TfliteKNN(path, runtime="ai_edge_litert").predict(QUERIES).tolist() == expected


@pytest.mark.parametrize(
    "error", [KnnkitError, AgentError, *KnnkitError.__subclasses__(), *AgentError.__subclasses__()]
)
def test_a_traceback_ends_with_the_hint(error: type[Exception]) -> None:
    pytest.importorskip("tomllib", reason="tracebacks have notes from Python 3.11 on")
    shown = "".join(traceback.format_exception(error("the rows are wrong", hint="type this")))
    assert shown.rstrip().endswith("the rows are wrong\ntry: type this")
    assert "try" not in "".join(traceback.format_exception(error("the rows are wrong")))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_no_rows_have_no_answers_and_no_error(metric: Any) -> None:
    model = TfKNN(ROWS, labels=LABELS, metric=metric)
    assert model.predict(ROWS[:1] * 1.1).shape == (1,)  # nothing is in doubt
    assert model.fitted.enrolment.space.enter(ROWS[:0]).shape[0] == 0

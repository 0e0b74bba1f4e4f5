"""The model answers as the float64 reference does: on every kind of data, and as scikit-learn on real data."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn import datasets
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, Normalizer, RobustScaler, StandardScaler
from support.device_process import DeviceAnswers, DeviceProcess
from support.models import build_model

import knnkit
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.golden.judge import judge
from device_agent.shared.protocol.model_info import Gates
from device_agent.shared.votes import base_distance
from knnkit.data.dataset import Dataset, dataset, load_sklearn
from knnkit.model.built import BuiltModel
from knnkit.model.golden import make_golden
from knnkit.model.reference.spec import KnnSpec

METRICS = ("euclidean", "sqeuclidean", "manhattan", "cosine")
WEIGHTS = ("uniform", "distance")
SCALERS = {
    "none": FunctionTransformer,
    "standard": StandardScaler,
    "minmax": MinMaxScaler,
    "robust": RobustScaler,
}


def golden_of(model: BuiltModel, queries: np.ndarray) -> Golden:
    return make_golden(model, None, dataset(queries, np.zeros(len(queries), int), model.info.feature_names))


def ask(device: DeviceProcess, model: BuiltModel, queries: np.ndarray, folder: Path, **how: Any) -> DeviceAnswers:
    path = folder / "model.tflite"
    path.write_bytes(model.data)
    return device.classify(path, queries.astype(np.float32), **how)


@st.composite
def problems(draw: st.DrawFn) -> tuple[KnnSpec, Dataset, np.ndarray]:
    """A classifier to build, its training rows and queries: copies, far offsets, constant columns, clusters."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_train = draw(st.one_of(st.integers(2, 300), st.integers(640, 1000)))  # from 800 rows on in blocks
    width = draw(st.sampled_from([1, 2, 3, 7, 30, 300]))
    rows = rng.normal(size=(n_train, width))
    shape = draw(st.sampled_from(["normal", "grid", "clusters"]))
    if shape == "grid":
        rows = np.round(rows * 2) / 2
    elif shape == "clusters":
        rows = rows * 0.01 + rng.normal(size=(5, width))[rng.integers(0, 5, n_train)] * 10
    rows = rows + draw(st.sampled_from([0.0, 1.0, 100.0, 1e4]))
    if draw(st.booleans()):
        rows[:, rng.integers(width)] = 7.0
    copies = rng.integers(0, n_train, draw(st.integers(0, n_train)))
    rows[copies] = rows[0]
    labels = rng.integers(0, draw(st.integers(1, 5)), n_train)
    near = rows[rng.integers(0, n_train, 20)] + rng.normal(size=(20, width)) * draw(st.sampled_from([1e-4, 0.1, 5.0]))
    between = (rows[rng.integers(0, n_train, 10)] + rows[rng.integers(0, n_train, 10)]) / 2
    queries = np.concatenate([rows[rng.integers(0, n_train, 15)], near, between, np.zeros((1, width))])
    k = draw(st.integers(1, min(n_train, 30)))
    reject = 0.9 if k < n_train and draw(st.integers(0, 3)) == 0 else None
    spec = KnnSpec(
        "property",
        k,
        draw(st.sampled_from(METRICS)),
        draw(st.sampled_from(WEIGHTS)),
        draw(st.sampled_from(sorted(SCALERS))),
        reject,
    )
    return spec, dataset(rows, labels), queries.astype(np.float32)


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(problem=problems())
def test_no_row_is_different_whatever_the_data(
    problem: tuple[KnnSpec, Dataset, np.ndarray], device: DeviceProcess, tmp_path: Path
) -> None:
    spec, training, queries = problem
    model = build_model(spec, training)
    golden = golden_of(model, queries)
    for one_by_one in (False, True):
        answers = ask(device, model, queries, tmp_path, one_by_one=one_by_one)
        verdict = judge(golden, answers, model.info, Gates())
        assert verdict.differences == ()
        assert verdict.identical + verdict.equivalent == len(queries)
        clear = _clear_of_ties(golden, spec.k)
        expected = model.reference.answer(golden.rows)
        assert np.array_equal(answers.label[clear], expected.label[clear])
        assert np.abs(answers.probabilities[clear] - expected.probabilities[clear]).max(initial=0.0) <= 1e-5


def _clear_of_ties(golden: Golden, k: int) -> np.ndarray:
    if golden.indices.shape[1] == k:
        return np.ones(len(golden.rows), bool)
    base = base_distance(golden.distances, golden.metric)
    return base[:, k] - base[:, k - 1] > golden.tolerance


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "digits"])
def test_scikit_learn_gives_the_same_labels_and_probabilities(name: str, device: DeviceProcess, tmp_path: Path) -> None:
    raw, known = getattr(datasets, f"load_{name}")().data, load_sklearn(name)
    classes, codes = np.unique(known.labels, return_inverse=True)  # scikit-learn 1.7 stumbles over labels of text
    kept, held_out = train_test_split(np.arange(len(raw)), test_size=0.3, random_state=0)
    kinds = zip(METRICS, itertools.cycle(WEIGHTS), ("standard", "none", "minmax", "robust"), (5, 3, 5, 1))
    for metric, weights, scale, k in kinds:
        pipeline = make_pipeline(SCALERS[scale](), KNeighborsClassifier(k, metric=metric, weights=weights))
        pipeline.fit(raw[kept], codes[kept])
        model = build_model(KnnSpec(name, k, metric, weights, scale), known.take(kept))
        answers = ask(device, model, raw[held_out], tmp_path)
        predicted = np.asarray(answers.predicted.tolist())
        assert np.array_equal(predicted, classes[pipeline.predict(raw[held_out])]), (metric, weights, scale)
        # Which of several rows at the very same distance is a neighbour, scikit-learn leaves open.
        clear = _clear_of_ties(golden_of(model, raw[held_out]), k)
        assert clear.mean() > 0.75
        expected = pipeline.predict_proba(raw[held_out])
        assert np.abs(answers.probabilities - expected)[clear].max() <= 1e-5, (metric, weights, scale)


@pytest.mark.parametrize("metric", METRICS)
def test_copies_of_a_row_stand_in_order_of_their_index(metric: str, device: DeviceProcess, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(700, 5))
    copies = np.sort(rng.permutation(700)[:200])
    rows[copies] = rows[copies[0]]
    model = build_model(KnnSpec("ties", 30, metric), dataset(rows, rng.integers(0, 3, 700)))
    queries = np.stack([rows[copies[0]], rows[copies[0]] + 0.25, -rows[copies[0]], np.zeros(5)]).astype(np.float32)
    for one_by_one in (False, True):
        answers = ask(device, model, queries, tmp_path, one_by_one=one_by_one)
        assert answers.indices[0].tolist() == copies[:30].tolist()
        assert answers.distances[0].tolist() == [0.0] * 30
        expected = model.reference.answer(queries)
        for row in range(len(queries)):
            told, index = answers.distances[row], answers.indices[row]
            assert (np.diff(told) >= 0).all()
            assert (np.diff(index)[np.diff(told) == 0] > 0).all()
            assert index.tolist() == expected.indices[row, :30].tolist()


def test_every_training_row_may_be_a_neighbour(device: DeviceProcess, tmp_path: Path) -> None:
    rows = np.array([[0.0], [1.0], [5.0]])
    model = build_model(KnnSpec("all", 3), dataset(rows, ["a", "b", "b"]))
    answers = ask(device, model, np.array([[0.9], [9.0]]), tmp_path)
    assert answers.indices.tolist() == [[1, 0, 2], [2, 1, 0]]
    assert answers.predicted.tolist() == ["b", "b"]


def test_a_vote_that_is_tied_goes_to_the_lowest_class(device: DeviceProcess, tmp_path: Path) -> None:
    model = build_model(KnnSpec("tied", 2), dataset([[0.0], [1.0], [9.0]], ["b", "a", "c"]))
    answers = ask(device, model, np.array([[0.4], [0.6]]), tmp_path)
    assert answers.predicted.tolist() == ["a", "a"]
    assert answers.probabilities.tolist() == [[0.5, 0.5, 0.0], [0.5, 0.5, 0.0]]


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("k", [3, 41, 55, 94, 200])
def test_a_unanimous_vote_is_exactly_one(k: int, weights: str, device: DeviceProcess, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(260, 4))
    rows[0] = 1e3
    model = build_model(KnnSpec("unanimous", k, weights=weights), dataset(rows, [1] + [0] * 259))
    answers = ask(device, model, rng.normal(size=(70, 4)), tmp_path)
    assert answers.probabilities.tolist() == [[1.0, 0.0]] * 70


def test_an_exact_match_takes_all_the_weight(device: DeviceProcess, tmp_path: Path) -> None:
    rows, labels = [[0.0, 0.0], [0.1, 0.0], [0.0, 0.1]], ["a", "b", "b"]
    model = build_model(KnnSpec("exact", 3, weights="distance"), dataset(rows, labels))
    answers = ask(device, model, np.array([[0.0, 0.0], [0.09, 0.0]]), tmp_path)
    assert answers.probabilities[0].tolist() == [1.0, 0.0]
    assert answers.predicted.tolist() == ["a", "b"]


def test_tight_clusters_far_apart_are_told_apart(device: DeviceProcess, tmp_path: Path) -> None:
    """The matrix product cannot: within a cluster its scores are all rounding. The rows are settled in float64."""
    rng = np.random.default_rng(5)
    rows = (rng.normal(size=(400, 4)) * 1e-2 + rng.choice([-1e3, 1e3], size=(400, 1))).astype(np.float32)
    model = build_model(KnnSpec("clusters", 5), dataset(rows, rng.integers(0, 4, 400)))
    queries = rows[:50] + np.float32(1e-3)
    answers = ask(device, model, queries, tmp_path)
    expected = model.reference.answer(queries)
    assert answers.settled > 0
    assert np.array_equal(answers.label, expected.label)
    assert np.array_equal(answers.indices, expected.indices[:, :5])


def test_few_rows_of_ordinary_data_are_left_to_float64(device: DeviceProcess, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    rows = rng.normal(size=(5000, 16))
    model = build_model(KnnSpec("ordinary", 5), dataset(rows, rng.integers(0, 5, 5000)))
    answers = ask(device, model, rng.normal(size=(1000, 16)), tmp_path)
    assert answers.settled <= 10
    assert answers.runtime.delegate == "XNNPACK"


@pytest.mark.parametrize(
    ("count", "width", "metric", "scale"),
    [
        (9001, 129, "euclidean", "none"),  # neither number is a multiple of anything
        (9001, 129, "euclidean", "standard"),  # the scale must not be multiplied into a second copy of the matrix
        (1301, 17, "sqeuclidean", "minmax"),
        (1301, 17, "cosine", "robust"),
        (5003, 2, "euclidean", "standard"),
        (1301, 3, "manhattan", "robust"),
        (4999, 1, "sqeuclidean", "none"),
    ],
)
def test_a_matrix_in_blocks_answers_as_one_in_a_piece(
    count: int, width: int, metric: str, scale: str, device: DeviceProcess, tmp_path: Path
) -> None:
    rng = np.random.default_rng(9)
    rows = (rng.normal(size=(count, width)) * rng.uniform(0.5, 20.0, width)).astype(np.float32)
    model = build_model(KnnSpec("blocks", 4, metric, "uniform", scale), dataset(rows, rng.integers(0, 3, count)))
    queries = (rng.normal(size=(70, width)) * rows.std(axis=0)).astype(np.float32)
    queries[:5] = rows[[0, 1000, count // 2, count - 2, count - 1]]
    expected = model.reference.answer(queries)
    for one_by_one in (False, True):
        answers = ask(device, model, queries, tmp_path, one_by_one=one_by_one)
        assert np.array_equal(answers.indices, expected.indices[:, :4])
        assert np.array_equal(answers.label, expected.label)
    eight_bits = 0 if model.info.quantized is None else 1.15 * rows.size
    lists = 0 if model.info.cells is None else 100 * rows.size + (128 << 10)
    assert len(model.data) < 1.1 * rows.nbytes + eight_bits + lists + 250_000


@pytest.mark.parametrize(("count", "width"), [(1301, 9), (1301, 2)])
def test_a_row_that_overflows_is_settled_and_disturbs_no_other(
    count: int, width: int, device: DeviceProcess, tmp_path: Path
) -> None:
    """Every score of such a row is infinite or no number: what fills up the last block is then as good as any."""
    rng = np.random.default_rng(10)
    rows = rng.normal(size=(count, width)).astype(np.float32)
    model = build_model(KnnSpec("overflow", 3), dataset(rows, rng.integers(0, 3, count)))
    queries = rng.normal(size=(64, width)).astype(np.float32)
    queries[3::7] = np.float32(3e38) * rng.choice([-1, 1], size=(len(queries[3::7]), width))
    expected = model.reference.answer(queries)
    for one_by_one in (False, True):
        answers = ask(device, model, queries, tmp_path, one_by_one=one_by_one)
        assert np.array_equal(answers.label, expected.label)
        assert np.array_equal(
            np.delete(answers.indices, np.s_[3::7], 0), np.delete(expected.indices[:, :3], np.s_[3::7], 0)
        )


@pytest.mark.parametrize("metric", METRICS[:3])
def test_distances_that_square_to_nothing_still_weigh(metric: str, device: DeviceProcess, tmp_path: Path) -> None:
    """Squares of distances under 1e-23 are zero in float32, as those of exact matches are."""
    rows = [[1e-24], [1e-23], [1.1e-23], *([float(sign * n)] for n in range(1, 20) for sign in (1, -1))]
    labels = ["a", "b", "b", *("ab"[n % 2] for n in range(38))]
    model = build_model(KnnSpec("tiny", 3, metric, "distance"), dataset(np.float32(rows), labels))
    answers = ask(device, model, np.zeros((2, 1)), tmp_path)
    assert answers.predicted.tolist() == ["a", "a"]
    expected = model.reference.answer(np.zeros((2, 1), np.float32))
    assert np.abs(answers.probabilities - expected.probabilities).max() <= 1e-5


def test_data_in_very_small_units_answer_as_the_reference(device: DeviceProcess, tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    rows = (rng.normal(size=(300, 3)) * 1e-22).astype(np.float32)
    queries = (rng.normal(size=(50, 3)) * 1e-22).astype(np.float32)
    model = build_model(KnnSpec("charges", 5), dataset(rows, rng.integers(0, 3, 300)))
    verdict = judge(golden_of(model, queries), ask(device, model, queries, tmp_path), model.info, Gates())
    assert verdict.differences == ()


@pytest.mark.parametrize("unit", [1e-25, 1e-37, 1e-38])
@pytest.mark.parametrize("width", [2, 6])
def test_scaled_up_from_the_least_numbers_rows_that_float32_cannot_hold_are_settled(
    width: int, unit: float, device: DeviceProcess, tmp_path: Path
) -> None:
    """A query that is weighted twice overflows; of the least differences some processors make nothing."""
    rng = np.random.default_rng(12)
    rows = (rng.normal(size=(500, width)) * unit).astype(np.float32)
    queries = (rng.normal(size=(60, width)) * unit * 10.0 ** rng.uniform(0, 2, (60, 1))).astype(np.float32)
    model = build_model(KnnSpec("masses", 3, scale="standard"), dataset(rows, rng.integers(0, 3, 500)))
    answers = ask(device, model, queries, tmp_path)
    assert judge(golden_of(model, queries), answers, model.info, Gates()).differences == ()
    assert answers.settled == (60 if unit < 1e-30 else 0)


@pytest.mark.parametrize("unit", [1e-28, 1e-36, 1e-37, 1e-39])
@pytest.mark.parametrize("packed", [True, False])
def test_directions_of_rows_that_float32_hardly_holds_are_settled(
    packed: bool, unit: float, device: DeviceProcess, tmp_path: Path
) -> None:
    """XNNPACK makes zero of what is under the least normal number: a coordinate of such a row, or all of it."""
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(400, 33)) * unit).astype(np.float32)
    queries = (rng.normal(size=(60, 33)) * unit).astype(np.float32)
    for k in (3, 400):
        model = build_model(KnnSpec("directions", k, "cosine"), dataset(rows, rng.integers(0, 3, 400)))
        answers = ask(device, model, queries, tmp_path, packed=packed)
        assert judge(golden_of(model, queries), answers, model.info, Gates()).differences == ()
        assert answers.settled == (60 if unit < 1e-30 else 0)


@pytest.mark.parametrize(("metric", "k"), [("euclidean", 2), ("sqeuclidean", 2), ("manhattan", 5), ("sqeuclidean", 5)])
def test_a_row_too_far_for_float32_has_neighbours_and_finite_distances(
    metric: str, k: int, device: DeviceProcess, tmp_path: Path
) -> None:
    rows, labels = [[0.0] * 9, [1.0] * 9, [2.0] * 9, [3.0] * 9, [4.0] * 9], ["a", "b", "b", "a", "a"]
    model = build_model(KnnSpec("far", k, metric, "distance"), dataset(rows, labels))
    queries = np.full((3, 9), 3.4e38, np.float32)
    for one_by_one in (False, True):
        answers = ask(device, model, queries, tmp_path, one_by_one=one_by_one)
        assert np.isfinite(answers.distances).all()
        assert np.abs(answers.probabilities.sum(axis=1) - 1.0).max() < 1e-6


@pytest.mark.parametrize("scale", ["none", "standard"])
def test_one_feature_far_from_zero(scale: str, device: DeviceProcess, tmp_path: Path) -> None:
    """The converter folds the centre of a single coordinate into the product, where it cancels."""
    rng = np.random.default_rng(13)
    rows = (rng.normal(size=(1500, 1)) + 1e4).astype(np.float32)
    model = build_model(KnnSpec("pressure", 2, scale=scale), dataset(rows, rng.integers(0, 3, 1500)))
    queries = rows[:200] + np.float32(1e-3)
    answers = ask(device, model, queries, tmp_path)
    verdict = judge(golden_of(model, queries), answers, model.info, Gates())
    assert verdict.differences == ()
    assert answers.indices.tolist() == model.reference.answer(queries).indices[:, :2].tolist()


def test_rows_that_all_count_as_exact_matches_stand_in_order_of_their_index(
    device: DeviceProcess, tmp_path: Path
) -> None:
    rng = np.random.default_rng(17)
    rows = (rng.integers(-1, 2, size=(60, 3)) * 64.0 + 1e9).astype(np.float32)
    model = build_model(KnnSpec("one-direction", 2, "cosine", "distance"), dataset(rows, rng.integers(0, 3, 60)))
    assert ask(device, model, rows[:20], tmp_path).indices.tolist() == [[0, 1]] * 20


FAR: dict[str, list[Any]] = {
    "none": [],
    "standard": [StandardScaler()],
    "pca": [StandardScaler(), PCA(4, svd_solver="full")],
    "l1": [Normalizer("l1")],
}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("maps", FAR)
def test_rows_a_million_million_times_as_far_as_the_data_are_ranked_as_the_reference_ranks_them(
    maps: str, metric: str, device: DeviceProcess, tmp_path: Path
) -> None:
    """There, distances agree in all but the last bits of a float64: an order of adding must not decide."""
    rng = np.random.default_rng(19)
    rows = rng.normal(size=(400, 6)).astype(np.float32)
    classifier = KNeighborsClassifier(5, metric=metric, weights="distance")
    estimator = make_pipeline(*FAR[maps], classifier).fit(rows, rng.integers(0, 4, 400))
    model = knnkit.from_sklearn(estimator, name="far").build()
    queries = (rng.normal(size=(60, 6)) * np.logspace(8, 20, 60)[:, np.newaxis]).astype(np.float32)
    answers, expected = ask(device, model, queries, tmp_path), model.reference.answer(queries)
    assert np.array_equal(answers.label, expected.label)
    assert answers.indices[30:].tolist() == expected.indices[30:, :5].tolist()
    assert judge(golden_of(model, queries), answers, model.info, Gates()).differences == ()


@pytest.mark.parametrize("kind", ["far along one feature", "copies"])
def test_more_near_ties_than_the_golden_set_lists_keep_no_sound_model_from_a_device(
    kind: str, device: DeviceProcess, tmp_path: Path
) -> None:
    rng = np.random.default_rng(23)
    rows = rng.normal(size=(3000, 3))
    queries = np.concatenate([rows[:40], rows[40:80] * 1.5])
    if kind == "copies":
        rows[rng.permutation(3000)[:2500]] = rows[0]
    else:
        queries[:, 1] += 1e14
    model = build_model(KnnSpec("ties", 3), dataset(rows, rng.integers(0, 3, 3000)))
    golden = golden_of(model, queries)
    assert (golden.indices >= 0).sum(axis=1).max() > 500
    for one_by_one in (False, True):
        answers = ask(device, model, queries, tmp_path, one_by_one=one_by_one)
        assert judge(golden, answers, model.info, Gates()).differences == ()


def test_distances_beyond_float32_are_told_as_its_largest_number(device: DeviceProcess, tmp_path: Path) -> None:
    rng = np.random.default_rng(29)
    model = build_model(KnnSpec("far", 2, "sqeuclidean"), dataset(rng.normal(size=(90, 4)), rng.integers(0, 3, 90)))
    queries = np.full((3, 4), 1e30, np.float32)
    answers = ask(device, model, queries, tmp_path)
    assert (answers.distances == np.finfo(np.float32).max).all()
    assert judge(golden_of(model, queries), answers, model.info, Gates()).differences == ()


def test_a_row_whose_scores_all_overflow_has_neighbours_in_blocks_too(device: DeviceProcess, tmp_path: Path) -> None:
    rng = np.random.default_rng(31)
    rows = rng.standard_cauchy(size=(3001, 350)) ** 3 * 1e-20
    model = build_model(KnnSpec("small-units", 4, "cosine", scale="minmax"), dataset(rows, rng.integers(0, 3, 3001)))
    queries = (rng.choice([-1.0, 1.0], size=(3, 350)) * 1e30).astype(np.float32)
    expected = model.reference.answer(queries)
    for one_by_one in (False, True):
        answers = ask(device, model, queries, tmp_path, one_by_one=one_by_one)
        assert answers.label.tolist() == expected.label.tolist()
        assert answers.indices.tolist() == expected.indices[:, :4].tolist()


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize(("metric", "unit"), [("euclidean", 1e-19), ("manhattan", 1e-38)])
def test_rows_closer_than_float32_has_squares_for_are_told_apart(
    metric: str, unit: float, width: int, device: DeviceProcess, tmp_path: Path
) -> None:
    """What is under the least normal number is nothing to XNNPACK: the first row looks like the query's very place."""
    rows = np.random.default_rng(0).normal(size=(600, width))
    rows[:2] = 0.0
    rows[0, :2], rows[1, 0] = 0.9 * unit, 1.2 * unit
    labels = ["first", "second"] + ["other"] * 598
    model = build_model(KnnSpec("close", 1, metric), dataset(rows, labels))
    for how in ({"search": "full"}, {"runtime": "ai_edge_litert"}, {}):
        answers = ask(device, model, np.zeros((2, width)), tmp_path, **how)
        assert answers.predicted.tolist() == ["first" if width == 1 else "second"] * 2


def test_a_distance_that_came_to_nothing_is_no_exact_match(device: DeviceProcess, tmp_path: Path) -> None:
    """The first row, which XNNPACK takes for the query's very place, would have all the weight."""
    rows = np.random.default_rng(0).normal(size=(600, 1))
    rows[:4, 0] = np.array([1.1, 1.2, -1.2, 1.21]) * 1e-38
    labels = ["first", *["others"] * 3, *["far"] * 596]
    model = build_model(KnnSpec("nothing", 4, "manhattan", "distance"), dataset(rows, labels))
    for how in ({"search": "full"}, {"runtime": "ai_edge_litert"}, {}):
        assert ask(device, model, np.zeros((2, 1)), tmp_path, **how).predicted.tolist() == ["others"] * 2


def test_distances_of_the_least_numbers_are_settled(device: DeviceProcess, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(200, 2)) * 1e-36
    model = build_model(KnnSpec("least", 3, "manhattan", "uniform", "none"), dataset(rows, [0, 1] * 100))
    golden = golden_of(model, rows * 1.01)
    assert judge(golden, ask(device, model, rows * 1.01, tmp_path), model.info, Gates()).different == 0

"""Rows taught on a device: its answers are those of one model over both sets, by the float64 reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, QuantileTransformer
from support.device_process import DeviceProcess
from support.models import build_model
from support.runtimes import RUNTIMES
from support.wild import CELLS, QUANTIZED, Problem, problem

import knnkit
from device_agent.shared import label_sets, regression
from device_agent.shared.enrolment.enrolled import LocalRow, fingerprint
from device_agent.shared.enrolment.joined import join
from device_agent.shared.protocol.model_info import Enrol, Reject
from device_agent.shared.protocol.record import replace
from device_agent.shared.raw_rows import features_of
from knnkit.data.dataset import dataset
from knnkit.data.targets import with_targets
from knnkit.errors import BuildError
from knnkit.model.built import BuiltModel
from knnkit.model.index import grid, groups, int8
from knnkit.model.reference.classifier import Reference
from knnkit.model.reference.spec import KnnSpec

FLOAT32 = np.finfo(np.float32)


def reference_over_both(model: BuiltModel, rows: np.ndarray, codes: np.ndarray, n_classes: int) -> Reference:
    """Returns the reference over the model's rows, and then `rows`; a new class is rejected by the median threshold."""
    own = model.reference
    mapped = own.space.enter(rows)
    if own.space.metric == "cosine":  # training rows of zeros are marked in the other column than queries
        mapped += own.space.centre
        mapped[:, [-2, -1]] = mapped[:, [-1, -2]]
        mapped -= own.space.centre
    enrolled = np.concatenate([own.enrolled, mapped.astype(np.float32)])
    reject = own.reject
    if reject is not None:
        usual = sorted(reject.thresholds)[(len(reject.thresholds) - 1) // 2]
        reject = Reject(reject.acceptance, reject.thresholds + (usual,) * (n_classes - own.n_classes))
    classes = np.concatenate([own.classes, codes]).astype(np.int32)
    return Reference(own.space, enrolled, classes, n_classes, own.k, own.weights, reject=reject)


@pytest.mark.filterwarnings("ignore")  # scikit-learn's, about the data
@pytest.mark.parametrize(
    "seed", [73, 303, 304, *range(200, 207)]
)  # 73: cosine, training rows of zeros; 303, 304: taught rows tied with the k-th
def test_merged_answers_are_those_of_one_model_over_both_sets(seed: int, device: DeviceProcess, tmp_path: Path) -> None:
    asked, rng = problem(seed), np.random.default_rng(seed)
    try:
        model = asked.build()
    except BuildError:
        pytest.skip("no such model")
    path = tmp_path / "model.tflite"
    path.write_bytes(model.data)
    rows = taught_rows(rng, asked.rows, asked.queries)
    with np.errstate(all="ignore"):
        rows = rows[np.isfinite(model.reference.space.enter(rows).astype(np.float32)).all(axis=1)]
    classes = [*model.info.classes, 77, 78]
    codes = rng.integers(0, len(classes), len(rows))
    known = list(dict.fromkeys([*range(len(model.info.classes)), *codes.tolist()]))  # as they are met
    expected = reference_over_both(model, rows, np.array([known.index(code) for code in codes]), len(known))
    for runtime in RUNTIMES:
        for one_by_one in (False, True):
            taught = (rows, [classes[code] for code in codes])
            found = device.classify(path, asked.queries, one_by_one=one_by_one, taught=taught, runtime=runtime)
            check(expected, found, asked.queries, f"seed {seed} ({asked}) {runtime} one by one: {one_by_one}")


@pytest.mark.filterwarnings("ignore")  # scikit-learn's, about the data
@pytest.mark.parametrize("seed", range(210, 214))
def test_merged_values_are_those_of_one_regressor_over_both_sets(
    seed: int, device: DeviceProcess, tmp_path: Path
) -> None:
    asked, rng = problem(seed), np.random.default_rng(seed)
    spec = KnnSpec("wild", asked.k, asked.metric, asked.weights, asked.scale, asked.reject)
    targets = rng.normal(size=(len(asked.rows), 2)) * [1.0, 1e6]
    try:
        model = build_model(spec, with_targets(dataset(asked.rows, asked.labels), targets))
    except BuildError:
        pytest.skip("no such model")
    path = tmp_path / "model.tflite"
    path.write_bytes(model.data)
    rows = taught_rows(rng, asked.rows, asked.queries)
    with np.errstate(all="ignore"):
        rows = rows[np.isfinite(model.reference.space.enter(rows).astype(np.float32)).all(axis=1)]
    values = rng.normal(size=(len(rows), 2)) * [1.0, 1e6]
    expected = reference_over_both(model, rows, np.zeros(len(rows), int), 1)
    expected.targets = np.concatenate([targets, values])
    with np.errstate(over="ignore"):
        right = expected.values(expected.answer(asked.queries))
    taught = (rows, list(map(tuple, values.tolist())))
    for one_by_one in (False, True):
        found = device.classify(path, asked.queries, one_by_one=one_by_one, taught=taught)
        check(expected, found, asked.queries, f"seed {seed} ({asked}) one by one: {one_by_one}")
        assert not regression.differ(found.predicted, right, model.info.targets.spread).any()


#: Searched in eight bits and groups, in cells, in groups alone, and (-1) in a projection.
SEARCHED = (8, 17, 24, -1)
EVERY: tuple[dict[str, Any], ...] = ({"search": "full"}, {"runtime": "numpy"})


def near_a_plane() -> Problem:
    rng = np.random.default_rng(1)
    plane = rng.normal(size=(6, 96))
    rows = np.float32(rng.normal(size=(1600, 6)) @ plane + rng.normal(size=(1600, 96)) * 0.05)
    return Problem(
        rows[:1500], rng.integers(0, 3, 1500), rows[1460:1540], 3, "euclidean", "distance", "none", None, None
    )


@pytest.mark.filterwarnings("ignore")  # scikit-learn's, about the data
@pytest.mark.parametrize("seed", SEARCHED)
def test_taught_rows_join_every_search(
    seed: int, device: DeviceProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with label sets, which need the float64 distances of rows near a threshold."""
    monkeypatch.setattr(int8, "LEAST_WEIGHTS", 0)
    monkeypatch.setattr(grid, "LEAST_ROWS", 0)
    monkeypatch.setattr(groups, "LEAST_ROWS", 0)
    monkeypatch.setattr(groups, "_WORTH", 1.0)
    asked, rng = problem(seed) if seed >= 0 else near_a_plane(), np.random.default_rng(abs(seed))
    model, path = asked.build(), tmp_path / "model.tflite"
    path.write_bytes(model.data)
    rows = taught_rows(rng, asked.rows, asked.queries)
    with np.errstate(all="ignore"):
        rows = rows[np.isfinite(model.reference.space.enter(rows).astype(np.float32)).all(axis=1)]
    count = len(model.info.classes)
    codes = rng.integers(0, count, len(rows))
    expected = reference_over_both(model, rows, codes, count)
    taught = (rows, [model.info.classes[code] for code in codes])
    for how in EVERY + QUANTIZED * bool(model.info.quantized) + CELLS * bool(model.info.cells):
        for one_by_one in (False, True):
            found = device.classify(path, asked.queries, one_by_one=one_by_one, taught=taught, **how)
            check(expected, found, asked.queries, f"seed {seed} ({asked}) {how} one by one: {one_by_one}")


@pytest.mark.parametrize(("metric", "weights"), [("cosine", "distance"), ("manhattan", "uniform")])
def test_label_sets_with_taught_rows_are_those_of_one_model(
    metric: Any, weights: Any, device: DeviceProcess, tmp_path: Path
) -> None:
    rng = np.random.default_rng(9)
    rows = rng.normal(size=(300, 6)).astype(np.float32)
    spec = KnnSpec("m", 5, metric, weights, "standard", label_sets=(0.8, 0.95))
    model = build_model(spec, dataset(rows, (rows[:, :2] > 0) @ [1, 2]))
    (tmp_path / "model.tflite").write_bytes(model.data)
    taught = np.float32(rows[:60] * (1 + rng.choice([0, 1e-6, 0.05], (60, 1))))
    labels = rng.choice([0, 1, 2, 3, 8], 60).tolist()
    info = replace(model.info, enrol=Enrol(60))
    made = [LocalRow(f"{n}", labels[n], 0, tuple(map(float, taught[n])), "", fingerprint(info)) for n in range(60)]
    joined = join(info, made, "")
    expected = reference_over_both(model, taught, joined.codes, 5)
    asked = np.concatenate([rows[:20], taught[:20], rng.normal(size=(200, 6)).astype(np.float32)])
    right = expected.answer(asked)
    for one_by_one in (False, True):
        found = device.classify(
            tmp_path / "model.tflite", asked, one_by_one=one_by_one, taught=(taught, labels), runtime="auto"
        )
        check(expected, found, asked, f"{metric}, one by one: {one_by_one}")
        for sets in joined.info.label_sets or ():
            ours, theirs = (label_sets.members(sets, a.probabilities, a.distances, metric, 5) for a in (found, right))
            assert np.array_equal(ours, theirs)
            assert theirs[:, 4].any(), "a new label is in some sets"


def test_cells_taught_to_a_pipeline_are_mapped_as_training_rows_are(device: DeviceProcess, tmp_path: Path) -> None:
    """Gaps, marks of gaps, quantiles, categories, a new one: as scikit-learn answers that was fitted on both sets."""
    rng = np.random.default_rng(4)

    def cells(count: int, kinds: list[Any]) -> np.ndarray:
        numbers = np.exp(rng.normal(size=(count, 3))).astype(object)
        numbers[rng.random(count) < 0.2, 0] = np.nan
        return np.column_stack([numbers, rng.choice(np.array(kinds, object), count)])

    rows, taught, asked = cells(150, ["clay", "sand"]), cells(40, ["clay", "sand"]), cells(80, ["clay", "sand", "new"])
    asked[:20] = taught[:20]
    numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), QuantileTransformer(n_quantiles=60))
    maps = ColumnTransformer(
        [("numbers", numbers, [0, 1, 2]), ("kind", OneHotEncoder(handle_unknown="ignore", sparse_output=False), [3])]
    )
    labels, more = rng.integers(0, 3, 150), rng.choice([0, 1, 2, 9], 40)
    pipeline = make_pipeline(maps, KNeighborsClassifier(3, weights="distance")).fit(rows, labels)
    imported, path = knnkit.from_sklearn(pipeline, name="pipeline"), tmp_path / "model.tflite"
    model = imported.build()
    path.write_bytes(model.data)
    info = replace(model.info, table=imported.fitted.table, enrol=Enrol(40))
    both = np.concatenate([pipeline[:-1].transform(rows), pipeline[:-1].transform(taught)])
    expected = KNeighborsClassifier(3, weights="distance").fit(both, np.concatenate([labels, more]))
    right = expected.predict_proba(pipeline[:-1].transform(asked))

    def plain(part: np.ndarray) -> list[tuple[Any, ...]]:
        return [tuple(None if cell != cell else cell for cell in row) for row in part.tolist()]

    made = [LocalRow(f"{n}", int(more[n]), 0, row, "", fingerprint(info)) for n, row in enumerate(plain(taught))]
    joined, queries = join(info, made, ""), features_of(info, plain(asked))
    for one_by_one in (False, True):
        found = device.classify(path, queries, one_by_one=one_by_one, taught=(joined.features, more.tolist()))
        assert np.abs(found.probabilities - right).max() <= 1e-5
        assert (found.indices >= 150).any(axis=1).mean() > 0.3


def taught_rows(rng: np.random.Generator, rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Returns copies of training rows and of queries, middles of two, and rows beside a query."""
    own, asked, beside = (each[rng.integers(0, len(each), 12)] for each in (rows, queries, queries))
    with np.errstate(over="ignore"):
        middles = own / 2 + rows[rng.integers(0, len(rows), 12)] / 2
        beside = beside * (1 + rng.choice([1e-7, 1e-3, 0.1], (12, 1)))
    found = np.concatenate([own, asked, middles, beside, np.zeros((1, rows.shape[1]))]).astype(np.float32)
    return np.clip(found, FLOAT32.min, FLOAT32.max)[rng.permutation(len(found))][: int(rng.choice([1, 3, 49]))]


def check(expected: Reference, found: object, queries: np.ndarray, place: str) -> None:
    with np.errstate(over="ignore"):
        right = expected.answer(queries)
    k = expected.k
    assert np.array_equal(found.label, right.label), place
    assert np.array_equal(found.indices, right.indices[:, :k]), place
    distances = np.minimum(right.distances[:, :k], FLOAT32.max)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-3, atol=1e-5 * expected.space.radius, err_msg=place)
    np.testing.assert_allclose(found.probabilities, right.probabilities, atol=1e-5, err_msg=place)

"""Rows taught on a device: its answers are those of one model over both sets, by the float64 reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.device_process import DeviceProcess
from support.wild import problem

from device_agent.shared import regression
from device_agent.shared.protocol.constants import RUNTIMES
from device_agent.shared.protocol.model_info import Reject
from knnkit.data.dataset import dataset
from knnkit.data.targets import with_targets
from knnkit.errors import BuildError
from knnkit.model.build import BuiltModel, build_model
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

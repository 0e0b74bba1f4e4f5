"""Neighbours are in order of (distance, row) in exact arithmetic, on either runtime and on the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier, NeighborhoodComponentsAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, Normalizer
from support import ties
from support.device_process import DeviceProcess
from support.models import build_model
from support.runtimes import RUNTIMES

import knnkit
from knnkit.data.dataset import dataset
from knnkit.model.reference.spec import KnnSpec

METRICS = ("euclidean", "sqeuclidean", "manhattan", "cosine")


def indices_of(model: Any, queries: np.ndarray, device: DeviceProcess, folder: Path) -> dict[str, list[list[int]]]:
    path = folder / "model.tflite"
    path.write_bytes(model.data)
    found = {"reference": model.reference.answer(queries).indices[:, : model.info.k].tolist()}
    for runtime in RUNTIMES:
        for one_by_one in (False, True):
            answers = device.classify(path, queries, one_by_one=one_by_one, runtime=runtime)
            found[f"{runtime}, {'rows' if one_by_one else 'batch'}"] = answers.indices.tolist()
    return found


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ties.KINDS)
def test_tied_rows_are_neighbours_in_order_of_their_row(
    kind: str, metric: str, device: DeviceProcess, tmp_path: Path
) -> None:
    seed = 4 * ties.KINDS.index(kind) + METRICS.index(metric)
    rng = np.random.default_rng(seed)
    count = (150, 900)[seed % 5 % 2]  # from 800 rows on, a batch is searched in blocks
    rows = ties.rows_of(kind, count, rng)
    queries, k = ties.queries_of(rows, rng), int(rng.integers(2, 12))
    model = build_model(KnnSpec("ties", k, metric), dataset(rows, rng.integers(0, 3, count)))
    expected = ties.neighbours(rows, queries, k, metric)
    for how, found in indices_of(model, queries, device, tmp_path).items():
        assert [row for row in range(len(queries)) if found[row] != expected[row]] == [], how


@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
def test_tied_rows_far_from_0_are_in_order_of_their_row(metric: str, device: DeviceProcess, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    rows = ties.rows_of(ties.KINDS[0], 200, rng)
    queries, seconds = ties.queries_of(rows, rng), np.full(rows.shape[1], 1.7e9)
    model = build_model(KnnSpec("ties", 6, metric), dataset(rows + seconds, rng.integers(0, 3, 200), wide=True))
    assert model.info.origin is not None
    expected = ties.neighbours(rows, queries, 6, metric)
    for how, found in indices_of(model, queries + seconds, device, tmp_path).items():
        assert [row for row in range(len(queries)) if found[row] != expected[row]] == [], how


#: Maps, a metric, and the metric of the raw rows that ranks them alike: a rotation changes no distance.
MAPS: dict[str, tuple[Any, str, str]] = {
    "unit length": (Normalizer(), "euclidean", "cosine"),
    "unit length, squared": (Normalizer(), "sqeuclidean", "cosine"),
    "rotation": (PCA(svd_solver="full"), "euclidean", "euclidean"),
    "rotation, squared": (PCA(svd_solver="full"), "sqeuclidean", "euclidean"),
    "same scale": (MinMaxScaler(), "euclidean", "euclidean"),
    "same scale, manhattan": (MinMaxScaler(), "manhattan", "manhattan"),
}


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize(("kind", "dtype"), [("one-hot", np.float32), ("counts", np.float64)])
def test_ties_remain_ties_behind_a_map(
    kind: str, dtype: type, name: str, device: DeviceProcess, tmp_path: Path
) -> None:
    maps, metric, same = MAPS[name]
    rng = np.random.default_rng(sorted(MAPS).index(name))
    rows = ties.rows_of(kind, 300, rng)
    rows[:2] = [[rows.min()] * rows.shape[1], [rows.max()] * rows.shape[1]]
    rows = rows[rows.any(axis=1)]  # at distance 1 from all by cosine, but not after Normalizer
    queries = ties.queries_of(rows, rng)
    classifier = KNeighborsClassifier(5, metric=metric)
    fitted = make_pipeline(maps, classifier).fit(rows.astype(dtype), rng.integers(0, 3, len(rows)))
    expected = ties.neighbours(rows, queries, 5, same)
    for how, found in indices_of(knnkit.from_sklearn(fitted).build(), queries, device, tmp_path).items():
        assert [row for row in range(len(queries)) if found[row] != expected[row]] == [], how


@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
@pytest.mark.parametrize("maps", [PCA(2), NeighborhoodComponentsAnalysis(3, max_iter=5, random_state=0)])
def test_copies_and_mirrored_rows_are_tied_behind_a_linear_map(
    maps: Any, metric: str, device: DeviceProcess, tmp_path: Path
) -> None:
    rng = np.random.default_rng(8)
    rows = rng.integers(-2, 3, (200, 5)).astype(np.float64)
    classifier = KNeighborsClassifier(6, metric=metric)
    fitted = make_pipeline(maps, classifier).fit(rows, rng.integers(0, 3, len(rows)))
    queries = ties.queries_of(rows, rng)
    differences = (queries[:, None].astype(np.float64) - rows) @ fitted[0].components_.T
    distances = np.round(np.linalg.norm(differences, axis=2, ord=1 if metric == "manhattan" else 2), 9)
    expected = np.argsort(distances, axis=1, kind="stable")[:, :6].tolist()
    for how, found in indices_of(knnkit.from_sklearn(fitted).build(), queries, device, tmp_path).items():
        assert found == expected, how


def test_neighbours_that_float32_cannot_order_are_ordered(device: DeviceProcess, tmp_path: Path) -> None:
    """Readings with two digits, such as of the weather, have many distances that agree to six digits."""
    rng = np.random.default_rng(9)
    rows = np.round(rng.normal((15.0, 60.0, 1013.0), (8.0, 20.0, 9.0), (1500, 3)), 1).astype(np.float32)
    queries = np.round(rng.normal((15.0, 60.0, 1013.0), (8.0, 20.0, 9.0), (450, 3)), 1).astype(np.float32)
    training, k = dataset(rows, rng.integers(0, 3, 1500)), 15
    model = build_model(KnnSpec("weather", k, scale="standard"), training)
    expected = model.reference.answer(queries).indices[:, :k].tolist()
    assert set(map(str, indices_of(model, queries, device, tmp_path).values())) == {str(expected)}
    assert knnkit.TfKNN(rows, k=k, scale="standard").kneighbors(queries)[1].tolist() == expected

"""A search in a projection finds the same neighbours, in a fraction of the work, wherever rows lie near a plane."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from support.device_process import DeviceProcess
from support.judging import training, verdict
from support.machines import said_on_each
from support.models import build_model

import knnkit
from knnkit.model.graph.search import OVER_FETCH
from knnkit.model.index import projection
from knnkit.model.index.cost_sample import Sample
from knnkit.model.reference.enrolment import enrol
from knnkit.model.reference.spec import KnnSpec


def near_a_plane(rows: int, width: int, *, seed: int, noise: float = 0.05, offset: float = 0.0) -> np.ndarray:
    """Rows that lie near one plane of six dimensions, the same for every seed."""
    plane = np.random.default_rng(0).normal(size=(6, width))
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, 6)) @ plane + rng.normal(size=(rows, width)) * noise + offset


def found(rows: np.ndarray, k: int = 3, metric: Any = "euclidean") -> projection.Projection | None:
    enrolled = enrol(training(rows), [], metric)
    return projection.find_projection(Sample(enrolled.space, enrolled.enrolled, k), OVER_FETCH)


def test_a_projection_makes_no_row_longer_and_is_small_where_rows_lie_near_a_plane() -> None:
    chosen = found(near_a_plane(3000, 96, seed=1))
    assert chosen is not None
    assert chosen.matrix.shape[1] <= 24
    assert chosen.candidates < 60
    assert np.linalg.norm(chosen.matrix.astype(np.float64), ord=2) < 1.0
    assert chosen.rows.shape == (3000, chosen.matrix.shape[1])


def test_a_projection_is_not_chosen_where_it_would_blur_what_all_coordinates_tell_apart() -> None:
    rows = near_a_plane(3000, 96, seed=1)
    rows[:, 3] *= 300.0  # one feature in another unit: what float32 rounds of it, a product more or less matters
    assert found(rows) is None


_PRINT = """
import hashlib, sys
import numpy as np
sys.path[:0] = sys.argv[1:]
from sklearn.datasets import load_digits
from knnkit.data.dataset import dataset
from knnkit.model.reference.enrolment import enrol
from knnkit.model.index.projection import find_projection
from knnkit.model.index.cost_sample import Sample
rng = np.random.default_rng(0)
flat = rng.normal(size=(3000, 4)) @ rng.normal(size=(4, 64))
large = np.kron(load_digits().images, np.ones((1, 2, 2))).reshape(-1, 256)
for rows in (flat, large):
    enrolled = enrol(dataset(rows.astype(np.float32), np.zeros(len(rows), int)), [], "euclidean")
    found = find_projection(Sample(enrolled.space, enrolled.enrolled, 3), 3)
    print(found.candidates, hashlib.sha256(found.matrix.tobytes() + found.rows.tobytes()).hexdigest())
"""


def test_a_projection_does_not_depend_on_the_processor_or_its_threads() -> None:
    """The axes of equal eigenvalues, and of none, are whatever the kernels of a BLAS make of them."""
    assert len(said_on_each(_PRINT)) == 1


@pytest.mark.parametrize("kind", ["noise in every coordinate", "few coordinates", "few rows", "manhattan"])
def test_where_a_projection_does_not_pay_there_is_none(kind: str) -> None:
    rng = np.random.default_rng(0)
    if kind == "noise in every coordinate":
        assert found(rng.normal(size=(3000, 96))) is None
    elif kind == "few coordinates":
        assert found(near_a_plane(3000, 32, seed=1)) is None
    elif kind == "few rows":
        assert found(near_a_plane(300, 96, seed=1)) is None
    else:
        assert found(near_a_plane(3000, 96, seed=1), metric="manhattan") is None


@pytest.mark.parametrize(
    "spec",
    [
        KnnSpec("plane", 5, "euclidean", "uniform", "none"),
        KnnSpec("plane", 5, "euclidean", "distance", "standard"),
        KnnSpec("plane", 1, "sqeuclidean", "uniform", "minmax", 0.95),
        KnnSpec("plane", 5, "cosine", "uniform", "standard"),
        KnnSpec("plane", 3, "cosine", "distance", "none"),
    ],
    ids=lambda spec: f"{spec.metric} {spec.weights} {spec.scale}",
)
def test_no_row_is_different_near_the_plane_or_far_off_it(spec: KnnSpec, device: DeviceProcess, tmp_path: Path) -> None:
    offset = 1e4 if spec.scale == "standard" else 0.0
    rows = near_a_plane(4000, 128, seed=1, offset=offset)
    rows[1000:1100] = rows[1000]  # exact ties, more of them than there are candidates
    model = build_model(spec, training(rows))
    assert model.info.searched is not None
    rng = np.random.default_rng(2)
    near = near_a_plane(30, 128, seed=3, offset=offset)
    off = near[:20] + rng.normal(size=(20, 128)) * rng.choice([1.0, 100.0], (20, 1))
    queries = np.concatenate([near, off, rows[995:1005], rows[::500], np.full((1, 128), offset)])
    for one_by_one in (False, True):
        said, _ = verdict(device, model, queries, tmp_path, one_by_one=one_by_one)
        assert said.differences == ()
        assert said.identical + said.equivalent == len(queries)


def test_rows_near_the_plane_are_answered_by_the_graph_alone(device: DeviceProcess, tmp_path: Path) -> None:
    model = build_model(KnnSpec("plane", 3), training(near_a_plane(6000, 64, seed=1)))
    said, settled = verdict(device, model, near_a_plane(300, 64, seed=5), tmp_path)
    assert said.identical == 300
    assert settled <= 6
    # The rows stand in the file once, beside a projection that is a fraction of them.
    matrix = 6000 * 64 * 4
    assert matrix < len(model.data) < 1.6 * matrix


def test_a_pipeline_with_pca_is_searched_in_a_projection_too(device: DeviceProcess, tmp_path: Path) -> None:
    rows = near_a_plane(5000, 80, seed=1)
    labels = np.random.default_rng(1).integers(0, 3, 5000)
    pipeline = make_pipeline(PCA(60, random_state=0), KNeighborsClassifier(3)).fit(rows, labels)
    model = knnkit.from_sklearn(pipeline).build()
    queries = near_a_plane(50, 80, seed=4)
    said, _ = verdict(device, model, queries, tmp_path)
    assert said.differences == ()

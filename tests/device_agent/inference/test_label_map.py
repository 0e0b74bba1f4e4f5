"""The label map: wherever it says a label, the float64 reference says the same; what it cannot prove, it leaves."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from device_agent.inference import label_map
from device_agent.inference.label_map import UNDECIDED, LabelMap
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.model_info import KnnInfo, Reject
from knnkit.model.reference.classifier import Reference
from knnkit.model.reference.space import affine, make_space

Rows = NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Case:
    """A classifier: its label map, its training rows, and the reference that the map must agree with."""

    map: LabelMap | None
    rows: Rows
    reference: Reference

    def wrong(self, queries: Rows) -> Rows:
        """Returns the queries of which the map says another label than the reference."""
        assert self.map is not None
        said = self.map.look_up(queries)
        queries, said = queries[said != UNDECIDED], said[said != UNDECIDED]
        return queries[self.reference.answer(queries).label != said]


def make(rows: Rows, classes: NDArray[np.int32], k: int, *, scale: Any = None, **more: Any) -> Case:
    """Draws the map of a classifier over raw training rows; `more` are fields of knn.json."""
    n_classes = int(classes.max()) + 1
    info = KnnInfo(
        name="test", k=k, n_features=rows.shape[1], feature_names=(), classes=tuple(range(n_classes)),
        metric=more.get("metric", "euclidean"), weights=more.get("weights", "uniform"), scale="none",
        n_train=len(rows), batch=1, fingerprint="", minimum_runtime="", versions={}, reject=more.get("reject"),
    )  # fmt: skip
    space, enrolled = make_space(rows, [] if scale is None else [affine(0.0, scale)], info.metric)
    drawn = label_map.draw(enrolled, classes, space.centre, space.scale, info)
    reference = Reference(space, enrolled, classes, n_classes, k, info.weights, reject=info.reject)
    return Case(drawn, rows, reference)


def hard_queries(case: Case, rng: np.random.Generator) -> Rows:
    """Rows where a mistake would show: borders and corners of cells and a bit beside, ties, training rows, outside."""
    found, train = case.map, case.rows.astype(np.float64)
    assert found is not None
    cells = np.array(found.table.shape)
    numbers = rng.integers(-1, cells + 1, (60, len(cells)))
    inside = rng.random(numbers.shape) * rng.integers(0, 2, numbers.shape)  # on a border in some coordinates
    corner = (found.centre + found.first + (numbers + inside) / found.per_unit).astype(np.float32)
    pairs = train[rng.integers(0, len(train), (30, 2))]
    queries = np.concatenate([
        corner,
        np.nextafter(corner, np.float32(np.inf)),
        np.nextafter(corner, np.float32(-np.inf)),
        case.rows,
        pairs.mean(axis=1).astype(np.float32),  # as far from the one as from the other
        (train + rng.normal(0, 0.02, train.shape) * np.ptp(train, axis=0)).astype(np.float32),
    ])  # fmt: skip
    return np.asarray(queries[np.isfinite(queries).all(axis=1)], dtype=np.float32)


@settings(deadline=None, max_examples=120)
@given(
    seed=st.integers(0, 2**32 - 1),
    coordinates=st.integers(1, 2),
    count=st.integers(1, 60),
    n_classes=st.integers(1, 4),
    k=st.integers(1, 60),
    metric=st.sampled_from(["euclidean", "sqeuclidean", "manhattan"]),
    weights=st.sampled_from(["uniform", "uniform", "distance"]),
    grid=st.sampled_from([0, 0, 2, 6]),
    offset=st.sampled_from([0.0, 0.0, 100.0, 1e4]),
    size=st.sampled_from([1.0, 1.0, 1e-27, 1e-12, 1e12, 1e27]),
    stretch=st.sampled_from([1.0, 1.0, 50.0, 3000.0]),
    constant=st.booleans(),
    accepted=st.sampled_from([None, None, 0.5, 0.95]),
)
def test_what_the_map_decides_is_what_the_reference_says(
    seed: int, coordinates: int, count: int, n_classes: int, k: int, metric: str, weights: str, grid: int,
    offset: float, size: float, stretch: float, constant: bool, accepted: float | None,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, n_classes, count).astype(np.int32)
    places = rng.normal(0.0, 1.0, (n_classes, coordinates))[classes] + rng.normal(0.0, 0.4, (count, coordinates))
    if grid:  # many exact ties and duplicates
        places = np.round(places * grid) / grid
    places[:, 0] *= stretch
    if constant:
        places[:, -1] = 0.25
    rows = ((places + offset) * size).astype(np.float32)
    case = make(rows, classes, min(k, count), scale=1.0 / size, metric=metric, weights=weights)
    if accepted is not None:
        kth = case.reference.answer(rows).distances[:, min(k, count) - 1]
        thresholds = np.quantile(kth, rng.uniform(accepted, 1.0, int(classes.max()) + 1)) * 1.5
        reject = Reject(accepted, tuple(thresholds.tolist()))
        case = make(rows, classes, min(k, count), scale=1.0 / size, metric=metric, weights=weights, reject=reject)
    if case.map is not None:
        assert case.wrong(hard_queries(case, rng)).tolist() == []


def blobs(count: int, coordinates: int) -> tuple[Rows, NDArray[np.int32]]:
    rng = np.random.default_rng(1)
    classes = rng.integers(0, 5, count).astype(np.int32)
    centres = rng.uniform(-5, 5, (5, coordinates))
    return (centres[classes] + rng.normal(0.0, 1.0, (count, coordinates))).astype(np.float32), classes


@pytest.mark.parametrize(("coordinates", "least"), [(1, 0.8), (2, 0.95)])
def test_most_rows_are_decided(coordinates: int, least: float) -> None:
    rows, classes = blobs(1400, coordinates)
    case = make(rows[:700], classes[:700], 3)
    assert case.map is not None
    assert np.mean(case.map.look_up(rows[700:]) != UNDECIDED) > least
    assert case.wrong(rows[700:]).tolist() == []


def test_rejected_rows_are_told_as_far_as_the_map_reaches() -> None:
    rows, classes = blobs(300, 2)
    case = make(rows, classes, 3, reject=Reject(0.95, (0.4, 0.5, 0.6, 0.7, 0.8)))
    assert case.map is not None
    grid = np.stack(np.meshgrid(*(np.linspace(-6, 6, 80),) * 2), axis=-1).reshape(-1, 2).astype(np.float32)
    said = case.map.look_up(grid)
    assert {constants.UNKNOWN, *range(5)} <= set(said.tolist())
    assert case.wrong(grid).tolist() == []


@pytest.mark.parametrize("place", [3.0e38, -3.0e38, 1e6, -1e6])
def test_a_row_far_outside_is_left(place: float) -> None:
    rows, classes = blobs(50, 2)
    case = make(rows, classes, 3)
    assert case.map is not None
    assert case.map.look_up(np.full((1, 2), place, np.float32)).tolist() == [UNDECIDED]


def test_where_all_rows_vote_there_is_one_answer_everywhere() -> None:
    rows, classes = blobs(40, 2)
    case = make(rows, classes, 40)
    assert case.map is not None
    assert set(case.map.table[1:-1, 1:-1].ravel().tolist()) == {np.bincount(classes).argmax()}


def test_a_single_training_row() -> None:
    case = make(np.array([[7.0, 7.0]], np.float32), np.zeros(1, np.int32), 1)
    assert case.map is not None
    assert case.map.look_up(case.rows).tolist() == [0]


def test_what_float32_cannot_tell_apart_has_no_map() -> None:
    rows, classes = blobs(40, 2)
    assert make(rows * np.float32(1e-36), classes, 3).map is None


def test_the_same_model_has_the_same_map() -> None:
    rows, classes = blobs(200, 2)
    first, second = (make(rows, classes, 3).map for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.table.tobytes() == second.table.tobytes()

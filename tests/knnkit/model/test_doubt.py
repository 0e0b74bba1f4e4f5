"""Rows in doubt: few of them, and each is settled among the rows that the graph has ranked."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from support.device_process import DeviceProcess
from support.models import build_model
from support.runtimes import RUNTIMES, TFLITE

from device_agent.inference.block_search import BlockSearch
from device_agent.inference.tflite_knn import TfliteKNN
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.model_info import Gates
from knnkit import from_sklearn
from knnkit.data.dataset import dataset
from knnkit.model.build import make_module, make_reference
from knnkit.model.built import BuiltModel
from knnkit.model.golden import make_golden
from knnkit.model.graph.preprocess import enter
from knnkit.model.reference.float32_errors import EPSILON, relative_gap, summed_at_once
from knnkit.model.reference.space import Step, make_space
from knnkit.model.reference.spec import KnnSpec
from knnkit.model.selfcheck import self_check

K = 4


def nearly_tied(count: int, width: int, gaps: np.ndarray, seed: int, power: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Returns float32 rows and queries; K + 1 rows are about as far from each query: each by one of `gaps` farther.

    In sums of differences to a `power`.
    """
    rng = np.random.default_rng(seed)
    spread = 1.0 if width > 8 else 30.0
    queries = spread * rng.normal(size=(len(gaps), width))
    rows = [spread * rng.normal(size=(count, width))]
    for query, gap in zip(queries, gaps):
        away = rng.normal(size=(K + 1, width))
        away *= 0.5 * (1.0 + gap * np.arange(K + 1)[:, np.newaxis]) ** (1.0 / power)
        away /= np.linalg.norm(away, power, axis=1, keepdims=True)
        rows.append(query + rng.permutation(away))
    return np.concatenate(rows).astype(np.float32), queries.astype(np.float32)


def test_a_mapped_row_is_off_by_its_blur_at_most_in_the_metric_of_the_model() -> None:
    """All coordinates but one have the same quotient, and lose the same: their sum is sqrt(p) times their length."""
    signs = np.where(np.random.default_rng(0).normal(size=(1, 784)) > 0, 1.0, -1.0)
    row = (signs * np.where(np.arange(784) == 0, 1071.0, 536.0)).astype(np.float32)  # 536 / 1071 loses nearly u
    for metric, order in (("euclidean", 2), ("manhattan", 1)):
        space, _ = make_space(row * 1e-3, [Step("normalize", np.array(np.inf), np.array(0.0))], metric)
        z, blur = (each.numpy() for each in enter(space, row))
        off = np.linalg.norm(z[0].astype(np.float64) - space.enter(row)[0], order)
        assert 0.01 * blur[0] < off < blur[0] - space.tied


def test_no_order_of_addition_is_off_by_half_the_gap() -> None:
    """Products and sums in float32, in orders that lose much, against float64; in blocks, as in the graph."""
    rng = np.random.default_rng(0)
    for width in (1, 2, 3, 8, 16, 64, 255, 256, 600, 2304, 20_001):
        block = summed_at_once(width)
        for terms in (rng.normal(size=(200, width)), np.full((200, width), 0.1), 10.0 ** rng.normal(size=(200, width))):
            rows, scale = terms.astype(np.float32), np.float64(0.3)
            exact = ((rows.astype(np.float64) * scale) ** 2).sum(axis=1)
            parts = (rows * np.float32(scale)) ** 2
            for order in (parts, parts[:, ::-1], np.sort(parts, axis=1), -np.sort(-parts, axis=1)):
                blocks = np.pad(order, ((0, 0), (0, -width % block))).reshape(200, -1, block)
                sums = np.add.accumulate(blocks, axis=2, dtype=np.float32)[:, :, -1]
                total = np.add.accumulate(sums, axis=1, dtype=np.float32)[:, -1]
                assert (np.abs(total - exact) <= (relative_gap(width) / 2 - 4 * EPSILON) * exact).all()


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize(
    ("width", "metric"),
    [
        *((width, "euclidean") for width in (3, 16, 100, 300)),
        (16, "sqeuclidean"),
        (16, "manhattan"),
        (300, "manhattan"),
    ],
)
def test_nearly_tied_rows_are_in_order(
    width: int, metric: Any, weights: Any, device: DeviceProcess, tmp_path: Path
) -> None:
    apart, power = 10.0 ** np.random.default_rng(width).uniform(-8.5, -4.0, 150), 1 if metric == "manhattan" else 2
    rows, queries = nearly_tied(300, width, apart, seed=1, power=power)
    measures = np.sort((np.abs(queries[:, np.newaxis].astype(np.float64) - rows) ** power).sum(axis=2), axis=1)
    gaps = measures[:, K] / measures[:, K - 1] - 1.0
    model = build_model(KnnSpec("near", K, metric, weights=weights), dataset(rows, np.arange(len(rows)) % 3))
    answers = model.reference.answer(queries)
    expected = answers.indices[:, :K]
    (tmp_path / "m").write_bytes(model.data)
    for runtime in TFLITE:
        for one_by_one in (False, True):
            found = device.classify(tmp_path / "m", queries, one_by_one=one_by_one, runtime=runtime)
            assert found.indices.tolist() == expected.tolist(), (runtime, one_by_one)
            assert found.label.tolist() == answers.label.tolist()
            # A gap that sums in any order can close is in doubt, and hardly any other.
            assert 10 < np.count_nonzero(gaps < 0.3 * relative_gap(width)) <= found.settled
            if weights == "uniform":  # votes by distance that are nearly equal are in doubt, too
                assert found.settled <= np.count_nonzero(gaps < 1.5 * relative_gap(width)) + 2


@pytest.mark.parametrize(("width", "metric"), [(2304, "euclidean"), (2304, "manhattan"), (30_011, "euclidean")])
def test_wide_rows_keep_the_margin(width: int, metric: Any, device: DeviceProcess, tmp_path: Path) -> None:
    """Rows that differ equally in all features: the sum of these terms loses most in float32."""
    level = np.random.default_rng(width).uniform(0.0, 1.0, 60).astype(np.float32)
    own = dataset(np.repeat(level[:, np.newaxis], width, axis=1), np.arange(60) % 3)
    model = build_model(KnnSpec("wide", K, metric), own.take(np.arange(40)))
    golden = make_golden(model, own.take(np.arange(40, 60)), own.take(np.arange(40)))
    assert self_check(model, golden, Gates()).identical == 20
    (tmp_path / "m").write_bytes(model.data)
    for runtime in TFLITE:
        for one_by_one in (False, True):
            found = device.classify(tmp_path / "m", golden.rows, one_by_one=one_by_one, runtime=runtime)
            assert found.indices.tolist() == golden.indices[:, :K].tolist()
            assert (np.abs(found.distances - golden.distances[:, :K]) <= 1e-5 * golden.distances[:, K - 1 : K]).all()


def test_wide_rows_of_equal_terms_keep_their_order(device: DeviceProcess, tmp_path: Path) -> None:
    """A sum of one term after the other loses more than the rows differ by; rational numbers give the order."""
    rng, width, count = np.random.default_rng(0), 20_000, 120
    camps = np.repeat([0.5, -0.5], count // 2)  # the centre is between them, far from both
    level = (camps + 1e-4 * rng.uniform(-50.0, 50.0, count)).astype(np.float32)
    asked = (level[rng.integers(0, count, 40)] + 1e-4 * rng.uniform(-3.0, 3.0, 40)).astype(np.float32)
    exact = [Fraction(each) for each in level.tolist()]
    order = [
        sorted(range(count), key=[abs(row - Fraction(query)) for row in exact].__getitem__) for query in asked.tolist()
    ]
    rows, queries = (np.repeat(each[:, np.newaxis], width, axis=1) for each in (level, asked))
    (tmp_path / "m").write_bytes(build_model(KnnSpec("wide", K), dataset(rows, np.arange(count) % 3)).data)
    for runtime, packed in product(RUNTIMES, (True, False)):
        found = device.classify(tmp_path / "m", queries, runtime=runtime, packed=packed)
        assert found.indices.tolist() == [each[:K] for each in order], (runtime, packed)


@pytest.fixture(scope="module")
def large() -> tuple[BuiltModel, np.ndarray]:
    """A model with the search in eight bits, and queries of which many are in doubt."""
    rows, queries = nearly_tied(4000, 80, 10.0 ** np.linspace(-8.0, -5.5, 80), seed=2)
    return build_model(KnnSpec("large", K), dataset(rows, np.arange(len(rows)) % 3)), queries


@pytest.mark.parametrize("search", [constants.FULL, constants.QUANTIZED])
def test_a_row_in_doubt_is_settled_without_reading_all_rows(
    search: str, large: tuple[BuiltModel, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, queries = large
    expected = model.reference.answer(queries)
    passes = []
    monkeypatch.setattr(BlockSearch, "rows_near", lambda *_: passes.append(1))
    today, older = model.data, model.data.replace(b"candidates\0", b"candidated\0")  # an older model lists none
    for data, all_pass in ((today, False), (older, True)):
        (tmp_path / "m").write_bytes(data)
        opened = TfliteKNN(tmp_path / "m", runtime="ai_edge_litert", search=search)
        passes.clear()
        found = [opened.classify(queries[row : row + 1]) for row in range(len(queries))]
        assert np.concatenate([each.indices for each in found]).tolist() == expected.indices[:, :K].tolist()
        assert np.concatenate([each.label for each in found]).tolist() == expected.label.tolist()
        assert opened.settled > 20
        assert len(passes) == (opened.settled if all_pass else 0)


def nearly_parallel(count: int, width: int, gaps: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns float32 rows and queries; the K-th row has about the same angle to each query as the next."""
    rng = np.random.default_rng(seed)
    queries, rows = rng.normal(size=(len(gaps), width)), [rng.normal(size=(count, width))]
    for query, gap in zip(queries, gaps):
        away = rng.normal(size=(K + 1, width))
        away -= (away @ query)[:, np.newaxis] * query / (query @ query)
        away /= np.linalg.norm(away, axis=1, keepdims=True)
        away *= 0.2 * np.append(np.arange(1.0, K + 1), K * (1.0 + gap))[:, np.newaxis] / K
        near = query / np.linalg.norm(query) + rng.permutation(away)
        rows.append(near * 2.0 ** rng.integers(-2, 3, (K + 1, 1)))
    return np.concatenate(rows).astype(np.float32), queries.astype(np.float32)


@pytest.mark.parametrize(
    ("metric", "weights"), [("manhattan", "uniform"), ("cosine", "uniform"), ("cosine", "distance")]
)
def test_one_row_in_doubt_needs_no_pass_over_all_rows(
    metric: Any, weights: Any, device: DeviceProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart = 10.0 ** np.linspace(-18.0 if metric == "cosine" else -8.0, -5.5, 120)
    rows, queries = nearly_parallel(300, 16, apart, 3) if metric == "cosine" else nearly_tied(300, 16, apart, 3, 1)
    rows[-7:] = rows[:7] * np.float32(2.0)  # by cosine, these are tied with the first
    queries[:7] = rows[:7]
    model = build_model(KnnSpec("near", K, metric, weights), dataset(rows, np.arange(len(rows)) % 3))
    expected = model.reference.answer(queries)
    (tmp_path / "m").write_bytes(model.data)
    passes, search = [], BlockSearch.rows_near
    monkeypatch.setattr(BlockSearch, "rows_near", lambda *way: [passes.append(1), search(*way)][1])
    opened = TfliteKNN(tmp_path / "m", runtime="ai_edge_litert")
    alone = [opened.classify(queries[row : row + 1]) for row in range(len(queries))]
    assert np.concatenate([each.indices for each in alone]).tolist() == expected.indices[:, :K].tolist()
    assert np.concatenate([each.label for each in alone]).tolist() == expected.label.tolist()
    assert len(passes) < opened.settled / 2
    assert opened.settled > 20
    found = device.classify(tmp_path / "m", queries, one_by_one=True, runtime=TFLITE[0])
    assert found.indices.tolist() == expected.indices[:, :K].tolist()
    assert found.label.tolist() == expected.label.tolist()


def test_other_programs_and_older_agents_see_the_outputs_of_before(
    large: tuple[BuiltModel, np.ndarray], tmp_path: Path
) -> None:
    from ai_edge_litert.interpreter import Interpreter

    model, queries = large
    (tmp_path / "m").write_bytes(model.data)
    interpreter = Interpreter(str(tmp_path / "m"))
    for signature in interpreter.get_signature_list().values():
        assert sorted(signature["outputs"]) == sorted([*constants.ANSWERS, constants.OUTPUT_CERTAIN])
    answers = interpreter.get_signature_runner(constants.SIGNATURE_ONE)(rows=queries[:1])
    assert answers[constants.OUTPUT_INDICES].shape == (1, K)


@pytest.mark.parametrize(
    ("metric", "mapped", "listed"),
    [("euclidean", True, True), ("manhattan", False, True), ("manhattan", True, False), ("chebyshev", False, False)],
)
def test_no_bound_is_listed_that_is_not_proven(metric: str, mapped: bool, listed: bool) -> None:
    """The bound of manhattan knows no errors of steps; of chebyshev, the graph ranks rows by another metric."""
    rows = np.random.default_rng(0).normal(size=(60, 9))
    steps = [PCA(5), KNeighborsClassifier(3, metric=metric)][not mapped :]
    fitted = from_sklearn(make_pipeline(*steps).fit(rows, np.arange(60) % 2)).fitted
    graph = make_module(fitted.enrolment, make_reference(fitted.spec, fitted.enrolment))
    outputs = graph.answer(rows[:1].astype(np.float32), listed=True)
    assert (constants.BEYOND in outputs) == (constants.CANDIDATES in outputs) == listed


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
def test_rows_whose_squares_vanish_are_in_order(metric: Any, device: DeviceProcess, tmp_path: Path) -> None:
    """64 differences of 1e-19 have no squares in float32, one of 1.2e-19 has; yet the other row is farther."""
    some, farther, nearer = np.random.default_rng(0).normal(size=(20, 64)), np.full((1, 64), 1e-19), np.zeros((1, 64))
    nearer[0, 0] = 1.2e-19
    rows, query = np.concatenate([some, -some, farther, nearer]).astype(np.float32), np.zeros((1, 64), np.float32)
    (tmp_path / "m").write_bytes(build_model(KnnSpec("tiny", 2, metric), dataset(rows, np.arange(42) % 2)).data)
    for runtime in TFLITE:
        for one_by_one in (False, True):
            found = device.classify(tmp_path / "m", query, one_by_one=one_by_one, runtime=runtime)
            assert found.indices.tolist() == [[41, 40]], (runtime, one_by_one)


@pytest.mark.parametrize("width", [3, 16, 64])
@pytest.mark.parametrize("size", [1e20, 1e36, 3e37, 2.0**116])
def test_a_scale_whose_square_vanishes_hides_no_neighbour(
    size: float, width: int, device: DeviceProcess, tmp_path: Path
) -> None:
    """Queries are multiplied by the scale twice before their scores: here float32 reads some of them as 0."""
    rng = np.random.default_rng(0)
    rows, queries = (np.float32(rng.normal(size=(count, width)) * size) for count in (60, 200))
    if size == 2.0**116:  # on a lattice, near its corner
        rows, queries = (
            rng.integers(0, 5, each.shape).astype(np.float32) * np.float32(size) for each in (rows, queries)
        )
        rows[:2] = [[0.0], [64.0 * size]]
    model = build_model(KnnSpec("vast", 3, scale="minmax"), dataset(rows, np.arange(60) % 2))
    expected = model.reference.answer(queries).indices[:, :3].tolist()
    (tmp_path / "m").write_bytes(model.data)
    for runtime in TFLITE:
        for one_by_one in (False, True):
            found = device.classify(tmp_path / "m", queries, one_by_one=one_by_one, runtime=runtime)
            assert found.indices.tolist() == expected, (runtime, one_by_one)

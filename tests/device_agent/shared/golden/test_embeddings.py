"""A label that is called certain does not change, wherever the row moves within its error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from device_agent.shared.golden.embeddings import is_certain, judge_embeddings
from device_agent.shared.golden.error_gates import stage_failures
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.input_info import Input
from device_agent.shared.protocol.model_info import KnnInfo, Reject
from device_agent.shared.votes import votes

RNG = np.random.default_rng(11)
N_TRAIN, DIM = 40, 3


def info_of(k: int, metric: Any, weights: Any, reject: Reject | None, n_classes: int, bound: float) -> KnnInfo:
    return KnnInfo(
        name="x", k=k, n_features=DIM, feature_names=("a", "b", "c"), classes=tuple(range(n_classes)), metric=metric,
        weights=weights, scale="none", n_train=N_TRAIN, batch=8, fingerprint="", minimum_runtime="1.7.0", versions={},
        reject=reject, input=Input((), bound=bound),
    )  # fmt: skip


def measured(train: np.ndarray, query: np.ndarray, metric: str) -> np.ndarray:
    gap = train - query
    if metric == "manhattan":
        return np.abs(gap).sum(axis=1)
    squares = (gap * gap).sum(axis=1)
    return np.asarray({"euclidean": np.sqrt(squares), "sqeuclidean": squares, "cosine": squares / 2}[metric])


def answer(
    train: np.ndarray, codes: np.ndarray, query: np.ndarray, info: KnnInfo
) -> tuple[int, np.ndarray, np.ndarray]:
    distances = measured(train, query, info.metric)
    order = np.argsort(distances, kind="stable")
    label = int(np.argmax(votes(codes[order[: info.k]][None], distances[order[: info.k]][None], info)))
    if info.reject and distances[order[info.k - 1]] > info.reject.thresholds[label]:
        label = constants.UNKNOWN
    return label, order, distances[order]


def golden_of(train: np.ndarray, codes: np.ndarray, queries: np.ndarray, info: KnnInfo, tolerance: float) -> Golden:
    found = [answer(train, codes, query, info) for query in queries]
    order, distances = np.stack([each[1] for each in found]), np.stack([each[2] for each in found])
    label = np.array([each[0] for each in found], np.int32)
    rows = queries.astype(np.float32)
    full = np.full(len(rows), tolerance)
    return Golden(
        info.metric, rows, label, label, order.astype(np.int32), distances, codes[order].astype(np.int32), full
    )


@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("rejects", [False, True])
def test_no_move_within_the_error_changes_a_certain_label(metric: Any, weights: Any, rejects: bool) -> None:
    certain = changed = 0
    for k, n_classes in ((1, 2), (3, 2), (4, 3), (7, 4)):
        train = RNG.normal(size=(N_TRAIN, DIM)) if metric != "cosine" else _unit(RNG.normal(size=(N_TRAIN, DIM)))
        train[:5] = train[5:10]  # ties
        codes = RNG.integers(0, n_classes, N_TRAIN).astype(np.int32)
        far = float(np.median(measured(train, train[0], metric)) / 2)
        reject = Reject(0.9, tuple((far * RNG.uniform(0.8, 1.2, n_classes)).tolist())) if rejects else None
        info = info_of(k, metric, weights, reject, n_classes, bound=10.0)
        queries = np.concatenate([train[:3], RNG.normal(size=(12, DIM)) * 0.7])
        golden = golden_of(train, codes, queries, info, tolerance=1e-12)
        for row, query in enumerate(queries):
            for size in (1e-3, 0.02, 0.1, 0.4):
                sure = is_certain(golden, info, row, size, unit=1.0)
                certain += sure
                steps = RNG.normal(size=(12, DIM))
                length = np.abs(steps).sum(axis=1) if metric == "manhattan" else np.linalg.norm(steps, axis=1)
                for step in steps / length[:, None] * size * (1 - 1e-9):
                    differs = answer(train, codes, query + step, info)[0] != golden.label[row]
                    changed += differs
                    assert not (sure and differs), (k, row, size)
    assert certain > 40, "the bound is of use"
    assert changed > 20, "and there was something to find"


def _unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def test_a_row_that_moves_beyond_the_listed_neighbours_is_not_certain() -> None:
    train = RNG.normal(size=(N_TRAIN, DIM))
    info = info_of(3, "euclidean", "uniform", None, 1, bound=0.01)
    golden = golden_of(train, np.zeros(N_TRAIN, np.int32), train[:1] + 0.01, info, tolerance=1e-9)
    assert is_certain(golden, info, 0, 0.005, unit=1.0)
    assert not is_certain(golden, info, 0, 0.02, unit=1.0)


def test_the_three_counts_are_apart() -> None:
    train = np.array([[0.0, 0, 0], [10, 0, 0]])
    info = info_of(1, "euclidean", "uniform", None, 2, bound=0.1)
    queries = np.array([[1.0, 0, 0], [4.99, 0, 0], [9.0, 0, 0], [1.0, 0, 0]])
    golden = golden_of(train, np.array([0, 1], np.int32), queries, info, tolerance=1e-5)
    label = np.array([0, 1, 0, 0], np.int32)
    found = judge_embeddings(golden, info, label, np.array([0.01, 0.05, 0.05, 0.2]), 1, margin=1e-5)
    assert (found.rows, found.above, found.search_different) == (4, 1, 1)
    assert (found.labels_same, found.labels_open, found.labels_different) == (2, 1, 1)
    assert found.largest_error == pytest.approx(0.2)
    assert [said.split()[1] for said in stage_failures(found)] == ["1", "the", "1"]

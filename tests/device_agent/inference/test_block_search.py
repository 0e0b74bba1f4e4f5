"""The float32 blocks leave out no neighbour, whatever the rows are."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import ties
from support.searching import neighbours, open_model, settle

from device_agent.inference import block_search
from device_agent.inference.exact import ExactKnn
from device_agent.inference.rounded import add_rows
from device_agent.shared.protocol.errors import ModelUnusable

KINDS = ("normal", "whole", "bits", "crowd", "cauchy", "same", "nearer", "mixed", "sides")
UNITS = (1.0, 1.0, 1e4, 1e-4, 1e15, 1e-15, 1e-30, 1e-38)


def _rows(kind: str, count: int, width: int, rng: np.random.Generator) -> np.ndarray:
    rows = rng.normal(size=(count, width))
    if kind in ("whole", "bits"):
        return rng.integers(*((-3, 4) if kind == "whole" else (0, 2)), (count, width)).astype(np.float64)
    if kind == "crowd":  # all about as far from one place
        rows *= (1 + 1e-6 * rng.random((count, 1))) / np.linalg.norm(rows, axis=1, keepdims=True)
    elif kind == "cauchy":
        rows = rng.standard_cauchy((count, width)) ** 3
    elif kind == "same":
        rows[:] = rows[0]
    elif kind == "nearer":  # each row is nearer than the one before
        rows = rows[np.argsort(-np.linalg.norm(rows, axis=1))]
    elif kind == "sides":  # two values in each column
        rows = np.where(rng.random((count, width)) < 0.5, *rng.normal(size=(2, width)))
    elif kind == "mixed":
        rows[:, : width // 2] = np.round(rows[:, : width // 2] * 2) / 2
    return rows


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "manhattan"])
@pytest.mark.parametrize("seed", range(27))
def test_blocks_find_the_neighbours_of_float64(seed: int, metric: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    kind, unit = KINDS[seed % len(KINDS)], UNITS[int(rng.integers(len(UNITS)))]
    count, width = int(rng.choice([1, 5, 300, 1100, 2600])), int(rng.choice([1, 2, 3, 8, 17, 64]))
    rows, k = _rows(kind, count, width, rng), int(min(count, rng.choice([1, 2, 5, 13, 40])))
    one, other = (rows[rng.integers(0, count, 5)] for _ in range(2))
    far = rows[rng.integers(0, count, 2)] * 1000.0
    queries = np.concatenate([one, (one + other) / 2, other + 0.125, rng.permuted(rows, axis=0)[:5], far])
    with np.errstate(over="ignore"):
        rows, queries = (np.clip(each * unit, -3e37, 3e37).astype(np.float32) for each in (rows, queries))
    lattice = 1.0 if unit == 1.0 and kind in ("whole", "bits") else None
    scale = 1.0 if lattice or rng.random() < 0.5 else 10.0 ** rng.integers(-3, 1, width)
    model = open_model(
        tmp_path / "m", rows, k, metric, scale=scale, lattice=lattice, blocks=int(rng.choice([1, 3])),
        weights=("uniform", "distance")[seed % 2],
    )  # fmt: skip
    expected, measures = neighbours(rows, queries, k, metric, scale)
    found = model.answers(queries)
    assert found["indices"].tolist() == expected.tolist()
    distances = np.sqrt(measures) if metric == "euclidean" else measures
    assert np.array_equal(found["distances"], np.minimum(distances, np.finfo(np.float32).max))
    require_same(model, queries, rng)
    require_same_among_candidates(model, rows * np.float64(1.0), scale, queries, rng)


@pytest.mark.parametrize("seed", range(9))
def test_threads_that_share_a_batch_answer_as_one(seed: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever blocks a thread gets, a tie goes to the lower row, also if another thread has found that row."""
    rng = np.random.default_rng(seed)
    kind, metric = KINDS[seed], ("euclidean", "sqeuclidean", "manhattan")[seed % 3]
    rows = _rows(kind, 700, 5, rng).astype(np.float32)
    lattice = 1.0 if kind in ("whole", "bits") else None
    how: Any = {"lattice": lattice, "groups": 8 if seed % 2 and metric != "manhattan" else None, "blocks": 3}
    queries = np.concatenate([rows[::70], rows[::100] + np.float32(0.25)])
    expected = neighbours(rows, queries, 7, metric)[0].tolist()
    monkeypatch.setattr(block_search, "_SCORES", 400)  # some 30 blocks
    answers = [
        open_model(tmp_path / "m", rows, 7, metric, threads=threads, **how).answers(queries)
        for threads in (1, 2, 3, 64)
    ]
    for each in answers:
        assert each["indices"].tolist() == expected
        assert {name: values.tobytes() for name, values in each.items()} == {
            name: values.tobytes() for name, values in answers[0].items()
        }


def test_an_error_in_a_thread_is_an_error_of_the_batch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = np.arange(2000, dtype=np.float32).reshape(1000, 2)
    model = open_model(tmp_path / "m", rows, 3, "euclidean", threads=2)
    monkeypatch.setattr(block_search, "_SCORES", 100)
    score = block_search.BlockSearch._score

    def fails(self: Any, factors: Any, block: Any, start: int, scores: Any) -> Any:
        if start == 500:
            raise ValueError("a damaged row")
        return score(self, factors, block, start, scores)

    before, buffer = threading.active_count(), np.getbufsize()
    monkeypatch.setattr(block_search.BlockSearch, "_score", fails)
    with pytest.raises(ModelUnusable, match="is damaged: a damaged row"):
        model.answers(rows[:10])
    assert threading.active_count() == before
    monkeypatch.undo()
    assert np.getbufsize() == buffer
    assert model.answers(rows[:10])["indices"][:, 0].tolist() == [*range(10)]


def require_same(model: ExactKnn, queries: np.ndarray, rng: np.random.Generator) -> None:
    """One row is answered as many are, with the rows that a graph has found: right, wrong or impossible ones."""
    expected, count = model.answers(queries), len(model._classes)
    right = expected["indices"]
    wrong = np.argsort(rng.random((len(queries), count)), axis=1)[:, : right.shape[1]]
    impossible = rng.integers(-1, count + 1, right[:3].shape)
    for known in (right[:, ::-1], wrong, impossible, np.zeros_like(impossible)):
        alone = [settle(model, each, some) for each, some in zip(queries, known)]
        for name, values in expected.items():
            found = np.reshape([each[name] for each in alone], values[: len(known)].shape)
            assert is_same(model, name, found, values[: len(known)])


def is_same(model: ExactKnn, name: str, found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether the outputs are equal; shares of votes by distance depend on the order of addition."""
    if name == "probabilities" and model._info.weights == "distance":
        return np.allclose(found, expected, rtol=0.0, atol=1e-12)
    return np.array_equal(found, expected)


def require_same_among_candidates(
    model: ExactKnn, rows: np.ndarray, scale: Any, queries: np.ndarray, rng: np.random.Generator
) -> None:
    """One row is answered as many are, whichever rows a graph has ranked, if its bound on the others is right."""
    expected, k = model.answers(queries), model._info.k
    for row, query in enumerate(queries):
        terms = np.abs((query - rows) * scale)
        measures = (terms if model._info.metric == "manhattan" else terms**2).sum(axis=1)
        ranked = np.argsort(measures)
        # float32 may change a share of votes by distance so much.
        off = rng.uniform(-1.0, 1.0, 3) * (model._info.weights == "distance") * (rows.shape[1] + 8 + k / 2) * 2.0**-22
        shares = expected["probabilities"][row] * (1.0 + off)
        for count in rng.integers(1, len(rows) + 1, 1).tolist():
            chosen = ranked[:count] if rng.random() < 0.7 else rng.permutation(len(rows))[:count]
            beyond = np.float32(min(np.delete(measures, chosen).min(initial=1e38) * (1 - 1e-6), 1e38))
            listed = np.sort(chosen).astype(np.int32), [beyond]
            right = expected["indices"][row]
            wrong = right[::-1] if rng.random() < 0.5 else rng.permutation(len(rows))[: len(right)]
            for known in (right, wrong):  # with {}, the graph's own answer is right
                found = settle(model, query, known, listed, shares=shares)
                assert found or (known.tolist() == right.tolist() and shares.argmax() == expected["label"][row])
                for name, values in found.items():
                    assert is_same(model, name, np.array(values), np.reshape(expected[name][row], -1))
    listed = np.array([-1, *range(len(rows))], np.int32), [np.float32(np.inf)]
    right = expected["indices"][0].tolist()
    assert settle(model, queries[0], right, listed)["indices"] == right
    listed = np.arange(len(rows), dtype=np.int32), [np.float32(np.inf)]
    for impossible in ([-1, *right[1:]], [*right[:-1], len(rows)], [right[0]] * k):
        if k > 1 or impossible != right:
            assert settle(model, queries[0], impossible, listed)["indices"] == right


def test_a_bound_that_underflow_may_have_blurred_bounds_nothing(tmp_path: Path) -> None:
    """XNNPACK and some processors read subnormal numbers as zero: a row can be nearer than its measure in float32."""
    rows = np.arange(12, dtype=np.float32)[:, np.newaxis] * np.full((1, 4), 1e-40, np.float32)
    model = open_model(tmp_path / "m", rows, 2, "manhattan")
    listed = np.arange(1, 6, dtype=np.int32), [1e-38]
    assert settle(model, rows[0], [1, 2], listed)["indices"] == [0, 1]


@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
@pytest.mark.parametrize("filler", [np.nan, np.inf, -np.inf, 1.0])
@pytest.mark.parametrize("k", [3, 17, 20, 40])
def test_gaps_between_blocks_hold_any_bytes(
    k: int, filler: float, metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the first rows that are read are fewer than k."""
    monkeypatch.setattr(block_search, "_SCORES", 8 * 20)
    rng = np.random.default_rng(k)
    rows, queries = (rng.normal(size=(count, 3)).astype(np.float32) for count in (40, 8))
    model = open_model(tmp_path / "m", rows, k, metric, blocks=7)
    with (tmp_path / "m").open("r+b") as file:
        for start in range(0, len(rows), 6):
            file.seek((start + start // 6) * rows[0].nbytes)
            file.write(np.full(3, filler, np.float32).tobytes())
    assert model.answers(queries)["indices"].tolist() == neighbours(rows, queries, k, metric)[0].tolist()


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "manhattan"])
@pytest.mark.parametrize("tied", [1e-9, 1e-3, 0.1, 10.0])
def test_ties_of_one_row_are_those_of_many(metric: str, tied: float, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(400, 3)).astype(np.float32)
    rows[200:] = rows[:200] + rng.normal(0.0, tied / 3, (200, 3)).astype(np.float32)
    model = open_model(tmp_path / "m", rows, 5, metric, tied=tied)
    queries = rng.normal(size=(40, 3)).astype(np.float32)
    require_same(model, queries, rng)
    for _ in range(10):
        require_same_among_candidates(model, rows * np.float64(1.0), 1.0, queries, rng)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "manhattan"])
@pytest.mark.parametrize("step", [1.0, 0.5, 8.0, 2.0**-20])
@pytest.mark.parametrize("kind", ["bits", "halves", "offset", "mixed", "far"])
def test_lattices_and_their_edges_are_exact(kind: str, step: float, metric: str, tmp_path: Path) -> None:
    """Sums of squares about 2^24 units, and of differences about 2^24; tied rows are in order."""
    rng = np.random.default_rng(7)
    count, width, k = 1500, 5, 6
    rows = rng.integers(0, 2 if kind == "bits" else 4, (count, width)).astype(np.float64)
    queries = np.concatenate([rng.integers(-1, 5, (20, width)), rows[:10], (rows[:10] + rows[10:20]) / 2])
    scale = 2.0 ** rng.integers(0, 3, width) if kind == "mixed" else np.ones(width)
    if kind == "offset":
        rows, queries = rows + 1000.0, queries + 1000.0
    elif kind == "far":
        ends = [4095.0, 4096.0, 4097.0] if metric != "manhattan" else [2.0**24 - 9, 2.0**24, 2.0**24 + 2]
        queries[:, 0] = rng.choice(ends, len(queries))
        queries[::3, 1:] += [90, 9, 3, 1]  # 4095² + 90² + 9² + 3² + 1² is 2^24 - 1
    elif kind == "halves":
        queries += 0.5
    rows, queries = (rows * step).astype(np.float32), (queries * step).astype(np.float32)
    model = open_model(tmp_path / "m", rows, k, metric, scale=scale, lattice=step, blocks=2)
    expected = ties.neighbours(rows * scale / step, queries * scale / step, k, metric)
    found = model.answers(queries)
    assert found["indices"].tolist() == expected
    _, measures = neighbours(rows, queries, k, metric, scale)
    assert np.array_equal(found["distances"], np.sqrt(measures) if metric == "euclidean" else measures)
    require_same(model, queries, rng)


def test_sums_are_rounded_once() -> None:
    rng = np.random.default_rng(0)
    for width in (1, 2, 3, 7, 16, 385):
        plain, wide = rng.random((300, width)), rng.random((300, width)) * 2.0 ** rng.integers(-300, 300, (300, width))
        halves = 2.0 ** rng.choice([0, -1, -52, -53, -54, -106], (300, width))  # half a unit more or less: ties
        whole = rng.integers(0, 2**24, (300, width)).astype(np.float64)
        for terms in (plain, wide, halves, whole, wide**2 * 1e-300):
            assert add_rows(terms).tolist() == [math.fsum(row) for row in terms.tolist()]
    with pytest.raises(OverflowError):
        add_rows(np.full((2, 2), 1.7e308))

"""The float32 product of the reference leaves out no row that matters: its answers are those of float64 alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from knnkit.data.dataset import dataset
from knnkit.model.build import Options, make_reference
from knnkit.model.reference.classifier import Reference
from knnkit.model.reference.enrolment import enrol
from knnkit.model.reference.spec import KnnSpec
from knnkit.model.scaling import fit_scaler

METRICS = ("euclidean", "sqeuclidean", "cosine", "manhattan")


def _rows(seed: int, rng: np.random.Generator) -> np.ndarray:
    count, width = int(rng.choice([2, 30, 900])), int(rng.choice([1, 2, 7, 60]))
    rows = rng.normal(size=(count, width))
    if seed % 4 == 1:
        rows = np.round(rows * 2)
    elif seed % 4 == 2:  # all about as far from one place
        rows *= (1 + 1e-6 * rng.random((count, 1))) / np.linalg.norm(rows, axis=1, keepdims=True)
    elif seed % 4 == 3:
        rows[rng.integers(0, count, count // 2)] = rows[0]
    return rows * 10.0 ** rng.choice([0, 0, 4, -4, -15, -25, -36])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", range(16))
def test_answers_are_those_of_float64_alone(seed: int, metric: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    rows = _rows(seed, rng).astype(np.float32)
    count, k = len(rows), int(rng.choice([1, 2, 5]))
    k = min(k, count - 1)
    training = dataset(rows, np.arange(count) % 3)
    scale = str(rng.choice(["none", "standard"]))
    enrolment = enrol(training, fit_scaler(rows, scale), metric)
    queries = np.concatenate([rows[:8], rows[rng.integers(0, count, 8)] * 1.125, np.zeros_like(rows[:1])])
    chosen = rng.integers(0, count, 12)

    def ask(margin: float) -> list[Any]:
        reference = make_reference(KnnSpec("short", k, metric, scale=scale), enrolment, None, Options(margin))
        found = [reference.answer(queries), reference.leave_one_out(chosen)]
        return [part.tolist() for answers in found for part in vars(answers).values()]

    short = [ask(margin) for margin in (1e-5, 0.0)]
    everything = lambda self, asked: (np.zeros((len(asked), 0), np.float32), np.full(len(asked), np.nan))  # noqa: E731
    monkeypatch.setattr(Reference, "_score", everything)
    assert short == [ask(margin) for margin in (1e-5, 0.0)]

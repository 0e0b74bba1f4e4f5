"""The article's experiment: 1,000 points around 5 centres, 700 to learn and 300 to ask; every row identical."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier
from support.device_process import DeviceProcess
from support.models import build_model

from device_agent import TfliteKNN
from device_agent.shared.golden.judge import judge
from device_agent.shared.protocol.model_info import Gates
from device_agent.shared.queries import Neighbors
from knnkit import TfKNN
from knnkit.data.dataset import Dataset, load_sklearn
from knnkit.evaluation.splits import divide
from knnkit.model import build as builder
from knnkit.model.golden import make_golden
from knnkit.model.reference.spec import KnnSpec

ACCURACY = 0.9433333333333334  # 283 of 300


@pytest.fixture(scope="module")
def article() -> tuple[Dataset, Dataset]:
    divided = divide(load_sklearn("blobs"), 0.3, 0)
    kept, held_out = divided.training, divided.held_out
    assert held_out is not None
    assert (len(kept.rows), len(held_out.rows)) == (700, 300)
    return kept, held_out


@pytest.fixture(scope="module")
def expected(article: tuple[Dataset, Dataset]) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours in float64, by a full sort that shares no code with anything under test, and scikit-learn's labels."""
    kept, held_out = article
    difference = held_out.rows.astype(np.float64)[:, None, :] - kept.rows.astype(np.float64)[None]
    order = np.argsort(np.sqrt((difference**2).sum(axis=2)), axis=1, kind="stable")[:, :3]
    estimator = KNeighborsClassifier(3).fit(kept.rows, kept.labels)
    assert np.array_equal(estimator.kneighbors(held_out.rows, return_distance=False), order)
    return order, estimator.predict(held_out.rows)


def test_tfknn_and_tflite_have_every_neighbour_and_the_accuracy(
    article: tuple[Dataset, Dataset], expected: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    """In one process, which has TensorFlow: TfliteKNN takes its interpreter."""
    kept, held_out = article
    host = TfKNN(kept.rows, 3, labels=kept.labels)
    device = TfliteKNN(host.export(tmp_path / "knn.tflite"))
    assert device.runtime.name == "tensorflow"
    for model in (host, device):
        found = model.neighbors(held_out.rows)
        assert type(found) is Neighbors
        assert np.array_equal(found.indices, expected[0])
        assert model.predict(held_out.rows).tolist() == expected[1].tolist()
        assert model.score(held_out.rows, held_out.labels) == ACCURACY
        assert model.classes_.tolist() == [0, 1, 2, 3, 4]
    assert np.abs(host.predict_proba(held_out.rows) - device.predict_proba(held_out.rows)).max() <= 1e-6


@pytest.mark.parametrize("one_by_one", [False, True])
def test_tflite_has_every_neighbour_and_the_accuracy(
    one_by_one: bool,
    article: tuple[Dataset, Dataset],
    expected: tuple[np.ndarray, np.ndarray],
    device: DeviceProcess,
    tmp_path: Path,
) -> None:
    kept, held_out = article
    model = build_model(KnnSpec("blobs", 3), kept, held_out)
    (tmp_path / "model.tflite").write_bytes(model.data)
    answers = device.classify(tmp_path / "model.tflite", held_out.rows, one_by_one=one_by_one)
    if sys.version_info < (3, 12):  # later ones have LiteRT alone
        assert (answers.runtime.name, answers.runtime.version) == ("tflite_runtime", builder.OLDEST_RUNTIME)
    assert np.array_equal(answers.indices, expected[0])
    assert answers.predicted.tolist() == expected[1].tolist()
    assert float((answers.predicted == held_out.labels).mean()) == ACCURACY
    verdict = judge(make_golden(model, held_out, kept), answers, model.info, Gates(accuracy=ACCURACY))
    assert (verdict.identical, verdict.equivalent, verdict.accuracy) == (300, 0, ACCURACY)
    assert verdict.failures == ()

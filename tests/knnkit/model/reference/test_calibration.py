"""The reject option keeps the acceptance rate that it was asked for, and knows strangers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.device_process import DeviceProcess
from support.models import build_model

from device_agent.shared.protocol.constants import UNKNOWN, UNKNOWN_LABEL
from knnkit.data.dataset import Dataset, dataset
from knnkit.errors import BuildError
from knnkit.evaluation.splits import divide
from knnkit.model.reference.calibration import MIN_CLASS_ROWS, calibrate
from knnkit.model.reference.spec import KnnSpec


def _data(seed: int) -> tuple[Dataset, Dataset]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 6000)
    centres = rng.normal(size=(3, 4)) * 6
    spread = np.array([0.3, 1.0, 2.0])[labels, None]
    divided = divide(dataset(centres[labels] + rng.normal(size=(6000, 4)) * spread, labels), 0.5, 0, "random")
    assert divided.held_out is not None
    return divided.training, divided.held_out


@pytest.mark.parametrize("asked", [0.9, 0.99])
@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
def test_held_out_rows_are_accepted_at_the_rate_asked_for(
    asked: float, metric: str, device: DeviceProcess, tmp_path: Path
) -> None:
    training, held_out = _data(1)
    model = build_model(KnnSpec("reject", 5, metric, scale="standard", reject=asked), training, held_out)
    path = tmp_path / "model.tflite"
    path.write_bytes(model.data)
    answers = device.classify(path, held_out.rows)
    accepted = np.mean(answers.label != UNKNOWN)
    assert abs(accepted - asked) <= 0.02
    assert model.info.reject is not None
    assert model.info.reject.measured == pytest.approx(accepted, abs=0.02)
    assert model.info.reject.measured_rows == 3000
    for code in range(3):  # per class, too
        of_class = answers.label[answers.probabilities.argmax(axis=1) == code]
        assert abs(np.mean(of_class != UNKNOWN) - asked) <= 0.03
    far = np.random.default_rng(2).uniform(-1, 1, (1000, 4)) * 100
    strangers = device.classify(path, far.astype(np.float32))
    assert np.mean(strangers.label == UNKNOWN) >= 0.95
    assert set(np.unique(strangers.predicted[strangers.label == UNKNOWN])) == {UNKNOWN_LABEL}


def test_small_classes_share_one_threshold() -> None:
    rng = np.random.default_rng(3)
    rows, labels = rng.normal(size=(400, 2)), np.repeat([0, 1], [350, 50])
    rows[:350] *= 0.1
    rows[350:] += 20
    model = build_model(KnnSpec("small", 3, reject=0.9), dataset(rows, labels))
    assert model.info.reject is not None
    of_all, own = model.info.reject.thresholds[1], model.info.reject.thresholds[0]
    assert own < of_all


@pytest.mark.parametrize(("rows", "asked", "threshold"), [(9, 0.9, 9), (10, 0.9, 10), (19, 0.9, 18), (99, 0.99, 99)])
def test_a_threshold_has_the_conformal_rank(rows: int, asked: float, threshold: int) -> None:
    """Of n + 1 rows that could stand in any order, the next lies under the ceil(share * (n + 1))-th with that share."""
    found = calibrate(asked, np.zeros(rows, np.int32), np.arange(rows, 0, -1.0), 1)
    assert found.thresholds == (threshold,)
    assert found.acceptance == asked


def test_a_class_has_a_threshold_of_its_own_from_a_hundred_rows_on() -> None:
    label = np.repeat(np.array([0, 1], np.int32), [MIN_CLASS_ROWS, MIN_CLASS_ROWS - 1])
    kth = np.where(label == 0, 1.0, 5.0)
    assert calibrate(0.99, label, kth, 3).thresholds == (1.0, 5.0, 5.0)
    assert calibrate(0.5, label, kth, 3).thresholds == (1.0, 1.0, 1.0)


def test_reject_needs_a_row_to_leave_out() -> None:
    with pytest.raises(BuildError, match="more training rows than k"):
        build_model(KnnSpec("none", 3, reject=0.9), dataset([[0.0], [1.0], [2.0]], [0, 1, 1]))

"""Judges a model on the device as a golden check does, and makes labels for rows that need some."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from device_agent.shared.golden.judge import judge
from device_agent.shared.protocol.model_info import Gates
from knnkit.data.dataset import Dataset, dataset
from knnkit.model.built import BuiltModel
from knnkit.model.golden import make_golden
from support.device_process import DeviceProcess


def training(rows: np.ndarray) -> Dataset:
    return dataset(rows, np.random.default_rng(1).choice(["ash", "elm", "oak"], len(rows)))


def verdict(device: DeviceProcess, model: BuiltModel, queries: np.ndarray, folder: Path, **how: Any) -> tuple[Any, int]:
    """Returns the judge's verdict on the device's answers to `queries`, and how many were computed again in float64."""
    path = folder / "model.tflite"
    path.write_bytes(model.data)
    golden = make_golden(model, None, dataset(queries, np.zeros(len(queries), int), model.info.feature_names))
    answers = device.classify(path, golden.rows, **how)
    return judge(golden, answers, model.info, Gates()), answers.settled

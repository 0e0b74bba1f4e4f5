"""A model on the device, judged as a golden check judges it; and labels for rows that need some."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from device_process import DeviceProcess

from device_agent.contract import Gates
from device_agent.judge import judge
from knnkit.model.build import BuiltModel
from knnkit.model.dataset import Dataset, dataset
from knnkit.release.golden import make_golden


def training(rows: np.ndarray) -> Dataset:
    return dataset(rows, np.random.default_rng(1).choice(["ash", "elm", "oak"], len(rows)))


def verdict(device: DeviceProcess, model: BuiltModel, queries: np.ndarray, folder: Path, **how: Any) -> tuple[Any, int]:
    """Returns what the judge says of the device's answers to `queries`, and how many float64 settled."""
    path = folder / "model.tflite"
    path.write_bytes(model.data)
    golden = make_golden(model, None, dataset(queries, np.zeros(len(queries), int), model.info.feature_names))
    answers = device.classify(path, queries.astype(np.float32), **how)
    return judge(golden, answers, model.info, Gates()), answers.settled

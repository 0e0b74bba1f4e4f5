"""A neighbour of a regression with one target has a number, and not an object by target."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np

from device_agent.inference.tflite_knn import Answers
from device_agent.serving.columns import Columns, Training, Values
from device_agent.serving.writers import RENDERERS
from device_agent.shared.protocol.model_info import KnnInfo, Targets
from device_agent.shared.release.row_origins import Origins

TARGETS = Targets(("height",), (2.0,))
INFO = KnnInfo("m", 2, 1, ("x",), (0,), "euclidean", "uniform", "none", 3, 1, "", "2.14.0", {}, targets=TARGETS)
ANSWERS = Answers(
    np.zeros(1, np.int32), np.ones((1, 1), np.float32), np.array([[2, 0]], np.int32), np.array([[0.5, 1]], np.float32)
)


def rendered(format: str) -> bytes:
    columns = Columns(neighbors=True)
    model: Any = SimpleNamespace(values_of=lambda answers: np.array([[2.0]]))
    training = Training(np.zeros(3, np.int32), Origins(), None, np.array([[1.0], [2.0], [3.0]]))
    renderer = RENDERERS[format](INFO, columns, "d", training, Values(model, TARGETS, columns))
    return renderer.header() + renderer.render(ANSWERS, 1, {})


def test_one_target_is_a_number_in_json_and_a_column_in_csv() -> None:
    assert [each["target"] for each in json.loads(rendered("jsonl"))["neighbors"]] == [3.0, 1.0]
    head, line = rendered("csv").decode().splitlines()
    assert head.startswith("value,neighbor_1,distance_1,target_1,neighbor_2,distance_2,target_2,row_1")
    assert line.startswith("2.0,2,0.5,3.0,0,1.0,1.0,")

"""Label sets stand in the answers where they are asked for, in every format."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest

from device_agent.inference.tflite_knn import Answers
from device_agent.serving.columns import Columns
from device_agent.serving.writers import RENDERERS
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.model_info import KnnInfo, LabelSets

SETS = LabelSets(0.9, (0.3, 0.7, None), 1.0)
INFO = KnnInfo(
    "m", 2, 1, ("x",), ("a", 'b"|,', "c"), "euclidean", "uniform", "none", 9, 1, "", "2.14.0", {}, label_sets=(SETS,)
)
ANSWERS = Answers(
    np.array([0, 1, -1], np.int32),
    np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0]], np.float32),
    np.zeros((3, 2), np.int32),
    np.array([[0.0, 0.5], [0.0, 0.1], [0.0, 99.0]], np.float32),
)
EXPECTED = [["a", "c"], ['b"|,', "c"], ["c"]]


def rendered(format: str, info: KnnInfo = INFO, **columns: Any) -> bytes:
    renderer = RENDERERS[format](info, Columns(**columns), "d", None)
    return renderer.header() + renderer.render(ANSWERS, 3, {})


def test_the_answers_have_the_sets_that_are_asked_for() -> None:
    rows = list(csv.DictReader(io.StringIO(rendered("csv", labels=0.9).decode())))
    assert [json.loads(row["labels"]) for row in rows] == EXPECTED
    lines = [json.loads(line) for line in rendered("jsonl", labels=0.9, proba=True).splitlines()]
    assert [line["labels"] for line in lines] == EXPECTED
    assert [*lines[0]] == ["label", "labels", "probabilities"]
    renderer = RENDERERS["npy"](INFO, Columns(labels=0.9), "d", None)
    table = np.frombuffer(renderer.render(ANSWERS, 3, {}), renderer.dtype)  # type: ignore[union-attr]
    assert table["labels"].tolist() == [[True, False, True], [False, True, True], [False, False, True]]


@pytest.mark.parametrize("format", ["csv", "jsonl", "npy"])
def test_nothing_changes_unless_they_are_asked_for(format: str) -> None:
    import dataclasses

    without = dataclasses.replace(INFO, label_sets=None)
    for columns in ({}, {"proba": True}, {"neighbors": True, "digest": True}):
        assert rendered(format, **columns) == rendered(format, without, **columns)
    for info, typed, said in (
        (without, 0.9, "label_sets: 0.9 in deploy.yaml"),
        (without, 95, "label_sets: 0.95 in deploy.yaml"),
        (INFO, 0.8, "--labels 0.9"),
    ):
        with pytest.raises(BadInput, match="no label sets with coverage") as raised:
            rendered(format, info, labels=typed)
        assert said in raised.value.hint

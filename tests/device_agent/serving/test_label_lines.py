"""Lines of labels alone are the same joined by the block as one by one, whatever the labels are called."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest

from device_agent.inference.tflite_knn import Answers
from device_agent.serving.columns import Columns
from device_agent.serving.writers import CsvRenderer, JsonRenderer
from device_agent.shared.protocol.model_info import KnnInfo

NAMES: list[tuple[str | int, ...]] = [
    (0, 1, 2),
    (7, 10, 123_456),
    ("setosa", "versicolor", "virginica"),
    ("a,b", 'say "b"', " padded "),
    ("Ærø", "日本", "ÿ"),
    ("two\nlines", "bell\7", "tab\t"),
    ("short", "long" * 60, "x"),
]


def model(classes: tuple[str | int, ...]) -> KnnInfo:
    return KnnInfo(
        name="n", k=1, n_features=1, feature_names=("a",), classes=classes, metric="euclidean", weights="uniform",
        scale="none", n_train=3, batch=8, fingerprint="", minimum_runtime="1", versions={}, reject=1.0,
    )  # fmt: skip


def csv_labels(block: bytes) -> list[str]:
    return [fields[0] for fields in csv.reader(io.StringIO(block.decode(), newline=""))]


def json_labels(block: bytes) -> list[str]:
    return [str(json.loads(line)["label"]) for line in block.split(b"\n")[:-1]]


@pytest.mark.parametrize("classes", NAMES, ids=lambda classes: ascii(classes[0]))
@pytest.mark.parametrize("digest", [False, True])
@pytest.mark.parametrize(("renderer", "read"), [(CsvRenderer, csv_labels), (JsonRenderer, json_labels)])
def test_a_block_of_labels_is_its_lines(renderer: Any, read: Any, classes: tuple[str | int, ...], digest: bool) -> None:
    labels = np.random.default_rng(0).integers(-1, 3, 500).astype(np.int32)
    none = np.empty((500, 0), np.float32)
    lines = renderer(model(classes), Columns(digest=digest), "d" * 64, None)
    block = lines.render_labels(labels)
    assert block == lines.render(Answers(labels, none, none.astype(np.int32), none), 500, {})
    assert read(block) == [str((*classes, "unknown")[label]) for label in labels]


def test_a_share_stands_in_the_column_of_its_label_whatever_was_taught_since() -> None:
    """A stream began with `anna`, who was forgotten; `eva` was taught later."""
    shown = ("setosa", "virginica", "anna", "ben")
    lines = CsvRenderer(model(("setosa", "virginica", "ben", "eva")), Columns(proba=True), "d", None, shown=shown)
    shares = np.float32([[0.5, 0, 0.25, 0.25], [0, 0, 0, 1]])
    none = np.empty((2, 0), np.float32)
    answers = Answers(np.int32([0, 3]), shares, none.astype(np.int32), none)
    assert lines.header() == b"label,proba_setosa,proba_virginica,proba_anna,proba_ben\n"
    assert lines.render(answers, 2, {}) == b"setosa,0.5,0.0,0.0,0.25\neva,0.0,0.0,0.0,0.0\n"

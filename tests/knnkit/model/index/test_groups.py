"""A search among groups of rows finds the same neighbours, and exists only where it leaves most rows unread."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from support.device_process import DeviceProcess
from support.judging import training, verdict
from support.machines import said_on_each
from support.models import build_model
from support.runtimes import TFLITE

from device_agent.shared.row_groups import Groups
from knnkit.model.index import groups
from knnkit.model.index.cost_sample import Sample
from knnkit.model.index.groups import find_groups
from knnkit.model.reference.enrolment import enrol
from knnkit.model.reference.spec import KnnSpec


def in_clusters(rows: int, width: int, *, seed: int = 0) -> np.ndarray:
    """Rows close to fifty centres, the same for every seed."""
    centres = np.random.default_rng(0).normal(size=(50, width)) * 10.0
    rng = np.random.default_rng(seed)
    return centres[rng.integers(0, 50, rows)] + rng.normal(size=(rows, width))


def found(rows: np.ndarray, k: int = 3, metric: Any = "euclidean") -> Groups | None:
    enrolled = enrol(training(rows), [], metric)
    with mock.patch.object(groups, "LEAST_ROWS", 1000):
        return find_groups(Sample(enrolled.space, enrolled.enrolled, k))


@pytest.mark.parametrize("kind", ["few rows", "manhattan", "noise", "many neighbours", "tiny"])
def test_where_groups_do_not_pay_there_are_none(kind: str) -> None:
    rows = in_clusters(4000, 12)
    assert found(rows) is not None
    if kind == "few rows":
        assert found(rows[:900]) is None
    elif kind == "manhattan":
        assert found(rows, metric="manhattan") is None
    elif kind == "noise":
        assert found(np.random.default_rng(0).normal(size=(4000, 40))) is None
    elif kind == "many neighbours":
        assert found(rows, k=2500) is None
    else:
        assert found(rows * 1e-36) is None


_PRINT = """
import hashlib, sys
import numpy as np
sys.path[:0] = sys.argv[1:]
from knnkit.model.index.cost_sample import WeightedRows
from knnkit.model.index.groups import WholeRows, make_groups
rng = np.random.default_rng(0)
rows = rng.normal(size=(3000, 64)).astype(np.float32)
arrays = make_groups(WholeRows(WeightedRows(rows, rng.random(64))), 50).to_arrays()
print(hashlib.sha256(b"".join(np.ascontiguousarray(each).tobytes() for each in arrays.values())).hexdigest())
"""


def test_what_is_stored_does_not_depend_on_the_processor_or_its_threads() -> None:
    assert len(said_on_each(_PRINT)) == 1


@pytest.mark.parametrize(
    "spec",
    [
        KnnSpec("groups", 5, "euclidean", "uniform", "none"),
        KnnSpec("groups", 5, "sqeuclidean", "distance", "standard"),
        KnnSpec("groups", 3, "cosine", "distance", "none", 0.95),
    ],
    ids=lambda spec: f"{spec.metric} {spec.weights} {spec.scale}",
)
def test_no_row_is_different_in_groups_or_far_off_them(spec: KnnSpec, device: DeviceProcess, tmp_path: Path) -> None:
    rows = in_clusters(4000, 8)
    rows[1000:1008] = rows[1000]
    with mock.patch.object(groups, "LEAST_ROWS", 1000):
        model = build_model(spec, training(rows))
    assert model.info.groups is not None
    near, rng = in_clusters(40, 8, seed=2), np.random.default_rng(3)
    far = near[:20] + rng.normal(size=(20, 8)) * 10.0 ** rng.integers(1, 12, (20, 1))
    queries = np.concatenate([near, far, rows[995:1012], rows[::500], np.zeros((1, 8))])
    for runtime, search in (("numpy", None), (TFLITE[0], "groups"), (TFLITE[0], "full")):
        for one_by_one in (False, True):
            how = {"runtime": runtime, "search": search, "one_by_one": one_by_one}
            said, _ = verdict(device, model, queries, tmp_path, **how)
            assert said.differences == ()
            assert said.identical + said.equivalent == len(queries)

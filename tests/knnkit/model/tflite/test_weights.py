"""The converter never holds the training rows, nor a number for each: they become constants after it."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from device_agent.shared.protocol import constants
from knnkit.data.dataset import dataset
from knnkit.model.build import make_module, make_reference
from knnkit.model.reference.enrolment import enrol
from knnkit.model.reference.spec import KnnSpec
from knnkit.model.scaling import fit_scaler


@pytest.mark.parametrize(("width", "metric"), [(100, "euclidean"), (40, "cosine"), (40, "manhattan")])
def test_the_converter_gets_graphs_without_the_rows(width: int, metric: Any) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3000, width)).astype(np.float32)
    enrolment = enrol(dataset(rows, np.arange(3000) % 3), fit_scaler(rows, "standard"), metric)
    model = make_module(enrolment, make_reference(KnnSpec("m", 5, metric), enrolment))
    import tensorflow as tf

    from knnkit.model.tflite.convert import in_one_graph, trace

    for search in model.search.ways:
        for count in (1, model.batch_rows(search)):
            traced = in_one_graph({"graph": functools.partial(trace, model, search, count)})["graph"]
            nodes = traced.queries.graph.as_graph_def().node
            constants_of = [node.attr["value"] for node in nodes if node.op == "Const"]
            assert sum(each.ByteSize() for each in constants_of) < 4 * len(rows)  # not even one number for each row
            assert not [node.op for node in nodes if "Var" in node.op]
            if search == constants.FULL:  # views of the rows, without a copy
                tables = [table for table in traced.weights.values() if table.rows.ndim > 1]
                parts = [part for table in tables for part in table.parts if len(part) > 64 * width]
                assert all(np.shares_memory(part, enrolment.enrolled) for part in parts)
            given = {traced.inputs[name].name: table.join() for name, table in traced.weights.items()}
            with tf.compat.v1.Session(graph=traced.queries.graph) as session:
                label = session.run(
                    traced.outputs[constants.OUTPUT_LABEL].name, {traced.queries.name: rows[:count], **given}
                )
            assert len(label) == count


@pytest.mark.parametrize(
    ("count", "width", "rows"),
    [
        (60_000, 8, 64),
        (100_000, 8, 32),  # two threads share 64 rows, each with an interpreter of its own
        (100_000, 32, 64),  # all threads use one interpreter
        (300_000, 2, 16),
        (10_000_000, 2, 2),
    ],
)
def test_a_batch_fits_the_memory_and_the_threads_of_a_device(count: int, width: int, rows: int) -> None:
    from knnkit.model.graph.tfknn import KnnModule

    stored = np.broadcast_to(np.float32(0), (count, width))
    model: Any = SimpleNamespace(
        enrolled=stored, metric="euclidean", search=SimpleNamespace(candidates=lambda search: 8)
    )
    assert KnnModule.batch_rows(model, constants.FULL) == rows

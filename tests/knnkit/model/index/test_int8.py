"""A search in eight bits finds the same neighbours, by whichever kernel, in a quarter of the memory that is read."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from support import ROOT
from support.device_process import DeviceProcess
from support.judging import training, verdict
from support.machines import said_on_each
from support.model_files import split
from support.models import build_model
from support.wild import QUANTIZED

from device_agent.shared.protocol.model_info import Gates
from knnkit.errors import BuildError
from knnkit.model.built import BuiltModel
from knnkit.model.golden import make_golden
from knnkit.model.graph.candidates import Chosen, QuantizedProducts
from knnkit.model.graph.row_blocks import Layout
from knnkit.model.graph.search import OVER_FETCH
from knnkit.model.index.cost_sample import Sample
from knnkit.model.index.int8 import STEPS, Quantized, quantize
from knnkit.model.index.projection import find_projection
from knnkit.model.reference.enrolment import enrol
from knnkit.model.reference.spec import KnnSpec
from knnkit.model.selfcheck import self_check
from knnkit.model.tflite import flatbuffer
from knnkit.model.tflite.convert import convert_traced, in_one_graph, trace

KERNELS = pytest.mark.parametrize("kernel", QUANTIZED, ids=lambda how: " ".join(map(str, how.values())))


def in_clusters(rows: int, width: int, *, seed: int, offset: float = 0.0) -> np.ndarray:
    """Rows about ten centres, the same for every seed, with noise in every feature."""
    centres = np.random.default_rng(0).normal(size=(10, width)) * 3.0
    rng = np.random.default_rng(seed)
    return centres[rng.integers(0, 10, rows)] + rng.normal(size=(rows, width)) + offset


@functools.cache
def build(spec: KnnSpec, rows: int = 5000, width: int = 70, copies: int = 0) -> BuiltModel:
    """Returns the model of rows in clusters, some of them copies: the same for every kernel."""
    made = in_clusters(rows, width, seed=1, offset=offset_of(spec))
    made[1000 : 1000 + copies] = made[1000]
    return build_model(spec, training(made))


def offset_of(spec: KnnSpec) -> float:
    return 1e4 if spec.scale == "standard" else 0.0


def found(rows: np.ndarray, k: int = 3, metric: Any = "euclidean") -> Quantized | None:
    enrolled = enrol(training(rows), [], metric)
    sample = Sample(enrolled.space, enrolled.enrolled, k)
    return quantize(sample, find_projection(sample, OVER_FETCH), OVER_FETCH)


def test_no_row_is_farther_from_its_whole_steps_than_is_said() -> None:
    rows = in_clusters(5000, 70, seed=1)
    chosen = found(rows)
    assert chosen is not None
    enrolled = enrol(training(rows), [], "euclidean").enrolled.astype(np.float64)
    assert np.abs(chosen.table.astype(int)).max() == STEPS  # never -128, with which some kernels overflow
    assert chosen.table.shape[1] % 16 == 8  # a multiple of 16 would crash boards
    assert not chosen.table[:, chosen.width :].any()
    left = enrolled - chosen.table[:, : chosen.width] * chosen.step
    lengths = np.sqrt((left * left).sum(axis=1))
    assert lengths.max() <= chosen.error < 1.01 * lengths.max()
    assert chosen.marks[:2].tolist() == [-128.0, 127.0]
    assert not chosen.marks[2:].any()


@pytest.mark.parametrize("kind", ["few numbers", "manhattan", "another unit", "a row far off", "ties", "tiny"])
def test_where_eight_bits_do_not_pay_there_are_none(kind: str) -> None:
    rows = in_clusters(5000, 70, seed=1)
    assert found(rows) is not None
    if kind == "few numbers":
        assert found(rows[:1000]) is None
    elif kind == "manhattan":
        assert found(rows, metric="manhattan") is None
    elif kind == "another unit":  # the steps are as coarse as its range wants
        rows[:, 3] *= 300.0
        assert found(rows) is None
    elif kind == "a row far off":
        rows[17] *= 300.0
        assert found(rows) is None
    elif kind == "ties":  # more than could be candidates
        rows[:2000] = rows[0]
        assert found(rows) is None
    else:
        assert found(rows * 1e-20) is None


_PRINT = """
import hashlib, sys
import numpy as np
sys.path[:0] = sys.argv[1:]
from knnkit.data.dataset import dataset
from knnkit.model.reference.enrolment import enrol
from knnkit.model.index.int8 import quantize
from knnkit.model.index.cost_sample import Sample
rng = np.random.default_rng(0)
rows = rng.normal(size=(5000, 64))
enrolled = enrol(dataset(rows.astype(np.float32), np.zeros(len(rows), int)), [], "euclidean")
found = quantize(Sample(enrolled.space, enrolled.enrolled, 3), None, 3)
told = hashlib.sha256(found.table.tobytes() + found.squares.tobytes()).hexdigest()
print(found.candidates, found.error, found.step, told)
"""


def test_what_is_stored_does_not_depend_on_the_processor_or_its_threads() -> None:
    assert len(said_on_each(_PRINT)) == 1


@pytest.mark.parametrize(
    "spec",
    [
        KnnSpec("eight", 5, "euclidean", "uniform", "none"),
        KnnSpec("eight", 5, "euclidean", "distance", "standard"),
        KnnSpec("eight", 1, "sqeuclidean", "uniform", "minmax", 0.95),
        KnnSpec("eight", 3, "cosine", "distance", "none"),
    ],
    ids=lambda spec: f"{spec.metric} {spec.weights} {spec.scale}",
)
@KERNELS
def test_no_row_is_different_among_the_rows_or_far_off_them(
    kernel: dict[str, Any], spec: KnnSpec, device: DeviceProcess, tmp_path: Path
) -> None:
    model, offset = build(spec, copies=8), offset_of(spec)
    rows = in_clusters(5000, 70, seed=1, offset=offset)
    rows[1000:1008] = rows[1000]
    assert model.info.quantized is not None
    rng = np.random.default_rng(2)
    near = in_clusters(30, 70, seed=3, offset=offset)
    far = near[:20] + rng.normal(size=(20, 70)) * 10.0 ** rng.integers(1, 12, (20, 1))
    one = np.zeros((2, 70))
    one[0, 5], one[1, 69] = 40.0, -3e4
    queries = np.concatenate([near, far, rows[995:1012], rows[::500], np.full((1, 70), offset), one + offset])
    for one_by_one in (False, True):
        said, _ = verdict(device, model, queries, tmp_path, one_by_one=one_by_one, **kernel)
        assert said.differences == ()
        assert said.identical + said.equivalent == len(queries)


@KERNELS
def test_ordinary_rows_are_answered_by_the_graph_alone(
    kernel: dict[str, Any], device: DeviceProcess, tmp_path: Path
) -> None:
    model = build(KnnSpec("eight", 3), 6000, 96)
    said, settled = verdict(device, model, in_clusters(300, 96, seed=5), tmp_path, **kernel)
    assert said.identical == 300
    assert settled <= 6
    # The rows stand in the file once, beside their eight bits; the rest is four graphs, and less than either.
    stored = 6000 * 96 * 4 + 6000 * 104
    assert stored < len(model.data) < stored + 400_000


@KERNELS
def test_rows_that_eight_bits_leave_in_doubt_are_asked_of_float32_before_float64(
    kernel: dict[str, Any], device: DeviceProcess, tmp_path: Path
) -> None:
    """A row has steps of its own, as coarse as its range: one value far off, and none of the others is told."""
    model = build(KnnSpec("eight", 3))
    queries = in_clusters(70, 70, seed=5)
    queries[range(70), range(70)] = 150.0
    for one_by_one in (False, True):
        _, expected = verdict(device, model, queries, tmp_path, one_by_one=one_by_one, search="full")
        assert expected <= 5
        said, settled = verdict(device, model, queries, tmp_path, one_by_one=one_by_one, **kernel)
        assert said.identical == len(queries)
        assert settled == expected


def test_a_projection_is_searched_in_eight_bits_too(device: DeviceProcess, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(12, 128))
    rows = rng.normal(size=(24_000, 12)) @ plane + rng.normal(size=(24_000, 128)) * 0.05
    model = build_model(KnnSpec("both", 3), training(rows))
    assert model.info.searched is not None
    assert model.info.quantized is not None
    queries = rng.normal(size=(200, 12)) @ plane + rng.normal(size=(200, 128)) * 0.05
    for kernel in QUANTIZED:
        said, settled = verdict(device, model, queries, tmp_path, **kernel)
        assert said.identical == 200
        assert settled <= 4


def test_a_build_finds_out_what_is_wrong_in_the_search_in_eight_bits_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    choose = QuantizedProducts.choose

    def mistaken(products: QuantizedProducts, weighted: Any) -> Chosen:
        chosen = choose(products, weighted)
        return Chosen(tf.maximum(chosen.positions - 1, 0), tf.maximum(chosen.beyond, 1e18))

    rows = training(in_clusters(5000, 70, seed=1))
    for wrong in (False, True):
        if wrong:
            monkeypatch.setattr(QuantizedProducts, "choose", mistaken)
        model = build_model(KnnSpec("eight", 3), rows)
        golden = make_golden(model, None, rows)
        if not wrong:
            assert self_check(model, golden, Gates()).different == 0
            continue
        with pytest.raises(BuildError, match="misses its own gates in the int8 search: "):
            self_check(model, golden, Gates())


@KERNELS
def test_what_no_product_can_have_given_is_not_believed(
    kernel: dict[str, Any], device: DeviceProcess, tmp_path: Path
) -> None:
    """Of a table of zeros, as of a kernel that multiplies nothing, all scores are wrong and look far off."""
    rows = in_clusters(5000, 70, seed=1)
    model, chosen = build(KnnSpec("eight", 3)), found(rows)
    assert chosen is not None
    table = Layout.of(chosen.table).table(chosen.table).tobytes()
    # Each block has its length in the gap in front of it: the rows between are what is taken away.
    first = model.data.index(chosen.table[0].tobytes())
    data, width, layout = bytearray(model.data), chosen.table.shape[1], Layout.of(chosen.table)
    start = first - layout.position(0) * width
    for place, count in layout.blocks(len(rows)):
        data[start + place * width : start + (place + count) * width] = bytes(count * width)
    assert len(data) == len(model.data)
    assert data[start : start + len(table)].count(0) > 0.99 * len(table)
    said, _ = verdict(
        device, replace(model, graph=[split(bytes(data))[0]]), in_clusters(100, 70, seed=5), tmp_path, **kernel
    )
    assert said.identical + said.equivalent == 100


_RUN = """
import sys
import numpy as np
sys.path[:0] = sys.argv[1:2]
from device_agent.inference.interpreter import Loader
path, rows, runtime, packed = sys.argv[2:]
interpreter = Loader.find(path, runtime, 1).load(packed == "packed")
interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.load(rows))
interpreter.invoke()
np.save(rows, interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
"""


class _Only:
    """Stands for a search that has nothing but these products."""

    def __init__(self, products: QuantizedProducts) -> None:
        self.products = products

    @contextlib.contextmanager
    def using(self, take: Any) -> Iterator[None]:
        self.products.take = take
        yield


@KERNELS
def test_every_kernel_multiplies_the_whole_steps_that_are_meant(kernel: dict[str, Any], tmp_path: Path) -> None:
    """What `Quantized.marks` promises: steps of any size go in, and are not rounded again."""
    rng = np.random.default_rng(0)
    table = np.pad(rng.integers(-STEPS, STEPS + 1, (202, 70)), ((0, 0), (0, 2))).astype(np.int8)
    table[0, :70], table[1, :70] = STEPS, -STEPS
    chosen = Quantized(table, 0.37, 0.0, (table.astype(float) ** 2).sum(axis=1) * 0.37**2, 3, 70)
    space = enrol(training(rng.normal(size=(202, 70))), [], "euclidean").space
    products = QuantizedProducts(space, chosen, None)
    model = SimpleNamespace(
        search=_Only(products), n_features=72, answer=lambda rows, _, **listed: {"s": products.scores(rows)}
    )
    tree = convert_traced(in_one_graph({"scores": functools.partial(trace, model, "", 40)}))
    (tmp_path / "scores.tflite").write_bytes(flatbuffer.lay_out(tree, []).data)
    whole = rng.integers(-STEPS, STEPS + 1, (40, 70)).astype(np.float32)
    whole[0], whole[1], whole[2] = STEPS, -STEPS, 0.0
    steps = (10.0 ** rng.uniform(-15, 15, (40, 1))).astype(np.float32)
    rows = np.concatenate([whole * steps, steps * chosen.marks], axis=1)
    np.save(tmp_path / "rows.npy", rows)
    packed = "plain" if kernel.get("packed") is False else "packed"
    words = [str(ROOT), str(tmp_path / "scores.tflite"), str(tmp_path / "rows.npy")]
    subprocess.run([sys.executable, "-c", _RUN, *words, kernel["runtime"], packed], check=True, capture_output=True)
    meant = whole.astype(np.float64) @ table[:, :70].astype(np.float64).T * (steps * 0.37) - chosen.squares / 2
    sizes = np.linalg.norm(whole, axis=1, keepdims=True) * steps * np.sqrt(chosen.squares) + chosen.squares / 2
    assert (np.abs(np.load(tmp_path / "rows.npy") - meant) <= 8 * 2.0**-24 * sizes).all()

"""Whole numbers are exact in float32: no row of them is in doubt, and ties go to the lower row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from support import ties
from support.device_process import DeviceProcess
from support.models import build_model
from support.runtimes import RUNTIMES

from knnkit.cli import main
from knnkit.data.dataset import dataset
from knnkit.model.built import BuiltModel
from knnkit.model.reference.lattice import Lattice, centre_on, find_lattice
from knnkit.model.reference.spec import KnnSpec
from scripts.benchmarks.datasets import Size, generate


def build(rows: np.ndarray, k: int, metric: str = "euclidean", scale: Any = "none") -> BuiltModel:
    labels = np.random.default_rng(0).integers(0, 3, len(rows))
    return build_model(KnnSpec("whole", k, metric, scale=scale), dataset(rows, labels))


def settled(
    model: BuiltModel, queries: np.ndarray, expected: list[list[int]], device: DeviceProcess, folder: Path
) -> int:
    """Checks the neighbours on either runtime, in a batch and one by one; returns how many rows float64 settled."""
    path = folder / "model.tflite"
    path.write_bytes(model.data)
    total = 0
    for runtime in RUNTIMES:
        for one_by_one in (False, True):
            answers = device.classify(path, queries, one_by_one=one_by_one, runtime=runtime)
            found = answers.indices.tolist()
            assert [row for row in range(len(queries)) if found[row] != expected[row]] == []
            total += answers.settled
    return total


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "manhattan"])
def test_no_row_of_the_digits_is_in_doubt(metric: str, device: DeviceProcess, tmp_path: Path) -> None:
    rows = load_digits().data.astype(np.float32)
    model, queries = build(rows[:1347], 3, metric), rows[1347:]
    assert model.info.lattice == 1.0
    expected = model.reference.answer(queries).indices[:, :3].tolist()
    assert settled(model, queries, expected, device, tmp_path) == 0


def test_no_row_of_drawn_strokes_is_in_doubt(device: DeviceProcess, tmp_path: Path) -> None:
    drawn = generate(Size("strokes", 900, 784, 40, ""))
    model, queries = build(drawn.rows, 3), drawn.queries
    assert model.info.lattice == 1.0
    expected = model.reference.answer(queries).indices[:, :3].tolist()
    assert settled(model, queries, expected, device, tmp_path) == 0


#: Seed -> width, rows, step, offset of all columns, metric; from 800 rows on, batches are searched in blocks.
LATTICES = {
    1: (1, 1700, 1.0, 0.0, "euclidean"),
    2: (2, 900, 0.5, 1000.5, "sqeuclidean"),
    3: (3, 700, 2.0**-10, 0.0, "manhattan"),
    4: (5, 1200, 1.0, -7.0, "euclidean"),
    5: (9, 1700, 4.0, 1e6, "sqeuclidean"),
    6: (6, 300, 1.0, 0.25, "manhattan"),
}


@pytest.mark.parametrize("seed", LATTICES)
def test_neighbours_on_a_lattice_are_exact(seed: int, device: DeviceProcess, tmp_path: Path) -> None:
    width, count, step, offset, metric = LATTICES[seed]
    rng = np.random.default_rng(seed)
    rows = (rng.integers(0, 4, (count, width)) * step + offset).astype(np.float32)
    model, k = build(rows, 7, metric), 7
    assert model.info.lattice == min(step, 1.0)
    queries = (rng.integers(-2, 7, (80, width)) * step + offset).astype(np.float32)
    assert settled(model, queries, ties.neighbours(rows, queries, k, metric), device, tmp_path) == 0
    beside = queries + np.float32(min(step, 1.0) / 4)  # takes the way of all other rows
    settled(model, beside, ties.neighbours(rows, beside, k, metric), device, tmp_path)


@pytest.mark.parametrize(("metric", "far"), [("euclidean", 4096), ("sqeuclidean", 4096), ("manhattan", 2**24)])
def test_sums_about_2_to_the_24_are_exact_or_settled(
    metric: str, far: int, device: DeviceProcess, tmp_path: Path
) -> None:
    rng = np.random.default_rng(5)
    rows = rng.integers(-2, 3, (1000, 5)).astype(np.float32)
    queries = rng.integers(-2, 3, (120, 5)).astype(np.float32)
    queries[:, 0] += far
    queries[80:] += [-1, 90, 9, 3, 1]  # 4095² + 90² + 9² + 3² + 1² is 2^24 - 1
    sums = ((queries[:, None].astype(np.float64) - rows) ** 2).sum(axis=2)
    sums = np.abs(queries[:, None].astype(np.float64) - rows).sum(axis=2) if metric == "manhattan" else sums
    assert {2**24 - 1, 2**24, 2**24 + 1} <= set(sums.reshape(-1).tolist())
    settled(build(rows, 4, metric), queries, ties.neighbours(rows, queries, 4, metric), device, tmp_path)


@pytest.mark.parametrize("step", [1.0, 0.25])
def test_inspect_shows_the_step(step: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(build(np.repeat(np.arange(20.0), 2).reshape(20, 2) * step, 3).data)
    assert main(["inspect", str(path)]) == 0
    assert f"exact in float32, also for ties, if all numbers are multiples of {step:g}" in capsys.readouterr().out


def test_one_real_column_leaves_no_lattice(device: DeviceProcess, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    rows = rng.integers(0, 4, (900, 5)).astype(np.float32)
    rows[:, 2] = rng.normal(size=900)
    model = build(rows, 5)
    assert model.info.lattice is None
    settled(model, rows[:60], model.reference.answer(rows[:60]).indices[:, :5].tolist(), device, tmp_path)


@pytest.mark.parametrize(
    ("columns", "scale", "step"),
    [
        ([[0, 1, 2, 3]], [1.0], 1.0),
        ([[0.5, 1.5, 7.5]], [1.0], 1.0),
        ([[0, 8, 16], [3.25, 3.5, 5.0]], [1.0, 1.0], 0.25),
        ([[0, 8, 16], [3.25, 3.5, 5.0]], [0.125, 4.0], 1.0),
        ([[0, 8, 16]], [3.0], None),  # a product with the scale may be rounded
        ([[0, 1, 4095, 9000]], [1.0], None),  # squares of its range are beyond 2^24
        ([[0.1, 0.2, 0.3]], [1.0], None),
        ([[7, 7, 7]], [1.0], 1.0),
        ([[0, 2, 4]], [1.0], 1.0),  # the next row may be odd
        ([[0, 1e-20, 3e-20]], [1.0], None),
    ],
)
def test_the_step_is_the_finest_of_all_columns(columns: list[Any], scale: list[float], step: float | None) -> None:
    rows = np.array(columns, np.float32).T
    centre = centre_on(rows, rows.mean(axis=0, dtype=np.float64))
    enrolled = (rows - (rows.mean(axis=0) if centre is None else centre)).astype(np.float32)
    found = find_lattice(enrolled, np.array(scale))
    assert (found.step if found else None) == step


@pytest.mark.parametrize("reach", [0.0, 3.0, 100.0, 340.0, 600.0, 3000.0])
@pytest.mark.parametrize("blocks", [1, 7, 16, 360])
def test_blocks_are_set_apart_by_less_than_half_a_step(reach: float, blocks: int) -> None:
    longest, apart = Lattice(1.0, reach).scored_within(blocks)
    assert apart * blocks <= 0.5
    assert (longest + reach) ** 2 / 2 + apart * blocks <= 2.0**24 * (apart or 0.5) or longest == 0.0

"""A search among the rows of a cell finds the same neighbours as one among all rows, and says where it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.device_process import DeviceProcess
from support.judging import training, verdict
from support.machines import said_on_each
from support.models import build_model
from support.wild import CELLS

from device_agent.shared.protocol.model_info import Gates
from knnkit.errors import BuildError
from knnkit.model.golden import make_golden
from knnkit.model.index.grid import CellLists, find_cells
from knnkit.model.reference.enrolment import Enrolment, enrol
from knnkit.model.reference.space import affine
from knnkit.model.reference.spec import KnnSpec
from knnkit.model.selfcheck import self_check

RUNTIMES = pytest.mark.parametrize("runtime", CELLS, ids=lambda how: how["runtime"])


def blobs(count: int, width: int = 2, *, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(-8.0, 8.0, (5, width))[rng.integers(0, 5, count)] + rng.normal(size=(count, width))


ROWS = {
    "blobs": blobs(700),
    "one feature": blobs(700, 1),
    "on a grid": np.round(blobs(2000) * 2.0) / 2.0,
    "seven of each": np.repeat(blobs(100), 7, axis=0),
    "far from zero": blobs(700) + 1e4,
    "one feature in small units": blobs(700) * [1.0, 1e-6],
    "in long blobs": blobs(700) @ [[1.0, 0.9], [0.0, 0.1]],
    # Half way between two numbers, where all copies of both are tied, is on the edge of the least cells there are.
    "copies on a line": np.repeat(np.arange(16.0), 16)[:, None] * 0.7,
}


def listed(rows: np.ndarray, k: int = 3, metric: Any = "euclidean") -> tuple[Enrolment, CellLists | None]:
    enrolled = enrol(training(rows), [], metric)
    return enrolled, find_cells(enrolled.space, enrolled.enrolled, k)


def asked_of(enrolled: np.ndarray, cells: CellLists) -> np.ndarray:
    """Queries all over the cells, at corners and between rows, beside these, at rows, and off all cells, as offsets."""
    rng = np.random.default_rng(2)
    inner = np.array(cells.table.shape) - 2
    places = [rng.uniform(0, inner, (300, len(inner))), rng.integers(0, inner + 1, (300, len(inner)))]
    anywhere = (cells.first + np.concatenate(places) / cells.per_unit.astype(np.float64)).astype(np.float32)
    apart = np.unique(enrolled, axis=0)[:200].astype(np.float64)
    edges = np.concatenate([anywhere[300:], (apart[1:] + apart[:-1]) / 2.0]).astype(np.float32)
    beside = [np.nextafter(edges, np.float32(side)) for side in (-np.inf, np.inf)]
    near = (
        enrolled[rng.integers(0, len(enrolled), 200)] + rng.normal(size=(200, len(inner))) * enrolled.std(axis=0) / 50
    )
    far = (rng.choice([-1, 1], (40, len(inner))) * 10.0 ** rng.uniform(1, 9, (40, 1))) * np.ptp(enrolled, axis=0)
    return np.concatenate([anywhere, edges, *beside, near, enrolled[:100], far]).astype(np.float32)


@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
@pytest.mark.parametrize("kind", sorted(ROWS))
def test_a_list_has_all_that_can_be_neighbours(kind: str, metric: str) -> None:
    enrolment, cells = listed(ROWS[kind], metric=metric)
    assert cells is not None
    rows = enrolment.enrolled.astype(np.float64)
    queries = asked_of(enrolment.enrolled, cells)
    place = np.clip((queries - cells.first) * cells.per_unit + 1, 0, np.array(cells.table.shape) - 1).astype(int)
    numbers, found = cells.table[tuple(place.T)], 0
    for query, number in zip(queries.astype(np.float64), numbers):
        there = cells.lists[number]
        there = there[there < len(rows)]
        assert (np.diff(there) > 0).all()
        if not len(there):
            continue
        away = np.abs(rows - query)
        distance = away.sum(axis=1) if metric == "manhattan" else np.sqrt((away * away).sum(axis=1))
        within = np.flatnonzero(distance <= np.sort(distance)[3])  # the k nearest and the one after, with ties
        assert np.isin(within, there).all()
        found += 1
    assert found > 400
    assert number == len(cells.lists) - 1  # what is far off has the empty list


@pytest.mark.parametrize(
    ("kind", "k"),
    [
        ("three features", 3),
        ("few rows", 3),
        ("all the same", 3),
        ("half the same", 3),
        ("on a line", 3),
        ("many neighbours", 100),
    ],
)
def test_where_lists_do_not_pay_there_are_none(kind: str, k: int) -> None:
    rows = {
        "three features": blobs(700, 3),
        "few rows": blobs(200),
        "all the same": np.ones((700, 2)),
        "on a line": blobs(700, 1) * [1.0, 2.0],
        "half the same": np.concatenate([blobs(350), np.ones((350, 2))]),
        "many neighbours": blobs(700),
    }[kind]
    assert listed(rows, k)[1] is None


def test_rows_that_are_mapped_have_no_cells() -> None:
    """What blurs a query's place would have to be allowed for."""
    assert listed(blobs(700), metric="cosine")[1] is None
    enrolment = enrol(training(blobs(700)), [affine(np.zeros(2), np.full(2, 1e-12))], "euclidean")
    assert find_cells(enrolment.space, enrolment.enrolled, 3) is None  # their filler would not be far away


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("blobs", KnnSpec("cells", 3)),
        ("blobs", KnnSpec("cells", 1, "sqeuclidean", "uniform", "minmax", 0.95)),
        ("one feature", KnnSpec("cells", 10, "manhattan", "distance", "robust")),
        ("on a grid", KnnSpec("cells", 1, "euclidean", "uniform", "none")),
        ("seven of each", KnnSpec("cells", 5, "euclidean", "distance", "standard")),
        ("far from zero", KnnSpec("cells", 5, "euclidean", "distance", "standard")),
        ("one feature in small units", KnnSpec("cells", 3, "euclidean", "uniform", "standard")),
        ("in long blobs", KnnSpec("cells", 3, "sqeuclidean", "distance", "none")),
    ],
    ids=str,
)
def test_no_row_is_different_in_a_cell_or_off_them_all(
    kind: str, spec: KnnSpec, device: DeviceProcess, tmp_path: Path
) -> None:
    model = build_model(spec, training(ROWS[kind]))
    assert model.info.cells is not None
    enrolment, cells = listed(ROWS[kind])
    assert cells is not None
    queries = asked_of(enrolment.enrolled, cells)[::3] + enrolment.space.centre
    assert len(queries) < 1000  # a golden set has no more
    for runtime in CELLS:
        said, _ = verdict(device, model, queries, tmp_path, **runtime)
        assert said.different == 0
        alone, _ = verdict(device, model, queries[::25], tmp_path, one_by_one=True, **runtime)
        assert alone.different == 0


def test_ties_go_to_the_lower_index_in_a_cell_too(device: DeviceProcess, tmp_path: Path) -> None:
    rows = ROWS["seven of each"]
    model = build_model(KnnSpec("ties", 3), training(rows))
    assert model.info.cells is not None
    expected = model.reference.answer(rows.astype(np.float32))
    path = tmp_path / "model.tflite"
    path.write_bytes(model.data)
    answers = device.classify(path, rows.astype(np.float32))
    assert np.array_equal(answers.indices, expected.indices[:, :3])


@RUNTIMES
def test_rows_among_those_of_training_are_not_left_in_doubt(
    runtime: dict[str, Any], device: DeviceProcess, tmp_path: Path
) -> None:
    model = build_model(KnnSpec("sure", 3), training(blobs(700)))
    said, settled = verdict(device, model, blobs(500, seed=1), tmp_path, **runtime)
    assert said.different == 0
    assert settled <= 2


@RUNTIMES
@pytest.mark.parametrize("number", [-1, 10**6])
def test_a_list_that_is_not_there_is_an_error_and_no_answer(
    number: int, runtime: dict[str, Any], device: DeviceProcess, tmp_path: Path
) -> None:
    """Whoever may sign can sign such a file, and no golden row need be in that cell."""
    enrolment, cells = listed(ROWS["blobs"])
    assert cells is not None
    sound, path = build_model(KnnSpec("nowhere", 3), training(ROWS["blobs"])).data, tmp_path / "model.tflite"
    first = enrolment.enrolled[:1]
    held = cells.table[tuple(((first - cells.first) * cells.per_unit + 1).astype(int).T)][0]
    broken = np.where(cells.table == held, number, cells.table).astype(np.int32)
    assert sound.count(cells.table.tobytes()) == 1
    path.write_bytes(sound.replace(cells.table.tobytes(), broken.tobytes()))
    for one_by_one in (False, True):
        with pytest.raises(RuntimeError, match=r"^ModelUnusable: .* cannot run .*gather index out of bounds"):
            device.classify(path, first + enrolment.space.centre, one_by_one=one_by_one, **runtime)


_PRINT = """
import hashlib, sys
import numpy as np
sys.path[:0] = sys.argv[1:]
from knnkit.model.index.grid import find_cells
from knnkit.data.dataset import dataset
from knnkit.model.reference.enrolment import enrol
rows = np.random.default_rng(0).normal(size=(1000, 2))
enrolled = enrol(dataset(rows.astype(np.float32), np.zeros(len(rows), int)), [], "euclidean")
found = find_cells(enrolled.space, enrolled.enrolled, 3)
print(found.lists.shape, hashlib.sha256(found.table.tobytes() + found.lists.tobytes()).hexdigest())
"""


def test_what_is_stored_does_not_depend_on_the_processor_or_its_threads() -> None:
    assert len(said_on_each(_PRINT)) == 1


def test_lists_that_leave_a_neighbour_out_fail_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    import knnkit.model.graph.search as searched

    def without_the_first(*arguments: Any) -> CellLists | None:
        cells = find_cells(*arguments)
        assert cells is not None
        cells.lists[:, 0] = cells.lists[:, 1]
        return cells

    monkeypatch.setattr(searched, "find_cells", without_the_first)
    data = training(blobs(700))
    model = build_model(KnnSpec("wrong", 3), data)
    with pytest.raises(BuildError, match="misses its own gates in the cell search") as caught:
        self_check(model, make_golden(model, None, data), Gates())
    assert "not your data" in str(caught.value.hint)

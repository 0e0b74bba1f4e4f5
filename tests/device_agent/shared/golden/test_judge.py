"""The judge tells identical, equivalent and different answers apart, and reads no golden set that it cannot trust."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np
import pytest

from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.golden.judge import judge
from device_agent.shared.protocol.constants import MAX_DIFFERENCES
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.protocol.model_info import Evaluation, Gates, KnnInfo

INFO = KnnInfo("m", 2, 1, ("x",), ("a", "b"), "euclidean", "uniform", "none", 9, 2, "0" * 64, "2.5.0", {})
GOLDEN = Golden(
    metric="euclidean",
    rows=np.zeros((2, 1), np.float32),
    truth=np.array([0, 1], np.int32),
    label=np.array([0, 1], np.int32),
    indices=np.array([[3, 5, 7], [1, 2, -1]], np.int32),
    distances=np.array([[1.0, 2.0, 2.0 + 1e-6], [1.0, 3.0, np.inf]]),
    classes=np.array([[0, 0, 0], [1, 1, -1]], np.int32),
    tolerance=np.array([2e-5, 3e-5]),
)


@dataclasses.dataclass
class Told:
    label: np.ndarray
    probabilities: np.ndarray
    indices: np.ndarray
    distances: np.ndarray


def right() -> Told:
    return Told(
        GOLDEN.label.copy(),
        np.array([[1.0, 0.0], [0.0, 1.0]], np.float32),
        GOLDEN.indices[:, :2].copy(),
        GOLDEN.distances[:, :2].astype(np.float32),
    )


def counts(told: Told, golden: Golden = GOLDEN, info: KnnInfo = INFO) -> tuple[int, int, int]:
    verdict = judge(golden, told, info, Gates())
    assert bool(verdict.failures) == bool(verdict.different)
    return verdict.identical, verdict.equivalent, verdict.different


def test_the_references_own_answers_are_identical() -> None:
    assert counts(right()) == (2, 0, 0)


def test_a_near_tied_neighbour_in_the_others_place_is_equivalent() -> None:
    told = right()
    told.indices[0] = [3, 7]
    assert counts(told) == (1, 1, 0)


@pytest.mark.parametrize(
    ("field", "place", "value"),
    [
        ("indices", (0, 0), 7),  # not near-tied with the first
        ("indices", (0, 1), 8),  # not in the list
        ("indices", (0, 1), 3),  # twice
        ("indices", (1, 1), -1),
        ("distances", (0, 1), 2.001),
        ("distances", (0, 1), np.nan),
        ("distances", (0, 1), np.inf),
        ("probabilities", (0, 0), 0.9),
        ("probabilities", (0, 0), np.nan),
        ("label", (0,), 1),
        ("label", (0,), -1),
    ],
)
def test_anything_else_is_different(field: str, place: tuple[int, ...], value: float) -> None:
    told = right()
    getattr(told, field)[place] = value
    verdict = judge(GOLDEN, told, INFO, Gates())
    assert verdict.different == 1
    assert [difference.row for difference in verdict.differences] == [place[0]]
    assert verdict.failures == ("parity: 1 of 2 golden rows are answered differently",)


def test_neighbours_in_the_wrong_order_are_different_also_with_their_own_distances() -> None:
    told = right()
    told.indices[1], told.distances[1] = [2, 1], [3.0, 1.0]
    assert counts(told) == (1, 0, 1)


def test_one_neighbour_twice_is_different_also_where_it_is_tied_with_the_one_that_is_missing() -> None:
    tied = dataclasses.replace(GOLDEN, distances=np.array([[2.0, 2.0, 2.0], [1.0, 3.0, np.inf]]))
    told = right()
    told.distances[0] = 2.0
    assert counts(told, tied) == (2, 0, 0)
    told.indices[0] = [3, 3]
    assert counts(told, tied) == (1, 0, 1)


@pytest.mark.parametrize(("off", "different"), [(1.8e-5, 0), (2.2e-5, 1)])
def test_a_distance_may_be_off_by_the_rows_tolerance(off: float, different: int) -> None:
    told = right()
    told.distances[0, 1] += off
    assert counts(told)[2] == different


@pytest.mark.parametrize(("off", "different"), [(0.9e-5, 0), (1.1e-5, 1)])
def test_a_probability_may_be_off_by_a_hundred_thousandth(off: float, different: int) -> None:
    told = right()
    told.probabilities = told.probabilities.astype(np.float64)
    told.probabilities[0] = [1.0 - off, off]
    assert counts(told)[2] == different


def test_without_any_margin_the_references_own_answers_are_identical() -> None:
    assert counts(right(), dataclasses.replace(GOLDEN, tolerance=np.zeros(2))) == (2, 0, 0)


def test_an_exact_match_takes_all_the_weight_and_others_weigh_by_their_distance() -> None:
    info = dataclasses.replace(INFO, weights="distance")
    golden = dataclasses.replace(
        GOLDEN,
        classes=np.array([[0, 1, 1], [1, 0, -1]], np.int32),
        distances=np.array([[0.0, 2.0, 3.0], [1.0, 3.0, np.inf]]),
    )
    told = right()
    told.distances = golden.distances[:, :2].astype(np.float32)
    told.probabilities = np.array([[1.0, 0.0], [0.25, 0.75]], np.float32)
    assert counts(told, golden, info) == (2, 0, 0)
    told.probabilities[0] = [0.5, 0.5]
    assert counts(told, golden, info) == (1, 0, 1)


def test_answers_of_the_wrong_shape_are_all_different() -> None:
    told = right()
    told.indices, told.distances = told.indices[:, :1], told.distances[:, :1]
    assert counts(told) == (0, 0, 2)
    told = right()
    told.probabilities = np.zeros((2, 3), np.float32)
    assert counts(told) == (0, 0, 2)


def test_a_swap_that_changes_the_label_is_different() -> None:
    """The label is part of the promise; a device settles such a row in float64, and so never answers it."""
    golden = dataclasses.replace(GOLDEN, classes=np.array([[0, 0, 1], [1, 1, -1]], np.int32))
    told = right()
    told.indices[0], told.probabilities[0], told.label[0] = [3, 7], [0.5, 0.5], 1
    assert counts(told, golden) == (1, 0, 1)


def test_accuracy_counts_an_unknown_as_wrong_and_gates_are_named() -> None:
    told = right()
    golden = dataclasses.replace(GOLDEN, label=np.array([-1, 1], np.int32))
    told.label[0] = -1
    verdict = judge(golden, told, INFO, Gates(accuracy=0.9, latency_ms=1.0), p50_ms=2.0)
    assert (verdict.identical, verdict.accuracy, verdict.accepted, verdict.accuracy_rows) == (2, 0.5, 0.5, 2)
    assert verdict.confusion == ((0, 0, 1), (0, 1, 0))
    assert [failure.split(":")[0] for failure in verdict.failures] == ["accuracy", "latency"]
    unknown = dataclasses.replace(golden, truth=np.array([-1, -1], np.int32))
    assert judge(unknown, told, INFO, Gates()).accuracy is None
    assert "no golden row has a known true class" in judge(unknown, told, INFO, Gates(accuracy=0.5)).failures[0]


def test_a_rare_class_counts_in_the_accuracy_as_among_all_held_out_rows() -> None:
    golden, told = dataclasses.replace(GOLDEN, label=np.array([0, -1], np.int32)), right()
    told.label[1] = -1
    for evaluation, share in (
        (None, 0.5),
        (Evaluation("random", 2, (1, 1), (1, 0), (1, 0)), 0.5),  # the golden rows are all of them
        (Evaluation("random", 1000, (990, 10), (990, 0), (990, 0)), 0.99),
        (Evaluation("random", 2, (1, 1), (1, 0), (1, 0), of=7000), 0.5),
        (Evaluation("random", 1000, (0, 0), (0, 0), (0, 0)), 0.5),
    ):
        verdict = judge(golden, told, dataclasses.replace(INFO, evaluation=evaluation), Gates(accuracy=share - 1e-9))
        assert verdict.failures == ()
        assert (verdict.accuracy, verdict.accepted) == (pytest.approx(share), pytest.approx(share))
        assert judge(golden, told, dataclasses.replace(INFO, evaluation=evaluation), Gates(accuracy=0.999)).failures


def test_a_gate_is_kept_at_its_very_limit() -> None:
    assert judge(GOLDEN, right(), INFO, Gates(accuracy=1.0, latency_ms=2.0), p50_ms=2.0).failures == ()


def test_many_differing_rows_are_counted_and_a_few_named() -> None:
    arrays = {name: array for name, array in vars(GOLDEN).items() if isinstance(array, np.ndarray)}
    many = {name: np.repeat(array, 30, axis=0) for name, array in arrays.items()}
    told = Told(*(np.repeat(getattr(right(), field.name), 30, axis=0) for field in dataclasses.fields(Told)))
    told.label[:] = -1
    verdict = judge(Golden("euclidean", **many), told, INFO, Gates())
    assert verdict.different == 60
    assert [difference.row for difference in verdict.differences] == list(range(MAX_DIFFERENCES))


def test_a_verdict_on_any_number_of_classes_stays_small() -> None:
    """A matrix of 2,000 classes squared is more than a host accepts as an answer."""
    classes = tuple(f"person-{number:04d}" for number in range(2000))
    told = right()
    told.probabilities = np.zeros((2, 2000), np.float32)
    told.probabilities[[0, 1], [0, 1]] = 1.0
    verdict = judge(GOLDEN, told, dataclasses.replace(INFO, classes=classes), Gates(accuracy=1.0))
    assert (verdict.identical, verdict.accuracy, verdict.failures) == (2, 1.0, ())
    assert verdict.confusion == ()


def test_a_golden_set_survives_its_file_and_makes_the_same_bytes() -> None:
    data = GOLDEN.to_bytes()
    again = Golden.from_bytes(data)
    assert again.to_bytes() == data
    assert again.metric == "euclidean"
    assert np.array_equal(again.indices, GOLDEN.indices)
    far = dataclasses.replace(GOLDEN, rows=np.array([[5_600_000.05], [5_600_000.1]]))
    assert np.array_equal(Golden.from_bytes(far.to_bytes()).rows, far.rows)


def _changed(**arrays: Any) -> bytes:
    with np.load(io.BytesIO(GOLDEN.to_bytes())) as file:
        kept = {name: file[name] for name in file.files}
    kept |= arrays
    buffer = io.BytesIO()
    np.savez(buffer, **{name: value for name, value in kept.items() if value is not None})
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\3\4 truncated",
        _changed(extra=np.zeros(1)),
        _changed(label=None),
        _changed(label=np.zeros(2)),
        _changed(label=np.zeros(3, np.int32)),
        _changed(rows=np.array([[0.0], [np.nan]], np.float32)),
        _changed(rows=np.array([[0.0], [1e39]])),
        _changed(rows=np.array([[0], [1]])),
        _changed(tolerance=np.array([-1.0, 1.0])),
        _changed(distances=np.zeros((2, 3))),
        _changed(distances=np.array([[-1.0, 2.0, 3.0], [1.0, 3.0, np.inf]])),
        _changed(classes=np.full((2, 3), -1, np.int32)),
        _changed(metric=np.array("hamming")),
        _changed(rows=np.array([[object()], [object()]])),
    ],
)
def test_a_damaged_golden_set_is_refused(data: bytes) -> None:
    with pytest.raises(ModelUnusable, match="not a golden set"):
        Golden.from_bytes(data)


@pytest.mark.parametrize(
    "info",
    [
        dataclasses.replace(INFO, k=3),
        dataclasses.replace(INFO, n_features=2),
        dataclasses.replace(INFO, metric="cosine"),
        dataclasses.replace(INFO, n_train=5),
        dataclasses.replace(INFO, classes=("a",)),
    ],
)
def test_a_golden_set_of_another_model_is_refused(info: KnnInfo) -> None:
    with pytest.raises(ModelUnusable, match="another model"):
        judge(GOLDEN, right(), info, Gates())


def test_a_golden_set_with_fewer_neighbours_than_the_model_is_refused() -> None:
    golden = dataclasses.replace(
        GOLDEN,
        indices=np.array([[3, 5, 7], [1, 2, 4]], np.int32),
        classes=np.array([[0, 0, 0], [1, 1, 1]], np.int32),
        distances=np.array([[1.0, 2.0, 3.0], [1.0, 3.0, 4.0]]),
    )
    with pytest.raises(ModelUnusable, match="another model"):
        judge(golden, right(), dataclasses.replace(INFO, k=4), Gates())


def test_a_golden_set_with_a_class_that_the_model_does_not_have_is_refused() -> None:
    golden = dataclasses.replace(GOLDEN, classes=np.array([[0, 0, 0], [1, 2, -1]], np.int32))
    with pytest.raises(ModelUnusable, match="another model"):
        judge(golden, right(), INFO, Gates())

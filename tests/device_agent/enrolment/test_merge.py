"""Answers with many taught rows: those of float64 over all rows, and few of them cost float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.releases import Releases

from device_agent.enrolment.joined import JoinedExact, JoinedKNN
from device_agent.inference.tflite_knn import Answers, TfliteKNN
from device_agent.shared.enrolment import enrolled
from device_agent.shared.enrolment.joined import join
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.model_info import Enrol, Near
from device_agent.shared.protocol.record import replace
from knnkit.model.stored import read_model

COUNT = 500


def with_taught(signed: TfliteKNN, rows: np.ndarray, labels: list[Any]) -> JoinedKNN:
    info = replace(signed.info, enrol=Enrol(len(rows)))
    columns = enrolled.fingerprint(info)
    values = () if info.targets is None else (1.0,) * len(info.targets.names)
    made = [
        enrolled.LocalRow(str(number), label, 0, tuple(map(float, row)), "", columns, "", values)
        for number, (row, label) in enumerate(zip(rows, labels, strict=True))
    ]
    return JoinedKNN(signed, join(info, made, ""))


@pytest.mark.parametrize("name", ["digits", "wine", "iris", "wifi-taught"])
def test_rows_taught_among_the_model_s_own_cost_float64_only_in_doubt(
    name: str, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights by distance, Manhattan, a reject threshold, and values of a regression by cosine."""
    signed = TfliteKNN(releases[name] / "model.tflite")
    golden = Golden.from_bytes((releases[name] / constants.GOLDEN_FILE).read_bytes())
    rng = np.random.default_rng(5)
    asked = golden.rows[rng.integers(0, len(golden.rows), 1200)]
    asked = np.float32(asked + rng.normal(size=asked.shape) * 0.3 * golden.rows.std(axis=0))
    parts = golden.rows[rng.integers(0, len(golden.rows), (2, COUNT))]
    rows = np.float32(parts.mean(axis=0) + rng.normal(size=parts[0].shape) * 0.1 * golden.rows.std(axis=0))
    joined = with_taught(signed, rows, rng.choice(signed.info.classes, COUNT).tolist())
    slow, among = [], JoinedExact.among
    monkeypatch.setattr(
        JoinedExact, "among", lambda self, rows, *more: slow.append(len(rows)) or among(self, rows, *more)
    )
    found = joined.classify(asked)
    assert sum(slow) < 0.05 * len(asked)
    assert (found.indices >= signed.info.n_train).any(axis=1).mean() > 0.3
    right = joined.exact.answers(asked)
    for output in (constants.OUTPUT_LABEL, constants.OUTPUT_INDICES):
        assert np.array_equal(getattr(found, output), right[output])
    np.testing.assert_allclose(found.distances, right[constants.OUTPUT_DISTANCES], rtol=1e-4)
    np.testing.assert_allclose(found.probabilities, right[constants.OUTPUT_PROBABILITIES], atol=1e-5)
    alone = [joined.classify(row[np.newaxis]) for row in asked[:100]]
    for output in (constants.OUTPUT_LABEL, constants.OUTPUT_INDICES):
        assert np.array_equal(np.concatenate([getattr(each, output) for each in alone]), getattr(found, output)[:100])


@pytest.mark.parametrize("name", ["digits", "wine", "iris", "wifi-taught"])
def test_rows_that_tie_with_the_model_s_own_are_ranked_as_in_one_model(name: str, releases: Releases) -> None:
    """Taught copies of training rows, and rows a little beside them: ties at every place, also at the last of k."""
    signed = TfliteKNN(releases[name] / "model.tflite")
    stored, rng = read_model(releases[name] / "model.tflite"), np.random.default_rng(7)
    own = np.float32([stored.training_row(place) for place in rng.integers(0, signed.info.n_train, 60)])
    golden = Golden.from_bytes((releases[name] / constants.GOLDEN_FILE).read_bytes()).rows[:60]
    near = signed.classify(golden).indices[:, -1]  # the last of k, and the one after it come to be tied
    last = np.float32([stored.training_row(int(place)) for place in near])
    taught = np.concatenate([own, last, np.nextafter(own[:30], np.float32(np.inf))])
    joined = with_taught(signed, taught, rng.choice(signed.info.classes, len(taught)).tolist())
    asked = np.float32(np.concatenate([golden, own[:40], golden + rng.normal(size=golden.shape) * 1e-6]))
    found, right = joined.classify(asked), joined.exact.answers(asked)
    alone = [joined.classify(row[np.newaxis]) for row in asked]
    for output in (constants.OUTPUT_LABEL, constants.OUTPUT_INDICES):
        assert np.array_equal(getattr(found, output), right[output])
        assert np.array_equal(np.concatenate([getattr(each, output) for each in alone]), right[output])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["digits", "wine", "iris", "wifi-taught"])
def test_a_row_beyond_float32_is_answered_without_a_warning(name: str, releases: Releases) -> None:
    signed = TfliteKNN(releases[name] / "model.tflite")
    golden = Golden.from_bytes((releases[name] / constants.GOLDEN_FILE).read_bytes()).rows[:40]
    joined = with_taught(signed, np.float32(golden[:20] * 1.01), [signed.info.classes[0]] * 20)
    most = float(np.finfo(np.float32).max)
    asked = np.float32(golden[20:])
    for place, value in enumerate((most, -most, most / 2, 1e20, 3e38)):
        asked[place, place % asked.shape[1]] = asked[place + 5] = value
    found, right = joined.classify(asked), joined.exact.answers(asked)
    alone = [joined.classify(row[np.newaxis]) for row in asked]
    for output in (constants.OUTPUT_LABEL, constants.OUTPUT_INDICES):
        assert np.array_equal(getattr(found, output), right[output])
        assert np.array_equal(np.concatenate([getattr(each, output) for each in alone]), right[output])


def test_one_row_of_a_model_with_label_sets_is_in_as_much_doubt_as_many(releases: Releases) -> None:
    """Distances of a graph may be off by a share of a radius (`near.least`): for near rows, by more than 1e-3."""
    signed = TfliteKNN(releases["iris-forgets"] / "model.tflite")
    assert signed.info.label_sets is not None
    assert signed.info.origin is None
    signed.info = replace(signed.info, near=Near(1e-3, least=400.0))
    rows = Golden.from_bytes((releases["iris-forgets"] / constants.GOLDEN_FILE).read_bytes()).rows.astype(np.float32)
    asked, taught = rows[::2], rows[1::2] + np.float32(0.05)
    joined = with_taught(signed, taught, [signed.info.classes[0]] * len(taught))
    found, one = signed.classify(asked), joined.exact.one_row()
    near = joined.exact.nearby(asked, found.distances[:, -1])
    assert one is not None
    for place, row in enumerate(asked):
        chosen = one.merge(row, Answers._make(values[place : place + 1] for values in found))
        assert (() if chosen is None else (*chosen,)) == (*near.local[near.some[near.query] == place],)

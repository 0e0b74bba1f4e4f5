"""An activation measures the searches, keeps the fastest, and never fails because of it."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import re
import signal
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support import model_files
from support.device import Device
from support.releases import Releases

from device_agent.inference.tflite_knn import TfliteKNN
from device_agent.lifecycle import check, choose_search
from device_agent.serving import load
from device_agent.serving.load import load_accepted
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.documents import ReleaseRef, Searched
from device_agent.shared.protocol.errors import BadInput, ModelUnusable
from device_agent.shared.protocol.model_info import Gates
from device_agent.shared.protocol.record import replace
from device_agent.store import searches
from device_agent.store.store import Store
from knnkit.model.index.cost_sample import WeightedRows
from knnkit.model.index.groups import WholeRows, make_groups
from knnkit.model.stored import read_model
from knnkit.release.signing import FileSigner, sign_release


def kept(device: Device, digest: str) -> Searched:
    found = searches.read(Store(device.root), digest)
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["iris", "spectra"])
def test_an_activation_measures_what_the_model_has(name: str, device: Device, releases: Releases) -> None:
    digest = device.install(releases[name])
    found, model = kept(device, digest), TfliteKNN(releases[name] / constants.MODEL_FILE)
    there = {way for way in constants.SEARCHES if model.info.batch_rows(way) is not None} | {constants.NUMPY}
    assert set(found.alone_ms) == set(found.batch_ms) == there
    assert {found.alone, found.batch} <= there
    assert found.runtime == f"{model.runtime.name} {model.runtime.version}"
    status = device.ask("status")
    assert (status["searched"]["alone"], status["searched"]["batch"]) == (found.alone, found.batch)
    assert f"one row: {found.alone} (" in device.run("status").out


def add_groups(release: Path, key: Path) -> None:
    """Gives the model of a release groups of near rows, as a build gives a model of many more rows."""
    path = release / constants.MODEL_FILE
    stored, packed = read_model(path), io.BytesIO()
    rows = WeightedRows(stored.reference.enrolled, stored.reference.space.scale)
    made = make_groups(WholeRows(rows), 50)
    np.savez(packed, **made.to_arrays())
    info = json_codec.dump_file(replace(stored.info, groups=len(made.sizes)))
    files = {constants.KNN_FILE: info, constants.GROUPS_FILE: packed.getvalue()}
    path.write_bytes(model_files.add(path.read_bytes(), files))
    sign_release(release, FileSigner.load(key))


def test_groups_are_measured_and_answer_alike(device: Device, releases: Releases, tmp_path: Path) -> None:
    release = releases.copy("spectra", tmp_path / "grouped")
    add_groups(release, releases.private_key)
    found = kept(device, device.install(release))
    assert {*found.alone_ms} == {*found.batch_ms} >= {constants.FULL, constants.NUMPY, constants.GROUPS}
    golden = Golden.from_bytes((release / constants.GOLDEN_FILE).read_bytes())
    rows = "\n".join(",".join(map(str, row)) for row in golden.rows[:40].tolist()) + "\n"
    assert len({answers_of(device, rows, "--search", way) for way in constants.WAYS}) == 1


def answers_of(device: Device, rows: str, *options: str) -> str:
    """Labels and neighbours; distances are rounded differently in float32."""
    return re.sub(r"\d+\.\d+", "", device.run("classify", "--neighbors", *options, input=rows).out)


def test_all_searches_give_the_same_answers(device: Device, releases: Releases) -> None:
    digest = device.install(releases["spectra"])
    golden = Golden.from_bytes((releases["spectra"] / constants.GOLDEN_FILE).read_bytes())
    rows = "\n".join(",".join(map(str, row)) for row in golden.rows[:150].tolist()) + "\n"
    answers = {answers_of(device, rows, "--search", way) for way in constants.WAYS}
    store = Store(device.root)
    measured = [("numpy", "full"), ("full", "numpy"), ("numpy", "numpy"), ("quantized", "full"), ("quantized", "numpy")]
    for alone, batch in measured:
        searches.write(store, replace(kept(device, digest), alone=alone, batch=batch))
        loaded = load_accepted(store, ReleaseRef(digest, "spectra", "1", 1))
        assert (loaded.model.search_alone, loaded.model.search) == (alone, batch)
        loaded.close()
        answers |= {answers_of(device, rows), answers_of(device, rows, "--stream")}
    assert len(answers) == 1


@pytest.mark.parametrize("wrong", ["[", '{"releases": []}', "unknown search", "other runtime"])
def test_without_a_measurement_that_fits_a_model_searches_as_before(
    wrong: str, device: Device, releases: Releases
) -> None:
    digest = device.install(releases["iris"])
    path = device.root / constants.SEARCHES_FILE
    document = json.loads(path.read_text())
    if wrong == "unknown search":
        document["releases"][0]["batch"] = "fast"
    elif wrong == "other runtime":
        document["releases"][0] |= {"batch": "numpy", "alone": "numpy", "runtime": "tflite_runtime 9.9"}
    path.write_text(json.dumps(document) if " " in wrong and wrong[0] not in "[{" else wrong)
    loaded = load_accepted(Store(device.root), ReleaseRef(digest, "iris", "1", 1))
    assert (loaded.model.search_alone, loaded.model.search) == (constants.FULL, constants.FULL)
    loaded.close()


def _dies(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fails(*_: object) -> None:
    raise ValueError("no clock")


def _goes_on(*_: object) -> None:
    threading.Event().wait()


def _cannot(*_: object) -> None:
    raise BadInput("no row")


@pytest.mark.parametrize("measure", [_dies, _fails, _goes_on, _cannot])
def test_a_measurement_that_fails_leaves_nothing_and_the_check_counts(
    measure: object, device: Device, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.install(releases["iris"])
    monkeypatch.setattr(choose_search, "measure_release", measure)
    monkeypatch.setattr(choose_search, "HANGS", 1)
    found: list[Searched] = []
    with contextlib.ExitStack() as stack:
        store = Store(device.root)
        opened, verdict = load.open_accepted(store, load.answering(store).release, stack)
        certificate = check.certify(opened, verdict, "nonce", searched=found.append)
    assert (certificate.passed, certificate.nonce, found) == (True, "nonce", [])


def test_a_release_that_misses_a_gate_is_not_measured(device: Device, releases: Releases, tmp_path: Path) -> None:
    strict = releases.variant("iris", tmp_path / "strict", gates=Gates(accuracy=1.0))
    digest = device.stage(strict)
    assert device.ask("activate", digest, code=4)["reason"] == "gate-failed"
    assert searches.read(Store(device.root), digest) is None


def test_the_last_releases_keep_their_measurement(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number in range(12):
        searches.write(store, Searched(f"{number:064x}", "numpy 1", "full", "numpy", {}, {}, 8))
    there = [number for number in range(12) if searches.read(store, f"{number:064x}")]
    assert there == [4, 5, 6, 7, 8, 9, 10, 11]


class Clock:
    """Stands in for `time`: only searches take time, by the table of milliseconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Timed:
    """A model of one answer, whose searches take the milliseconds of `costs`; the first batch packs it."""

    def __init__(self, way: str, costs: dict[str, tuple[float, float]], clock: Clock, packing: float = 0.0) -> None:
        self.search = self.search_alone = self._way = way
        self._costs, self._clock, self._packing = costs, clock, packing
        self.batch, self.info = 8, SimpleNamespace(has=costs.__contains__)
        self.runtime = SimpleNamespace(name="stand-in", version="1")

    def classify(self, rows: np.ndarray) -> SimpleNamespace:
        alone, batch = self._costs[self._way]
        self._clock.now += (alone if len(rows) == 1 else batch) / 1e3
        if len(rows) > 1:
            self._clock.now, self._packing = self._clock.now + self._packing, 0.0
        return SimpleNamespace(label=np.zeros(len(rows)), indices=np.zeros((len(rows), 1)))


@pytest.mark.parametrize(
    ("costs", "packing", "alone", "batch"),
    [
        ({"full": (10, 70), "numpy": (26, 250)}, 2.0, "full", "full"),  # packed, it is the fastest; packing takes 2 s
        ({"full": (9, 100), "quantized": (9, 700), "groups": (0.6, 20)}, 2.0, "groups", "groups"),
        ({"full": (9, 900), "groups": (4, 1400), "quantized": (3, 5000)}, 0.0, "groups", "full"),  # no time for int8
    ],
)
def test_the_fastest_is_chosen_however_long_a_model_takes_to_begin(
    costs: dict[str, tuple[float, float]], packing: float, alone: str, batch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(choose_search, "time", clock)
    usual = Timed("full", costs, clock, packing)
    found = choose_search.measure(usual, lambda way: Timed(way, costs, clock), np.zeros((3, 2)))  # type: ignore[arg-type, return-value]
    assert (found.alone, found.batch) == (alone, batch)
    assert found.rows == 64


@pytest.mark.parametrize(
    ("costs", "large", "batch"),
    [
        ({"full": (7, 76), "numpy": (20, 80)}, True, "numpy"),  # nearly as fast, without two copies of the rows
        ({"full": (7, 76), "numpy": (20, 80)}, False, "full"),  # a small model's copies are small
        ({"full": (7, 36), "quantized": (2, 30), "numpy": (20, 80)}, True, "quantized"),  # worth its copies
        ({"full": (7, 76), "groups": (1, 70), "numpy": (20, 74)}, True, "groups"),
    ],
)
def test_a_large_model_is_copied_only_if_that_is_faster(
    costs: dict[str, tuple[float, float]], large: bool, batch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(choose_search, "time", clock)
    models = functools.partial(Timed, costs=costs, clock=clock)
    found = choose_search.measure(models("full"), models, np.zeros((3, 2)), large=large)  # type: ignore[arg-type]
    assert found.batch == batch


def test_the_first_batch_of_a_search_may_copy_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    costs, clock = {"quantized": (2.0, 40.0), "full": (3.0, 20.0)}, Clock()
    monkeypatch.setattr(choose_search, "time", clock)
    models = functools.partial(Timed, costs=costs, clock=clock, packing=0.5)
    found = choose_search.measure(models("quantized"), models, np.zeros((3, 2)))  # type: ignore[arg-type]
    assert (found.alone, found.batch) == ("quantized", "full")


def test_groups_that_save_little_leave_time_for_other_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million rows that form no groups: 64 rows take 0.8 s, row by row."""
    costs, clock = {"full": (10.0, 180.0), "groups": (14.0, 830.0), "numpy": (11.0, 138.0)}, Clock()
    monkeypatch.setattr(choose_search, "time", clock)
    models = functools.partial(Timed, costs=costs, clock=clock)
    found = choose_search.measure(models("full"), models, np.zeros((3, 2)), large=True)  # type: ignore[arg-type]
    assert (found.alone, found.batch) == ("full", "numpy")


def test_single_rows_of_a_large_model_are_timed_before_it_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(choose_search, "time", clock)

    class Copied(Timed):
        def classify(self, rows: np.ndarray) -> SimpleNamespace:
            if len(rows) > 1 and self._way == "quantized":
                self._costs = {"quantized": (9.0, self._costs["quantized"][1])}
            return super().classify(rows)

    for large, alone, batch in ((True, "numpy", 150.0), (True, "numpy", 15.0), (False, "quantized", 150.0)):
        costs = {"quantized": (16.0, batch), "numpy": (11.0, 155.0)}
        models = functools.partial(Copied, costs=costs, clock=clock)
        usual = models("quantized")
        found = choose_search.measure(usual, models, np.zeros((3, 2)), large=large)  # type: ignore[arg-type]
        assert found.alone == alone


def test_a_batch_has_more_rows_where_they_take_little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    costs, clock = {"full": (0.2, 7.0), "numpy": (0.6, 6.0)}, Clock()
    monkeypatch.setattr(choose_search, "time", clock)

    class ByRows(Timed):
        def classify(self, rows: np.ndarray) -> SimpleNamespace:
            if self._way == "full":
                self._costs = {"full": (0.2, 7.0 * len(rows) / 64)}
            return super().classify(rows)

    models = functools.partial(ByRows, costs=costs, clock=clock)
    found = choose_search.measure(models("full"), models, np.zeros((3, 2)))  # type: ignore[arg-type]
    assert (found.rows, found.batch) == (256, "numpy")


def test_a_search_that_fails_is_skipped_and_two_models_are_the_most_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    costs, clock = {"groups": (1.0, 10.0), "full": (9.0, 90.0), "quantized": (4.0, 40.0), "numpy": (3.0, 30.0)}, Clock()
    monkeypatch.setattr(choose_search, "time", clock)
    there: list[weakref.ref[Timed]] = []

    def load(way: str) -> Timed:
        assert not any(each() for each in there)
        if way == "groups":
            raise ModelUnusable("damaged")
        made = Timed(way, costs, clock)
        there.append(weakref.ref(made))
        return made

    found = choose_search.measure(Timed("full", costs, clock), load, np.zeros((3, 2)))  # type: ignore[arg-type]
    assert (found.alone, found.batch) == ("numpy", "numpy")
    assert {*found.alone_ms} == {"full", "quantized", "numpy"}


@pytest.mark.parametrize("fails", [True, False])
def test_a_search_that_is_wrong_about_one_row_does_not_lose_the_others(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch is answered by another graph than one row, and proves nothing for it."""
    costs, clock = {"cells": (1.0, 10.0), "full": (9.0, 90.0), "numpy": (3.0, 30.0)}, Clock()
    monkeypatch.setattr(choose_search, "time", clock)

    class Broken(Timed):
        def classify(self, rows: np.ndarray) -> SimpleNamespace:
            found = super().classify(rows)
            if self._way == "cells" and len(rows) == 1:
                if fails:
                    raise ModelUnusable("the runtime failed")
                found.indices += 1
            return found

    models = functools.partial(Broken, costs=costs, clock=clock)
    found = choose_search.measure(models("full"), models, np.zeros((3, 2)))  # type: ignore[arg-type]
    assert (found.alone, found.batch) == ("numpy", "numpy")

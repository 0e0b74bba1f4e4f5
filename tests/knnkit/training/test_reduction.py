"""`reduce` keeps rows of the file, every class, and never loses more than it may."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imblearn.under_sampling import EditedNearestNeighbours
from sklearn.neighbors import KNeighborsClassifier

from knnkit import cli
from knnkit.config import load
from knnkit.data.dataset import dataset, load_sklearn
from knnkit.errors import BuildError
from knnkit.evaluation.splits import divide
from knnkit.model.build import calibration_rows, make_reference
from knnkit.model.reference.calibration import answer_apart
from knnkit.model.reference.spec import KnnSpec
from knnkit.release import keys
from knnkit.training import reduction, source

HOWS = ("condensed", "edited", "prototypes")


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "cosine"])
@pytest.mark.parametrize(("name", "k"), [("iris", 1), ("blobs", 5), ("wine", 3)])
def test_kept_rows_have_every_class_and_are_enough(how: str, metric: Any, name: str, k: int) -> None:
    training = divide(load_sklearn(name), 0.3, 0).training
    spec = KnnSpec("m", k, metric, scale="standard")
    kept = reduction.choose(training, spec, how, 0.01, 0)
    assert np.array_equal(kept, np.unique(kept))
    assert k < len(kept) <= len(training.rows)
    assert set(training.labels[kept]) == set(training.labels)
    assert np.array_equal(kept, reduction.choose(training, spec, how, 0.01, 0))
    if how == "condensed":  # Hart's rule: the kept rows classify all others
        points = reduction._points(training, spec)
        others = np.setdiff1d(np.arange(len(training.rows)), kept)
        own = KNeighborsClassifier(k, metric="manhattan" if metric == "manhattan" else "euclidean", algorithm="brute")
        own.fit(points.values[kept], points.codes[kept])
        assert np.mean(own.predict(points.values[others]) == points.codes[others]) > 0.99  # but for ties
        assert (points.votes_of(kept)[others] == points.codes[others]).all()
        assert len(kept) < 0.5 * len(training.rows)


def test_edited_rows_are_those_of_imbalanced_learn() -> None:
    training = divide(load_sklearn("moons"), 0.3, 0).training
    kept = reduction.choose(training, KnnSpec("m", 3), "edited", 0.01, 0)
    editing = EditedNearestNeighbours(sampling_strategy="all", n_neighbors=3, kind_sel="mode")
    editing.fit_resample(training.rows.astype(float), training.labels)
    assert kept.tolist() == sorted(editing.sample_indices_)


def test_a_class_whose_rows_are_all_contradicted_stays() -> None:
    random = np.random.default_rng(0)
    rows = np.concatenate([random.normal(size=(60, 2)), random.normal(size=(3, 2))])
    training = dataset(rows, ["ok"] * 60 + ["rare"] * 3)
    kept = reduction.choose(training, KnnSpec("m", 3), "edited", 0.01, 0)
    assert (training.labels[kept] == "rare").sum() == 3
    with pytest.raises(BuildError, match="leaves 4 rows, and k is 4"):
        reduction.choose(dataset([[0.0], [0.1], [9.0], [9.1]], [0, 0, 1, 1]), KnnSpec("m", 4), "prototypes", 1.0, 0)


@pytest.mark.parametrize("how", ["condensed", "edited", "prototypes"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_no_more_rows_than_k_are_an_error(how: str, count: int) -> None:
    training = dataset(np.arange(2.0 * count).reshape(count, 2), ["a"] * count)
    with pytest.raises(BuildError, match=f"leaves {count} rows, and k is 3"):
        reduction.choose(training, KnnSpec("m", 3), how, 0.01, 0)


def test_rows_that_are_left_out_calibrate_too() -> None:
    divided = divide(load_sklearn("blobs"), 0.3, 0)
    training, spec = divided.training, KnnSpec("m", 3)
    kept = np.arange(0, len(training.rows), 5)
    spare = training.take(np.setdiff1d(np.arange(len(training.rows)), kept))
    from knnkit.model.reference.enrolment import enrol

    reference = make_reference(spec, enrol(training.take(kept), [], "euclidean"))
    places = np.random.default_rng(1).permutation(len(training.rows))
    found = answer_apart(reference, places, spare.rows)
    for row, place in enumerate(places[:80]):
        alone = (
            reference.leave_one_out(np.array([place]))
            if place < len(kept)
            else reference.answer(spare.rows[[place - len(kept)]])
        )
        assert found.label[row] == alone.label[0]
        assert found.distances[row].tolist() == alone.distances[0, :3].tolist()
    label, kth = calibration_rows(reference, 0, spare)
    assert len(label) == len(kth) == len(training.rows)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    keys.generate(tmp_path / "signing")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(reduce: str) -> None:
    Path("deploy.yaml").write_text(
        "model: {name: m, data: {sklearn: moons}, scale: standard, reject: 0.9, label_sets: 0.9, "
        f"reduce: {reduce}}}\nsigning: {{key: signing.pem}}\n"
    )


def test_a_build_shows_both_models_and_guards_the_loss(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("{how: condensed, max_loss: 0.05}")
    assert cli.main(["build", "--json"]) == 0
    said = capsys.readouterr()
    told = json.loads(said.out)["releases"][0]
    assert [note.split(":")[1].strip() for note in told["notes"]] == ["condensed"] * 4
    assert all(word in said.err for word in ("700 rows before", "bytes before", "ms a row", "accuracy"))
    assert cli.main(["inspect", "dist", "--json"]) == 0
    model = json.loads(capsys.readouterr().out)["model"]
    assert model["reduced"]["rows"] == 700
    assert model["n_train"] < 350
    assert abs(model["reject"]["measured"] - 0.9) < 0.05
    assert abs(sum(model["label_sets"][0]["covered"]) / 300 - 0.9) < 0.05
    material = source.load(load.load("deploy.yaml").builds()[0])
    assert material.fingerprint == model["fingerprint"]  # `parity --data` finds the same rows
    write("{how: prototypes, max_loss: 0.0}")
    Path("deploy.yaml").write_text(Path("deploy.yaml").read_text().replace("moons", "digits"))
    code = cli.main(["build"])
    said = capsys.readouterr()
    assert (code == 2) == ("max_loss is 0.00 %" in said.err)


def test_reduce_needs_held_out_rows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("edited")
    Path("deploy.yaml").write_text(Path("deploy.yaml").read_text().replace("reduce", "test: 0, reduce"))
    assert cli.main(["build"]) == 2
    assert "test: 0.3" in capsys.readouterr().err


def test_a_loss_beyond_the_limit_names_what_to_write() -> None:
    from device_agent.shared.protocol.model_info import Evaluation, KnnInfo

    def info(right: int, rows: int) -> KnnInfo:
        found = Evaluation("random", 200, (200,), (right,), (right,))
        return KnnInfo("m", 1, 1, ("x",), (0,), "euclidean", "uniform", "none", rows, 1, "", "2", {}, evaluation=found)

    reduction.require_small_loss("condensed", 0.01, info(190, 500), info(188, 50))
    with pytest.raises(BuildError, match=r"keeps 50 of 500 .* falls from 95.00 % to 93.50 %") as raised:
        reduction.require_small_loss("condensed", 0.01, info(190, 500), info(187, 50))
    assert raised.value.hint == "reduce: {how: condensed, max_loss: 0.015}, or how: edited"

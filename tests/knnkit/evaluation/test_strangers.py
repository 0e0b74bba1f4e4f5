"""`reject` with shares of single classes, and the table of `knnkit reject`, are what the model answers."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.device_process import DeviceProcess
from support.models import build_model

from device_agent.shared.protocol.constants import KNN_FILE, UNKNOWN
from device_agent.shared.release.model_file import read_member
from knnkit import cli
from knnkit.data.dataset import Dataset, dataset
from knnkit.errors import BuildError
from knnkit.evaluation.strangers import Measured, Trade
from knnkit.model import build
from knnkit.model.build import calibration_rows, make_reference
from knnkit.model.reference.classifier import Reference
from knnkit.model.reference.enrolment import enrol
from knnkit.model.reference.spec import KnnSpec

NAMES = ("fault", "idle", "run")


def rows_of(seed: int, count: int = 900) -> Dataset:
    """Three classes of very different spread; `fault` has a tenth of the rows."""
    random = np.random.default_rng(seed)
    codes = np.where(random.random(count) < 0.1, 0, 1 + random.integers(0, 2, count))
    spread = np.array([2.0, 0.3, 1.0])[codes, None]
    rows = np.array([[0.0, 9.0], [0.0, 0.0], [6.0, 0.0]])[codes] + random.normal(size=(count, 2)) * spread
    return dataset(rows, np.array(NAMES)[codes], ("x", "y"), "rows")


def reference_of(training: Dataset, reject: Any, metric: Any = "euclidean") -> Reference:
    return make_reference(KnnSpec("m", 3, metric, reject=reject), enrol(training, [], metric))


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "manhattan", "cosine"])
@pytest.mark.parametrize("own", [{}, {"fault": 0.999}, {"idle": 0.6, "run": 0.97}])
def test_the_table_counts_what_the_model_answers(own: dict[str, float], metric: Any) -> None:
    training, held_out, strangers = rows_of(1), rows_of(2, 300), np.random.default_rng(3).uniform(-20, 20, (300, 2))
    rejecting = reference_of(training, {**own, "default": 0.9}, metric)
    plain = reference_of(training, None, metric)

    def ask(rows: Any) -> Measured:
        answers = plain.answer(np.asarray(rows, np.float32))
        return Measured(answers.label, answers.distances[:, 2], answers.label)

    truth = np.array([NAMES.index(label) for label in held_out.labels], np.int32)
    label, kth = calibration_rows(plain, 0)
    trade = Trade(Measured(label, kth, label), replace(ask(held_out.rows), truth=truth), ask(strangers), 3)
    level = trade.level(0.9, {NAMES.index(name): share for name, share in own.items()})
    answered = rejecting.answer(held_out.rows).label
    foreign = rejecting.answer(strangers.astype(np.float32)).label
    assert level.rejected == np.mean(answered == UNKNOWN)
    assert level.accepted == np.mean(foreign != UNKNOWN)
    for code, each in enumerate(level.classes):
        assert each.threshold == rejecting.reject.thresholds[code]  # type: ignore[union-attr]
        assert (each.rows, each.rejected) == (int((truth == code).sum()), int((answered[truth == code] < 0).sum()))
        assert each.strangers == int((foreign == code).sum())
    goal, least = trade.level(0.7).accepted, trade.level(0.95).rejected
    assert goal is not None
    widest, strictest = trade.widest(goal), trade.strictest(least)
    assert widest is not None
    assert strictest is not None
    assert (widest.accepted, strictest.rejected) == (goal, least)
    assert trade.level(widest.share + 0.001).accepted > goal  # type: ignore[operator]
    assert trade.level(strictest.share - 0.001).rejected > least


@pytest.mark.parametrize("held_out", [True, False])
def test_rows_beyond_a_kernel_are_unknown_in_the_table(held_out: bool) -> None:
    training, strangers = rows_of(1), np.random.default_rng(3).uniform(-20, 20, (300, 2)).astype(np.float32)
    spec = KnnSpec("m", 3, weights="epanechnikov", bandwidth=0.05)
    plain, rejecting = (
        make_reference(replace(spec, reject=share), enrol(training, [], "euclidean")) for share in (None, 0.9)
    )
    label, kth = calibration_rows(plain, 0)
    ordinary, answered = Measured(label, kth, label), rejecting.leave_one_out(np.arange(len(training.rows))).label
    assert UNKNOWN in label
    if held_out:
        rows = rows_of(2, 300)
        answers, answered = plain.answer(rows.rows), rejecting.answer(rows.rows).label
        truth = np.array([NAMES.index(each) for each in rows.labels], np.int32)
        ordinary = Measured(answers.label, answers.distances[:, 2], truth)
    answers = plain.answer(strangers)
    trade = Trade(
        Measured(label, kth, label), ordinary, Measured(answers.label, answers.distances[:, 2], answers.label), 3
    )
    level = trade.level(0.9)
    assert level.rejected == np.mean(answered == UNKNOWN)
    assert level.accepted == np.mean(rejecting.answer(strangers).label != UNKNOWN)
    assert sum(each.rows for each in level.classes) == int((ordinary.truth != UNKNOWN).sum())


def test_a_device_rejects_by_the_share_of_the_class(device: DeviceProcess, tmp_path: Path) -> None:
    training, held_out = rows_of(1), rows_of(2, 300)
    shares = {"idle": 0.5, "fault": 0.999, "default": 0.9}
    strangers = np.random.default_rng(3).uniform(-20, 20, (300, 2)).astype(np.float32)
    rows = np.concatenate([held_out.rows, strangers])
    for reject in (shares, 0.9):
        model = build_model(KnnSpec("m", 3, reject=reject), training, held_out)
        path = tmp_path / "model.tflite"
        path.write_bytes(model.data)
        assert np.array_equal(device.classify(path, rows).label, model.reference.answer(rows).label)
        written = json.loads(read_member(path, KNN_FILE))["reject"]
        assert written["acceptance"] == 0.9
        assert written.keys() - {"by_class"} == {"acceptance", "thresholds", "measured", "measured_rows"}
        assert written.get("by_class") == (None if reject == 0.9 else {"idle": 0.5, "fault": 0.999})
        assert ("by_class" in written) == (reject != 0.9)


@pytest.mark.parametrize(
    ("reject", "said"),
    [
        ({"faul": 0.9, "default": 0.9}, "'faul'"),
        ({"fault": 0.9}, "no `default` share"),
        ({"default": 1.0}, "reject is 1"),
    ],
)
def test_a_share_that_fits_no_class_is_named(reject: dict[str, float], said: str) -> None:
    with pytest.raises(BuildError, match=said):
        reference_of(rows_of(1, 60), reject)


def test_the_command_reads_strangers_as_a_device_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    training = rows_of(1, 400)
    lines = [f"{x},{y},{label}" for (x, y), label in zip(training.rows.tolist(), training.labels)]
    Path("rows.csv").write_text("\n".join(["x,y,label", *lines, ""]))
    Path("deploy.yaml").write_text(
        "model: {name: m, data: {file: rows.csv}, reject: {fault: 0.999, default: 0.9}}\nsigning: {key: s.pem}\n"
    )
    strangers = np.random.default_rng(3).uniform(-20, 20, (50, 2)).astype(np.float32)
    Path("s.csv").write_text("\n".join(["note,y,x", *(f"n,{y},{x}" for x, y in strangers.tolist()), ""]))
    Path("s.jsonl").write_text("".join(json.dumps({"x": x, "y": y}) + "\n" for x, y in strangers.tolist()))
    np.save("s.npy", strangers)
    told = []
    for name in ("s.csv", "s.jsonl", "s.npy"):
        assert cli.main(["reject", "--strangers", name, "--json"]) == 0
        told.append(json.loads(capsys.readouterr().out))
    assert told[0] == told[1] == told[2]
    assert told[0]["strangers"] == 50
    assert [each["share"] for each in told[0]["wanted"]["classes"]] == [0.999, 0.9, 0.9]
    assert cli.main(["reject", "--strangers", "s.csv", "--accept", "0.1", "--plot", "r.html"]) == 0
    said = capsys.readouterr()
    assert "strangers accepted" in said.out
    assert "reject: 0." in said.err
    assert "data:image/png" in Path("r.html").read_text()
    assert "ordinary rows: 120 rows (held-out rows)" in said.err
    with monkeypatch.context() as few:
        few.setattr(build, "_CALIBRATION_ROWS", 40)
        assert cli.main(["reject", "--strangers", "s.csv"]) == 0
        said = capsys.readouterr()
        assert "ordinary rows: 40 of 120 rows, drawn at random (held-out rows)" in said.err
        assert "strangers: 40 of 50 rows, drawn at random" in said.err
    Path("radius.yaml").write_text("model: {name: m, data: {file: rows.csv}, radius: 1.0}\nsigning: {key: s.pem}\n")
    assert cli.main(["reject", "-c", "radius.yaml"]) == 2
    assert "leave radius out" in capsys.readouterr().err
    assert cli.main(["reject", "--accept", "0.1"]) == 2
    assert "--strangers FILE" in capsys.readouterr().err
    assert cli.main(["reject", "--strangers", "s.csv", "--accept", "0"]) in (0, 2)
    assert cli.main(["reject"]) == 0
    Path("s.csv").write_text("x,y\n1,oops\n")
    assert cli.main(["reject", "--strangers", "s.csv"]) == 2
    assert "line 2" in capsys.readouterr().err


@pytest.mark.parametrize("label", ["%rare", "#1", "yes", "7", "a: b", "it's", "[x", "*", "größe", "null"])
def test_the_value_of_reject_can_be_pasted(
    label: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("x,label\n" + "".join(f"{row},{(label, 'other')[row % 2]}\n" for row in range(40)))
    head = "model:\n  name: m\n  data: {file: rows.csv, label: label}\n"
    Path("deploy.yaml").write_text(f"{head}  reject: {json.dumps({label: 0.5, 'default': 0.99})}\n")
    assert cli.main(["reject"]) == 0
    said = re.search("^reject: {.*?}", capsys.readouterr().err, re.MULTILINE)
    assert said
    Path("deploy.yaml").write_text(f"{head}  {said[0]}\n")
    assert cli.main(["reject"]) == 0
    assert said[0] in capsys.readouterr().err

"""A build reports what it measured, a gallery builds, and an imported classifier is asked itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier
from support.releases import Releases

import knnkit
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.model_info import Gates
from knnkit import cli
from knnkit.data.dataset import dataset
from knnkit.evaluation import measure
from knnkit.model import golden
from knnkit.model.build import make_reference
from knnkit.model.reference.enrolment import enrol
from knnkit.model.reference.spec import KnnSpec
from knnkit.release import keys
from knnkit.render.figures import lines_of

RANDOM = np.random.default_rng(3)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    keys.generate(tmp_path / "signing")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, people: int, photos: int, more: str = "") -> None:
    faces = RANDOM.normal(size=(people, 6))
    lines = [
        ",".join([*map(str, face + RANDOM.normal(scale=0.05, size=6)), f"p{person}"])
        for person, face in enumerate(faces)
        for _ in range(photos)
    ]
    (folder / "faces.csv").write_text("\n".join(["a,b,c,d,e,f,who", *lines, ""]))
    yaml = "model: {name: faces, data: {file: faces.csv, label: who}, k: 1}\nsigning: {key: signing.pem}\n"
    (folder / "deploy.yaml").write_text(yaml + more)


def build(capsys: pytest.CaptureFixture[str], code: int = 0) -> tuple[dict[str, Any], str]:
    capsys.readouterr()
    assert cli.main(["build", "--json"]) == code
    said = capsys.readouterr()
    return json.loads(said.out).get("releases", [{}])[0], said.err


@pytest.mark.parametrize(("people", "photos", "how"), [(20, 3, "stratified"), (101, 1, None)])
def test_a_gallery_builds_by_default(
    folder: Path, capsys: pytest.CaptureFixture[str], people: int, photos: int, how: str | None
) -> None:
    write(folder, people, photos)
    told, said = build(capsys)
    assert told["warnings"]
    if how is None:
        assert told["evaluation"] is None
        assert "nothing can be measured" in said
    else:
        assert told["evaluation"]["how"] == how
        assert told["evaluation"]["rows"] == people
        assert told["evaluation"]["balanced_accuracy"] > 0.9
        assert "95 % interval" in said
    capsys.readouterr()
    assert cli.main(["inspect", "dist"]) == 0
    assert ("balanced accuracy" in capsys.readouterr().out) == (how is not None)


def test_a_gate_on_classes_stops_the_build(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, 4, 30, "gates: {recall: {p9: 0.5}}\n")
    _, said = build(capsys, constants.EXIT_USAGE)
    assert "gates: {recall} names 'p9', which the model does not have" in said
    assert "the model has p0, p1, p2, p3" in said


def test_inspect_shows_every_gate(tmp_path: Path, releases: Releases, capsys: pytest.CaptureFixture[str]) -> None:
    asked = {"accuracy": 0.5, "latency_ms": 9.0, "balanced_accuracy": 0.51, "min_recall": 0.52, "by": 0.53}
    gates = Gates(**asked, recall={"setosa": 0.54}, not_worse_than="current")  # type: ignore[arg-type]
    assert cli.main(["inspect", str(releases.variant("iris", tmp_path / "r", gates=gates))]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("gates")]
    for value in (*asked.values(), 0.54):
        assert f" {value:g}" in line


def test_an_imported_classifier_is_asked_itself() -> None:
    """Its search tree breaks ties in another order than the reference, which takes the first row."""
    rows = RANDOM.integers(0, 3, size=(300, 3)).astype(float)
    labels = RANDOM.integers(0, 2, 300)
    estimator = KNeighborsClassifier(3, algorithm="kd_tree", leaf_size=2).fit(rows[:200], labels[:200])
    model = knnkit.from_sklearn(estimator)
    from knnkit.data.dataset import dataset
    from knnkit.evaluation.measure import compare_with_estimator

    held_out = dataset(rows[200:], labels[200:])
    reference = model._reference
    own = estimator.predict(rows[200:])
    differ = int((reference.answer(held_out.rows).label != own).sum())
    assert differ, "the case shows nothing"
    share, (said,) = compare_with_estimator(estimator, reference, model.fitted.enrolment.classes, held_out)
    assert share == pytest.approx(1.0 - differ / 100)
    assert f"answers {differ} of 100 test rows differently ({differ} where neighbours or votes tie)" in said
    assert f"its accuracy is {np.mean(own == labels[200:]) * 100:.2f} %" in said
    clear = KNeighborsClassifier(3).fit(rows[:200] + RANDOM.normal(size=(200, 3)), labels[:200])
    plain = knnkit.from_sklearn(clear)
    assert compare_with_estimator(clear, plain._reference, plain.fitted.enrolment.classes, held_out) == (1.0, ())


@pytest.mark.parametrize(("rare", "limit"), [(11, 1000), (40, 1000), (1, 50)])
def test_golden_rows_hold_each_class(rare: int, limit: int) -> None:
    labels = np.array(["fall"] * rare + ["walk"] * 5000)[RANDOM.permutation(rare + 5000)]
    rows = dataset(np.zeros((len(labels), 1), np.float32), labels)
    chosen = golden.draw_rows(None, rows, limit=limit).places
    assert chosen is not None
    assert len(set(chosen.tolist())) == limit
    assert int((labels[chosen] == "fall").sum()) >= min(rare, 30, limit // 2)
    assert np.array_equal(golden.draw_rows(None, rows, limit=10_000).labels, labels)


def test_a_notebook_sees_the_figures(tmp_path: Path) -> None:
    pair = keys.generate(tmp_path / "signing")
    rows, labels = RANDOM.normal(size=(60, 2)), np.arange(60) % 2
    rows[labels == 1] += 4.0
    model = knnkit.TfKNN(rows[:40], 3, labels=labels[:40])
    built = model.build_release(tmp_path / "r", signing_key=pair.private, test=(rows[40:], labels[40:]))
    assert built.figures is not None
    assert built.figures.rows == 20
    assert built.figures.accuracy == built.accuracy
    assert lines_of(built.info)[0].startswith("accuracy ")
    held = Golden.from_bytes((tmp_path / "r" / constants.GOLDEN_FILE).read_bytes())
    assert len(held.rows) == 20


@pytest.mark.parametrize("data", ["label: who", "target: [e, f], drop: [who]"])
def test_more_rows_than_the_reference_can_answer_in_time_are_drawn_from(
    data: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "_WORK", 1)
    monkeypatch.setattr(measure, "_LEAST", 20)
    write(folder, people=10, photos=10)
    file = folder / "deploy.yaml"
    file.write_text(file.read_text().replace("label: who", data))
    document, err = build(capsys)
    if data == "label: who":
        assert document["accuracy_rows"] == 20
        assert document["evaluation"]["of"] == 30
    assert "on 20 of 30 held-out rows, drawn at random" in err
    for command in (["inspect", "dist"], ["card", "dist"]):
        assert cli.main(command) == 0
        assert "20 of 30 held-out rows, drawn at random" in capsys.readouterr().out


def test_a_large_gallery_is_drawn_from_in_every_class(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_MOST_LEFT_OUT", 60)
    rows = RANDOM.normal(size=(200, 3))
    training = dataset(rows, np.arange(200) // 10)
    reference = make_reference(KnnSpec("m", 1), enrol(training, (), "euclidean"))
    found = measure.measure(reference, tuple(range(20)), None, "leave-one-out")
    assert found is not None
    assert (found.rows, found.of) == (60, 200)
    assert sum(map(bool, found.support)) > 10, "and not the first rows of the file"

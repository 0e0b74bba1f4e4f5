"""`knnkit build`: what it writes, when it builds again, and that a failed build leaves what was there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.device_process import ROOT

from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.model_info import KnnInfo
from knnkit import cli
from knnkit.commands import _output, deploy
from knnkit.config import load, parse
from knnkit.data.dataset import load_sklearn
from knnkit.model import build as model_build
from knnkit.model.golden import long_check
from knnkit.model.reference.spec import KnnSpec
from knnkit.release import build as release_build
from knnkit.release import keys, up_to_date
from knnkit.release.replacing import replacing

CSV = "a,b,y\n" + "".join(f"{i % 7},{i % 5 + (i % 2) * 9},{'odd' if i % 2 else 'even'}\n" for i in range(60))
YAML = """
model: {name: parity, data: {file: train.csv, label: y}, k: 3, scale: standard}
signing: {key: signing.pem}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    keys.generate(tmp_path / "signing")
    (tmp_path / "train.csv").write_text(CSV)
    (tmp_path / "deploy.yaml").write_text(YAML)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def build(*arguments: str) -> int:
    return cli.main(["build", *arguments])


def sequence(folder: Path) -> int:
    found: int = json.loads((folder / "dist" / constants.MANIFEST_FILE).read_text())["sequence"]
    return found


def test_a_test_file_means_the_same_under_both_keys(folder: Path) -> None:
    (folder / "test.csv").write_text(CSV)
    texts = [YAML.replace("k: 3", f"k: 3, {key}: {{file: test.csv, label: y}}") for key in ("test", "split")]
    builds = [parse.parse(text, base=folder).builds()[0] for text in texts]
    assert len({up_to_date.digest(each) for each in builds}) == 1
    assert up_to_date.settings(builds[1])["test"] == {"file": "test.csv", "label": "y", "target": []}


def test_a_release_is_four_files_that_verify(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build("--json") == 0
    told = json.loads(capsys.readouterr().out)["releases"][0]
    dist = folder / "dist"
    assert sorted(path.name for path in dist.iterdir()) == sorted(constants.RELEASE_FILES)
    assert told["fresh"] is True
    assert told["accuracy"] == 1.0
    assert told["accuracy_rows"] == 18
    assert told["manifest"]["name"] == "parity"
    assert len(Golden.from_bytes((dist / constants.GOLDEN_FILE).read_bytes()).rows) == 18
    assert cli.main(["verify", str(dist), "--key", str(folder / "signing.pub")]) == 0
    capsys.readouterr()
    assert cli.main(["inspect", str(dist), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["model"]["classes"] == ["even", "odd"]
    assert shown["release"]["sequence"] == told["manifest"]["sequence"]


def test_a_build_frees_the_raw_rows_before_it_makes_the_graph(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw: list[weakref.ref[Any]] = []
    left: list[Any] = []
    load_rows, make = release_build.source.load, model_build.make_module

    def loaded(asked: parse.Build) -> release_build.Material:
        material = load_rows(asked)
        raw.append(weakref.ref(material.training.rows))
        return material

    def made(*given: Any) -> Any:
        left.append(raw[0]())
        return make(*given)

    monkeypatch.setattr(release_build.source, "load", loaded)
    monkeypatch.setattr(model_build, "make_module", made)
    assert build() == 0
    assert (left == [None]) == (sys.version_info >= (3, 11))  # 3.10 keeps the arguments of a call until it returns


@pytest.mark.parametrize("tested", [True, False])
def test_the_cells_of_a_table_are_freed_with_the_rows(tested: bool) -> None:
    rows = load_sklearn("iris")
    held_out = rows if tested else None
    freed = release_build.Material(KnnSpec("m"), replace(rows, raw=rows), held_out).enrolled(golden_rows=9)
    assert freed.drawn is not None
    assert (freed.drawn.raw is None) == tested
    assert np.isfinite(freed.drawn.rows).sum() == 9 * 4
    assert freed.training.raw is None
    assert np.isnan(freed.training.rows).all()
    assert freed.enrolment is not None
    assert len(freed.enrolment) == len(rows.rows)


def test_what_did_not_change_is_not_built_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    assert build() == 0
    before = {path.name: path.read_bytes() for path in (folder / "dist").iterdir()}
    assert build() == 0
    assert {path.name: path.read_bytes() for path in (folder / "dist").iterdir()} == before
    (folder / "train.csv").write_text(CSV + "1,9,odd\n")
    assert build() == 0
    assert sequence(folder) == 1800000001  # grows, though the clock stands still
    (folder / "deploy.yaml").write_text(YAML + "gates: {accuracy: 0.5}\n")
    assert build() == 0
    assert sequence(folder) == 1800000002


@pytest.mark.parametrize("wrong", ["abc", "-1", "1.5", "1_000", " 12", "\u0661", "1800000000000"])
def test_a_time_of_the_build_that_is_none_is_refused_before_anything_is_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", wrong)
    monkeypatch.setattr(release_build.Material, "build", lambda *_, **__: pytest.fail("a model is being built"))
    assert build() == 2
    said = capsys.readouterr().err
    assert f"SOURCE_DATE_EPOCH is {wrong!r}, not a number of seconds since 1970" in said
    assert "export SOURCE_DATE_EPOCH=$(date +%s)" in said
    assert not (folder / "dist").exists()


def test_a_finished_release_needs_no_tensorflow(folder: Path) -> None:
    assert build() == 0
    program = (
        "import sys; from knnkit import cli; code = cli.main(['build'])\n"
        "assert code == 0, code\n"
        "heavy = {'tensorflow', 'sklearn', 'tflite_runtime'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "is up to date" in run.stderr


def test_another_key_signs_anew(folder: Path) -> None:
    assert build() == 0
    (folder / "signing.pem").unlink()
    (folder / "signing.pub").unlink()
    keys.generate(folder / "signing")
    assert build() == 0
    assert cli.main(["verify", "dist", "--key", "signing.pub"]) == 0


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("train.csv", "a,b,y\n1,tall,odd\n", "line 2, column 'b': 'tall' is not a number"),
        ("train.csv", "a,b,z\n1,2,odd\n", "no column 'y'"),
        ("train.csv", "a,b,y\n1,2,odd\n3,4,even\n", "k is 3, but there are 2 training rows"),
        ("deploy.yaml", YAML.replace("k: 3", "k: 3, metrics: cosine"), "metric"),
        ("deploy.yaml", YAML.replace("train.csv", "trian.csv"), "no such file"),
        (
            "deploy.yaml",
            YAML.replace("k: 3", "k: 42, weights: uniform") + "gates: {accuracy: 0.99}\n",
            "deploy.yaml:4: the model misses its own gates: accuracy|loosen this gate",
        ),
    ],
)
def test_a_failed_build_leaves_the_release_that_was_there(
    name: str, text: str, said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build() == 0
    before = {path: path.read_bytes() for path in (folder / "dist").iterdir()}
    (folder / name).write_text(text)
    names = sorted(path.name for path in folder.iterdir())
    capsys.readouterr()
    assert build() == constants.EXIT_USAGE
    shown = capsys.readouterr().err
    assert all(part in shown for part in said.split("|")), shown
    assert {path: path.read_bytes() for path in (folder / "dist").iterdir()} == before
    assert sorted(path.name for path in folder.iterdir()) == names


@pytest.mark.parametrize("failing", [1, 2])
def test_a_rename_that_fails_leaves_the_release_that_was_there(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "dist"
    directory.mkdir()
    (directory / constants.MODEL_FILE).write_text("before")
    rename, calls = os.rename, iter(range(1, 9))

    def fail(source: Path, target: Path) -> None:
        if next(calls) == failing:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(KeyboardInterrupt), replacing(directory) as folder:
        (folder / constants.MODEL_FILE).write_text("after")
    assert (directory / constants.MODEL_FILE).read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["dist"]


def test_a_test_file_of_numbers_alone_has_the_labels_of_a_training_file_with_letters(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "train.csv").write_text(CSV.replace("odd", "1").replace("even", "x"))
    odd = [line.replace("odd", "1") for line in CSV.split() if line.endswith("odd")]
    (folder / "test.csv").write_text("\n".join(["a,b,y", *odd]) + "\n")
    (folder / "deploy.yaml").write_text(YAML.replace("k: 3", "test: {file: test.csv, label: y}, k: 3"))
    assert build("--json") == 0
    assert json.loads(capsys.readouterr().out)["releases"][0]["accuracy"] == 1.0


def test_a_model_that_has_learnt_nothing_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = ["often" if i % 4 else "rare" for i in range(60)]
    rows = [f"{i * 37 % 60},{i * i % 11},{label}\n" for i, label in enumerate(labels)]
    (folder / "train.csv").write_text("a,b,y\n" + "".join(rows))
    assert build("--json") == 0
    told = json.loads(capsys.readouterr().out)["releases"][0]
    assert told["accuracy"] < 0.7
    assert "is lower than that of the constant answer 'often'" in told["warnings"][-1]


def test_no_release_is_written_inside_of_another(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With `models`, each has a folder in the one that a single model was written to before."""
    (folder / "dist").mkdir()
    for name in constants.RELEASE_FILES:
        (folder / "dist" / name).touch()
    assert build("-o", "dist/parity") == constants.EXIT_USAGE
    assert f"{folder / 'dist'} is itself a release" in capsys.readouterr().err
    assert sorted(path.name for path in (folder / "dist").iterdir()) == sorted(constants.RELEASE_FILES)


def test_a_folder_that_is_no_release_is_not_replaced(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "dist").mkdir()
    (folder / "dist" / "thesis.tex").write_text("years of work")
    assert build() == constants.EXIT_USAGE
    assert "thesis.tex" in capsys.readouterr().err
    assert (folder / "dist" / "thesis.tex").read_text() == "years of work"


def test_a_terminal_shows_what_a_build_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(_output, "is_plain", lambda stream: False)
    monkeypatch.setattr(_output.Progress, "step", lambda self, *said: shown.append(": ".join(said)))
    assert build() == 0
    assert shown[0] == "parity: loading the rows"
    assert [said.split()[1] for said in shown[1:]] == ["measuring", "converting", "computing", "checking"]
    shown.clear()
    assert build() == 0
    assert shown == []


def test_a_version_that_is_built_again_from_something_else_warns(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build() == 0
    assert build("--force") == 0
    assert "was built before" not in capsys.readouterr().err
    (folder / "train.csv").write_text(CSV + "7,7,odd\n")
    assert build() == 0
    said = capsys.readouterr().err
    assert "1.0.0 was built before from other inputs" in said
    assert "knnkit: building parity (this can take a minute); a release 1.0.0 is there already: " in said
    (folder / "train.csv").write_text(CSV + "8,8,odd\n")
    deploy._ensure(load.load(folder / "deploy.yaml").builds()[0])
    assert "knnkit: warning: parity 1.0.0 was built before from other inputs" in capsys.readouterr().err
    (folder / "deploy.yaml").write_text(YAML + "release: {version: 1.1.0}\n")
    assert build() == 0
    assert "was built before" not in capsys.readouterr().err
    (folder / "deploy.yaml").write_text(YAML.replace("signing.pem", "nowhere.pem"))
    assert deploy._ensure(load.load(folder / "deploy.yaml").builds()[0]) == folder / "dist"
    assert f"its signing key, {folder}/nowhere.pem, is not here" in capsys.readouterr().err


def test_files_of_a_desktop_are_removed_and_all_others_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build() == 0
    dist = folder / "dist"
    (dist / ".DS_Store").write_text("x")
    (dist / "Thumbs.db").write_text("x")
    assert build() == 0
    assert sorted(path.name for path in dist.iterdir()) == sorted(constants.RELEASE_FILES)
    (dist / "notes.txt").write_text("x")
    (dist / "more notes").write_text("x")
    capsys.readouterr()
    assert build("--force") == constants.EXIT_USAGE
    said = capsys.readouterr().err
    assert "'more notes', 'notes.txt'" in said
    assert f"rm '{dist / 'more notes'}' {dist / 'notes.txt'}" in said


def test_a_folder_that_is_not_a_release_gets_no_word_about_deleting(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "dist").mkdir()
    (folder / "dist" / "thesis.doc").write_text("x")
    (folder / "dist" / ".DS_Store").write_text("x")
    assert build() == constants.EXIT_USAGE
    said = capsys.readouterr().err
    assert "thesis.doc" in said
    assert "rm " not in said
    assert (folder / "dist" / ".DS_Store").exists()


def test_golden_rows_are_as_many_as_asked_for(folder: Path) -> None:
    assert build() == 0
    first = (folder / "dist" / constants.GOLDEN_FILE).read_bytes()
    (folder / "deploy.yaml").write_text(YAML.replace("k: 3", "k: 3, golden: {rows: 12}"))
    assert build() == 0
    fewer = Golden.from_bytes((folder / "dist" / constants.GOLDEN_FILE).read_bytes())
    assert (len(Golden.from_bytes(first).rows), len(fewer.rows)) == (18, 12)
    assert set(fewer.truth.tolist()) == {0, 1}  # some of every class


@pytest.mark.parametrize(
    ("rows", "width", "metric", "expected"),
    [
        (150, 4, "euclidean", ""),
        (60_000, 784, "euclidean", "in about 44 s; fewer"),
        (20_000, 512, "manhattan", "in about 33 s; fewer"),
    ],
)
def test_a_long_check_is_said_at_the_build(rows: int, width: int, metric: str, expected: str) -> None:
    info = KnnInfo("m", 3, width, (), ("a",), metric, "uniform", "none", rows, 1, "", "0", {})  # type: ignore[arg-type]
    assert expected in "".join(long_check(info, 1000))
    assert bool(long_check(info, 1000)) is bool(expected)

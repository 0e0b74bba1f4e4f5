"""`knnkit diff` names the rows whose label changes, and the neighbours that decided, as the devices answer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_iris
from support.device import Device
from support.releases import Releases

from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants
from device_agent.shared.release import row_origins
from knnkit import cli
from knnkit.commands import diff
from knnkit.evaluation import flips
from knnkit.model.stored import read_model

PAIRS = [("iris", "iris-forgets"), ("iris-forgets", "iris-next"), ("iris", "iris")]


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_evaluation_rows_that_flip_are_named_with_their_neighbours(
    releases: Releases, capsys: pytest.CaptureFixture[str], old: str, new: str
) -> None:
    assert cli.main(["diff", str(releases[old]), str(releases[new]), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    before, after = (Golden.from_bytes((releases[name] / constants.GOLDEN_FILE).read_bytes()) for name in (old, new))
    training, golden = row_origins.read(releases[new] / constants.MODEL_FILE)
    flipped = [row for row in range(len(after.rows)) if before.label[row] != after.label[row]]
    assert [each["row"] for each in told["flips"]] == [golden.row(row) for row in flipped]
    assert (told["rows"], told["known"]) == (len(after.rows), len(after.rows))
    assert told["right_after"] == int((after.label == after.truth).sum())
    assert told["right_before"] == int((before.label == before.truth).sum())
    for each, row in zip(told["flips"], flipped):
        voters = [near["row"] for near in each["neighbours_after"]]
        assert voters == [training.row(index) for index in after.indices[row, : len(voters)].tolist()]
        assert each["source"] == "scikit-learn iris"
        assert each["before"] != each["after"]
    assert sum(kind["rows"] for kind in told["kinds"]) == len(flipped)


@pytest.mark.parametrize(("old", "new"), PAIRS[:2])
def test_rows_of_ones_own_flip_as_on_devices(
    releases: Releases, tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str
) -> None:
    found = load_iris()
    names = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
    lines = [",".join(map(str, row)) + f",{found.target_names[kind]}" for row, kind in zip(found.data, found.target)]
    data = tmp_path / "rows.csv"
    data.write_text("\n".join([",".join([*names, "species"]), *lines]) + "\n")
    answers = []
    for place, name in enumerate((old, new)):
        (tmp_path / str(place)).mkdir()
        device = Device(tmp_path / str(place) / "root", releases)
        device.install(releases[name])
        answers.append(device.run("classify", "--ignore-extra", "--input", data).out.splitlines()[1:])
    words = ["diff", str(releases[old]), str(releases[new]), "--data", str(data), "--label", "species"]
    assert cli.main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    want = [(row, *pair) for row, pair in enumerate(zip(*answers)) if pair[0] != pair[1]]
    assert want
    assert [(each["row"], each["before"], each["after"]) for each in told["flips"]] == want
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert f"{len(want)} of 150 labels change; accuracy " in said
    assert f"{want[0][0]} of rows.csv" in said
    assert f"{len(want) - 20} more rows: --json has all" in said


def test_rows_of_the_training_data_measure_no_accuracy(releases: Releases) -> None:
    model = read_model(releases["iris"] / constants.MODEL_FILE)
    asked = diff.evaluated(releases["iris"], model)
    found = flips.compare(model, model, [asked, replace(asked, measures=False).take(np.arange(3))])
    assert (found.rows, found.known) == (len(asked) + 3, len(asked))


def test_rows_that_only_one_release_held_out_measure_if_the_other_was_not_trained_on_them(releases: Releases) -> None:
    model, found = read_model(releases["iris"] / constants.MODEL_FILE), load_iris()
    trained = {tuple(found.data[model.training.row(index)]) for index in range(model.info.n_train)}
    truth = tuple(str(found.target_names[kind]) for kind in found.target)
    asked = flips.Asked(found.data, found.data, truth, model.golden, tuple(range(len(truth))), doubtful=True)
    new = [row for row, values in enumerate(found.data) if tuple(values) not in trained]
    compared = flips.compare(model, model, [asked])
    assert (compared.rows, compared.known) == (150, len(new))
    assert compared.right_after == flips.compare(model, model, [asked.take(np.array(new))]).right_after


def test_what_cannot_be_compared_leads_out(
    releases: Releases, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, broken = releases["iris"] / constants.MODEL_FILE, tmp_path / "broken.tflite"
    broken.write_bytes(b"TFL3" * 100)
    for words, said, hint in (
        ((releases["iris"], releases["digits"]), "have different features", "--data rows.csv"),
        ((releases["motion"], releases["motion-long"]), "have different features", "knnkit deploy --dry-run"),
        ((model, releases["iris"]), "is a model file, which has no evaluation rows", "--data rows.csv, or name the "),
        ((tmp_path / "none", releases["iris"]), "no such file", "name a release directory"),
        ((broken, releases["iris"]), "is not a knnkit model", "knnkit build"),
        (
            (model,),
            "diff compares two releases",
            f"cp -r {model} {model}.old; after it: knnkit diff {model}.old {model}",
        ),
    ):
        assert cli.main(["diff", *map(str, words)]) == constants.EXIT_USAGE
        err = capsys.readouterr().err
        assert said in err
        assert hint in err


def test_a_folder_of_releases_is_answered_with_one_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "dist"
    (folder / "small").mkdir(parents=True)
    (folder / "small" / "model.tflite").touch()
    for words in (["inspect", str(folder)], ["card", str(folder)], ["diff", str(folder), str(folder)]):
        assert cli.main(words) == 2
        assert f"try: name one of the releases in it: {folder / 'small'}" in capsys.readouterr().err


def test_no_command_adds_a_file_to_a_release(
    releases: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    release = releases.copy("iris", tmp_path / "dist")
    before = sorted(path.name for path in release.iterdir())
    monkeypatch.chdir(release)
    for words in (["card", str(release), "-o", str(release / "card.md")], ["card", ".", "-o", "card.md"]):
        assert cli.main(words) == 2
        typed = capsys.readouterr().err.rpartition("try: ")[2].split()
        assert cli.main(["card", str(release), *typed]) == 0
    assert cli.main(["status", "--target", "local", "--report", "r.json"]) == 2
    assert sorted(path.name for path in release.iterdir()) == before
    assert (tmp_path / "card.md").is_file()

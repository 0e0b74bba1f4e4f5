"""Neighbours lead back to the rows of the user's own file, on host and device, from every source."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from sklearn import datasets
from sklearn.datasets import load_iris
from support.device import Device
from support.releases import Releases

from device_agent.shared.protocol import constants
from device_agent.shared.release import model_file, row_origins
from device_agent.shared.release.row_origins import Origins
from knnkit import cli
from knnkit.model.stored import read_model
from knnkit.release import keys
from knnkit.release.evaluation_rows import read_evaluation_rows

RANDOM = np.random.default_rng(3)
COUNT = 90
FEATURES = RANDOM.normal(size=(COUNT, 2)).astype(np.float32).round(3)
LABELS = np.where(FEATURES[:, 0] + 0.3 * RANDOM.normal(size=COUNT) > 0, "fall", "walk")
IDS = np.array([f"é-{number * 7:04}" for number in range(COUNT)])


def write(folder: Path, suffix: str) -> Path:
    path = folder / f"rows.{suffix}"
    if suffix == "csv":
        lines = [f'"{i}",{x},{label},{y}' for i, label, (x, y) in zip(IDS, LABELS, FEATURES)]
        lines.insert(5, "")  # an empty line is not a row
        path.write_text("\n".join(["sample,x,kind,y", *lines]) + "\n")
    elif suffix == "parquet":
        columns = {"x": FEATURES[:, 0], "y": FEATURES[:, 1], "kind": LABELS, "sample": IDS}
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    else:
        np.savez(path, x=FEATURES[:, 0], y=FEATURES[:, 1], kind=LABELS, sample=IDS)
    return path


def build(folder: Path, data: str, more: str = "k: 3") -> Path:
    if not (folder / "keys").exists():
        (folder / "keys").mkdir()
        keys.generate(folder / "keys" / "signing")
    config = folder / "deploy.yaml"
    config.write_text(f"model: {{name: steps, data: {data}, {more}}}\nrelease: {{dir: dist}}\n")
    assert cli.main(["build", "-c", str(config)]) == 0
    return folder / "dist"


def said(*words: str | Path) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert cli.main([*map(str, words)]) == 0
    return out.getvalue()


def neighbours(folder: Path, release: Path, rows: str) -> list[list[dict[str, Any]]]:
    trusted: Any = SimpleNamespace(public_key=folder / "keys" / "signing.pub")
    device = Device(folder / "root", trusted)
    device.install(release)
    out = device.run("classify", "--neighbors", "--output-format", "jsonl", input=rows).out
    return [json.loads(line)["neighbors"] for line in out.splitlines()]


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npz"])
def test_a_neighbour_is_the_row_and_id_of_the_users_file(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path, suffix)
    release = build(tmp_path, f"{{file: {path.name}, label: kind, id: sample}}", "k: 3, split: stratified")
    assert model_file.read_info(release / constants.MODEL_FILE).feature_names == ("x", "y"), "an id is not a feature"
    asked = "".join(f"{x},{y}\n" for x, y in FEATURES.tolist())
    found = neighbours(tmp_path, release, asked)
    kept = {near["row"] for row in found for near in row}
    for number, nearest in enumerate(found):
        for near in nearest:
            row = near["row"]
            assert (near["id"], near["label"]) == (IDS[row], LABELS[row])
            assert near["distance"] == pytest.approx(float(np.linalg.norm(FEATURES[row] - FEATURES[number])), rel=1e-5)
        assert (nearest[0]["row"] == number) == (number in kept), "a training row is its own neighbour"
    near = found[0][0]
    shown = json.loads(said("inspect", release, "--row", str(near["row"]), "--json"))
    assert (shown["row"], shown["id"], shown["index"]) == (near["row"], near["id"], near["index"])
    assert (shown["source"], shown["label"]) == (path.name, near["label"])
    assert np.float32([*shown["features"].values()]).tolist() == FEATURES[near["row"]].tolist()
    assert IDS[near["row"]] in said("inspect", release / constants.MODEL_FILE, "--row", str(near["row"]))


@pytest.mark.parametrize("what", ["label: [kind, side]", "target: [x, y]", "label: kind"])
def test_a_training_row_is_shown_with_all_that_it_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    sides = np.where(FEATURES[:, 1] > 0, "left", "right")
    lines = [f"{x},{y},{x},{label},{side}" for (x, y), label, side in zip(FEATURES.tolist(), LABELS, sides)]
    (tmp_path / "rows.csv").write_text("\n".join(["x,y,z,kind,side", *lines]) + "\n")
    drop = {"label: [kind, side]": "[]", "label: kind": "[side]"}.get(what, "[kind, side]")
    release = build(tmp_path, f"{{file: rows.csv, {what}, drop: {drop}}}")
    training, golden = row_origins.read(release / constants.MODEL_FILE)
    row = training.row(0)
    assert row is not None
    shown = json.loads(said("inspect", release, "--row", str(row), "--json"))
    (x, y), text = FEATURES[row].tolist(), said("inspect", release, "--row", str(row))
    if "target" in what:
        assert shown["value"] == pytest.approx({"x": x, "y": y})
        assert shown["label"] is None
    else:
        expected = {"kind": LABELS[row], "side": sides[row]} if "[" in what else LABELS[row]
        assert shown["label"] == expected
        assert str(LABELS[row]) in text
    assert "label     value" not in text
    capsys.readouterr()
    assert cli.main(["inspect", str(release), "--row", str(golden.row(0))]) == constants.EXIT_USAGE
    told = capsys.readouterr().err
    assert "was held out" in told
    assert ("its label is" in told) == (what == "label: kind")


def test_a_held_out_row_leads_back_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release = build(tmp_path, f"{{file: {write(tmp_path, 'csv').name}, label: kind, id: sample}}")
    rows = read_evaluation_rows(release)
    training, golden = row_origins.read(release / constants.MODEL_FILE)
    assert training.places is not None
    assert golden.places is not None
    assert sorted([*training.places.tolist(), *golden.places.tolist()]) == list(range(COUNT))
    for place, truth in enumerate(rows.truth):
        assert truth == LABELS[golden.row(place)]
        assert golden.id(place) == IDS[golden.row(place)]
    assert rows.listed([0]) == f"rows.csv row {golden.row(0)} ({IDS[golden.row(0)]})"
    assert cli.main(["inspect", str(release), "--row", str(golden.row(0))]) == constants.EXIT_USAGE
    said = f"was held out: its label is {rows.truth[0]!r}, the model answers {rows.answers[0]!r}"
    assert said in capsys.readouterr().err
    assert cli.main(["inspect", str(release), "--row", str(COUNT)]) == constants.EXIT_USAGE
    assert "is not among the 63 training rows" in capsys.readouterr().err


def test_without_an_id_and_without_held_out_rows_the_row_is_enough(tmp_path: Path) -> None:
    release = build(tmp_path, "{sklearn: iris}", "k: 1, test: 0, scale: standard")
    table = load_iris().data.astype(np.float32)
    nearest = neighbours(tmp_path, release, "".join(",".join(map(str, row)) + "\n" for row in table[:20].tolist()))
    assert [row[0]["row"] for row in nearest] == list(range(20))
    assert "id" not in nearest[0][0]
    shown = json.loads(said("inspect", release, "--row", "17", "--json"))
    assert (shown["source"], shown["id"], shown["label"]) == ("scikit-learn iris", None, "setosa")
    features = model_file.read_info(release / constants.MODEL_FILE).feature_names
    np.testing.assert_allclose([shown["features"][name] for name in features], table[17], rtol=1e-6)
    assert row_origins.read(release / constants.MODEL_FILE)[0].places is None, "nothing to store"


def test_origins_take_few_bytes(tmp_path: Path) -> None:
    places = RANDOM.permutation(60_000)
    text = "".join(f"sample-{place:06}\n" for place in places).encode()
    packed = row_origins.pack(Origins("rows.csv", places, text), Origins())
    assert packed == row_origins.pack(Origins("rows.csv", places, text), Origins()), "same rows, same bytes"
    assert len(row_origins.pack(Origins("rows.csv", places), Origins())) < 60_000 * 2.1
    assert len(packed) < 60_000 * 8


@pytest.mark.parametrize("name", ["nosuch", "kind"])
def test_a_wrong_id_column_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    path = write(tmp_path, "csv")
    (tmp_path / "keys").mkdir()
    keys.generate(tmp_path / "keys" / "signing")
    config = tmp_path / "deploy.yaml"
    config.write_text(f"model: {{name: steps, data: {{file: {path.name}, label: kind, features: [x], id: {name}}}}}\n")
    code = cli.main(["build", "-c", str(config)])
    if name == "kind":  # the label may name the row as well
        assert code == 0
    else:
        assert code == constants.EXIT_USAGE
        assert "no column 'nosuch'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["iris", "wine", "digits"])
def test_a_training_row_is_shown_as_its_source_wrote_it(name: str, releases: Releases) -> None:
    """0.2, and not the 0.20000005 that remains after a scaler in float32."""
    source = set(map(tuple, getattr(datasets, f"load_{name}")().data.tolist()))
    stored = read_model(releases[name] / constants.MODEL_FILE)
    assert {stored.training_row(index) for index in range(stored.info.n_train)} <= source

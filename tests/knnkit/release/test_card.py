"""A model carries its papers: card, provenance from rows to model, and bill of materials, all under the signature."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import io
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import precision_score, recall_score
from support import model_files

import knnkit
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.model_info import Evaluation, InFloat64, LabelSets, Reduced, Targets
from device_agent.shared.protocol.record import replace
from device_agent.shared.release import model_file
from knnkit import cli
from knnkit.model.built import archive
from knnkit.provision import pinned_hashes
from knnkit.provision.requirements import on_boards
from knnkit.release import keys
from knnkit.release.card import read_card
from knnkit.render import card, html, page

RANDOM = np.random.default_rng(8)
NOTES = "for the <b>north</b> | *greenhouse*"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("carded")
    (folder / "keys").mkdir()
    keys.generate(folder / "keys" / "signing")
    kinds = ["fall"] * 30 + ["walk"] * 60 + ["Walk"] * 30
    lines = [f"{x:.3f},{kind}" for x, kind in zip(RANDOM.normal(size=120), kinds)]
    (folder / "rows.csv").write_text("\n".join(["x,kind", *lines]) + "\n")
    (folder / "deploy.yaml").write_text(
        "model:\n  name: steps\n  data: {file: rows.csv, label: kind}\n  split: stratified\n  reject: 0.95\n"
        f"  licence: CC-BY-4.0\n  notes: '{NOTES}'\ngates: {{accuracy: 0.1}}\nrelease: {{version: '2.5'}}\n"
    )
    assert cli.main(["build", "-c", str(folder / "deploy.yaml"), "-o", str(folder / "dist")]) == 0
    return folder


def said(*words: str | Path) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert cli.main([*map(str, words)]) == 0
    return out.getvalue()


def test_the_card_says_what_the_model_is_and_where_it_is_weak(folder: Path) -> None:
    shown = said("card", folder / "dist")
    golden = Golden.from_bytes((folder / "dist" / constants.GOLDEN_FILE).read_bytes())
    info = model_file.read_info(folder / "dist" / constants.MODEL_FILE)
    recall = recall_score(golden.truth, golden.label, average=None, labels=[0, 1, 2], zero_division=0)
    precision = precision_score(golden.truth, golden.label, average=None, labels=[0, 1, 2], zero_division=0)
    counts = {"Walk": 21, "fall": 21, "walk": 42}
    for code, label in enumerate(info.classes):
        rows = int((golden.truth == code).sum())
        row = (
            f"| {label} | {counts[str(label)]} | {rows} | {recall[code] * 100:.2f} % | {precision[code] * 100:.2f} % |"
        )
        assert row in shown
    for part in (
        "# steps 2.5",
        "training rows: from rows.csv",
        "split in deploy.yaml: stratified",
        "95 % interval",
        "for rows farther away than 95.00 % of ordinary rows",
        "gates: accuracy 0.1",
        "licence: CC-BY-4.0",
        "for the &lt;b>north&lt;/b> \\| \\*greenhouse\\*",
        "labels differ only in blanks or case",
        "rows were recognised",
        f"tensorflow {metadata.version('tensorflow')}",
    ):
        assert part in shown
    assert str(folder) not in shown, "no path of the machine"


def test_the_card_says_what_each_kind_of_model_answers(folder: Path) -> None:
    info = model_file.read_info(folder / "dist" / constants.MODEL_FILE)
    values, columns = Targets(("kg",), (1.0,)), Targets(("a", "b"), (1.0, 1.0), classes=((1, 2), (3, 4)))
    for targets, what in ((None, "a class"), (values, "values"), (columns, "a label of each column")):
        (shown,) = card._thresholds(replace(info, targets=targets, reject=None), None)
        assert shown == f'every row gets {what}; the model never answers "unknown"'
    (shown,) = card._thresholds(replace(info, targets=values, classes=("value",)), None)
    assert "of ordinary rows: distance " in shown, "a regression has no class called 'value'"
    (shown,) = card._thresholds(replace(info, reject=None, float64=InFloat64(radius=1.0)), None)
    assert shown == '"unknown" for rows without a training row near enough'
    measured = (Evaluation("file", 4, (3, 1), (1, 1), (1, 1)), Evaluation("file", 4, (4, 0), (4, 0), (4, 0)))
    found = read_card(folder / "dist")
    found = dataclasses.replace(found, facts=None, info=replace(info, targets=replace(columns, evaluations=measured)))
    assert list(card._weaknesses(found, None)) == [
        "a: class 1: 1 of 3 rows were recognised",
        "b: class 4 was not measured: it has no evaluation row",
    ]


def test_the_card_names_what_reduce_left_out_and_each_share_of_rows(folder: Path) -> None:
    found = read_card(folder / "dist")
    assert found.info.reject is not None
    info = replace(
        found.info,
        classes=("Walk, slow", "fall", "walk"),
        reject=replace(found.info.reject, by_class={"fall": 0.5}),
        reduced=Reduced("condensed", 400, 0.9),
        label_sets=(LabelSets(0.9, (1.0, 1.0, 1.0), 1.0, (10, 10, 10), (9, 9, 9), 1.5),),
    )
    shown = card.markdown(dataclasses.replace(found, info=info))
    assert "reduce: condensed chose 84 training rows of all 400, with which the accuracy is 90.00 %" in shown
    assert "than 95.00 % of ordinary rows, 50.00 % of fall: 'Walk, slow' " in shown
    assert "label sets with coverage 90.00 %: " in shown


def test_the_page_of_a_deploy_holds_the_card(folder: Path) -> None:
    from knnkit.render.card import section

    shown = html.render(page.Page("t", "v", "good", (), cards=(section(read_card(folder / "dist")),)))
    assert "Model card: steps 2.5" in shown
    assert "licence: CC-BY-4.0" in shown
    assert "<b>north</b>" not in shown


def test_provenance_leads_from_the_rows_to_the_model(folder: Path) -> None:
    told: dict[str, Any] = json.loads(said("card", folder / "dist", "--provenance"))
    assert told["_type"] == "https://in-toto.io/Statement/v1"
    assert told["predicateType"] == "https://slsa.dev/provenance/v1"
    model = (folder / "dist" / constants.MODEL_FILE).read_bytes()
    subjects = {each["digest"]["sha256"]: each["name"] for each in told["subject"]}
    golden = hashlib.sha256((folder / "dist" / constants.GOLDEN_FILE).read_bytes()).hexdigest()
    graph = hashlib.sha256(model[: model.index(b"PK\x03\x04")]).hexdigest()
    assert subjects == {golden: "golden.npz", graph: "model.tflite without associated files"}
    built = told["predicate"]["buildDefinition"]
    named = {each["name"]: each["digest"]["sha256"] for each in built["resolvedDependencies"] if "name" in each}
    assert named["rows.csv"] == hashlib.sha256((folder / "rows.csv").read_bytes()).hexdigest()
    info = model_file.read_info(folder / "dist" / constants.MODEL_FILE)
    assert named["training rows and labels"] == info.fingerprint
    assert built["externalParameters"]["command"] == "knnkit build"
    assert built["externalParameters"]["settings"]["data"]["file"] == "rows.csv"
    assert str(folder) not in json.dumps(told)


def test_provenance_names_each_of_several_files(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "rows.csv").read_text().splitlines()
    for name, own in (("a.csv", lines[1::2]), ("b.csv", lines[2::2])):
        (tmp_path / name).write_text("\n".join([lines[0], *own]) + "\n")
    keys.generate(tmp_path / "signing")
    (tmp_path / "deploy.yaml").write_text(
        "model: {name: steps, data: {files: [a.csv, b.csv], label: kind}}\nsigning: {key: signing.pem}\n"
    )
    assert cli.main(["build", "-c", str(tmp_path / "deploy.yaml"), "-o", str(tmp_path / "dist")]) == 0
    text = said("card", tmp_path / "dist", "--provenance")
    found = json.loads(text)["predicate"]["buildDefinition"]["resolvedDependencies"]
    named = {each["name"]: each["digest"]["sha256"] for each in found if "name" in each}
    for name in ("a.csv", "b.csv"):
        assert named[name] == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    assert str(tmp_path) not in text


def test_the_bill_of_materials_is_cyclonedx_and_complete(folder: Path) -> None:
    text = said("card", folder / "dist", "--sbom")
    told = json.loads(text)
    parts = {(each["name"], each["version"], each["properties"][0]["value"]): each for each in told["components"]}
    for name in ("numpy", "scikit-learn", "tensorflow", "cryptography", "flatbuffers"):
        assert (name, metadata.version(name), "host build") in parts
    for pinned in on_boards():
        assert (*pinned.split("=="), "board") in parts
    sums = {
        entry["name"].removeprefix("knnkit:sha256:"): entry["value"]
        for each in told["components"]
        for entry in each["properties"][1:]
    }
    assert sums
    assert all(pinned_hashes.known()[name] == value for name, value in sums.items())
    assert sum("tflite_runtime" in name or "tflite-runtime" in name for name in sums) >= 3
    assert len({each["bom-ref"] for each in told["components"]}) == len(told["components"])


def test_the_official_schema_accepts_the_bill_of_materials(folder: Path) -> None:
    validation = pytest.importorskip("cyclonedx.validation.json", reason="pip install '.[test]' brings the oracle")
    from cyclonedx.schema import SchemaVersion

    text = said("card", folder / "dist", "--sbom")
    assert validation.JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_papers_do_not_depend_on_the_folder_or_the_time(folder: Path, tmp_path: Path) -> None:
    for name in ("rows.csv", "deploy.yaml"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "keys").mkdir()
    keys.generate(tmp_path / "keys" / "signing")
    assert cli.main(["build", "-c", str(tmp_path / "deploy.yaml"), "-o", str(tmp_path / "dist")]) == 0
    one, other = ((each / "dist" / constants.MODEL_FILE).read_bytes() for each in (folder, tmp_path))
    assert one.endswith(other[-22:])
    assert said("card", folder / "dist", "--provenance") == said("card", tmp_path / "dist", "--provenance")
    assert said("card", folder / "dist") == said("card", tmp_path / "dist")


def test_a_model_alone_and_a_notebook_have_a_card_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = keys.generate(tmp_path / "signing")
    rows = RANDOM.normal(size=(40, 2)).astype(np.float32)
    model = knnkit.TfKNN(rows, labels=(rows[:, 0] > 0).astype(int))
    model.build_release(tmp_path / "dist", signing_key=pair.private)
    assert "nothing was measured" in said("card", tmp_path / "dist")
    assert '"knnkit.TfKNN.build_release"' in said("card", tmp_path / "dist", "--provenance")
    alone = model.export(tmp_path / "alone.tflite")
    assert "# model\n" in said("card", alone)
    assert cli.main(["card", str(alone), "--provenance"]) == constants.EXIT_USAGE
    assert "knnkit build" in capsys.readouterr().err
    said("card", alone, "-o", tmp_path / "card.md")
    assert (tmp_path / "card.md").read_text().startswith("# model\n")
    assert cli.main(["card", str(alone), "-o", str(tmp_path / "none" / "card.md")]) == constants.EXIT_USAGE


def test_a_document_that_could_steer_the_terminal_is_not_printed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = model_files.split((folder / "dist" / constants.MODEL_FILE).read_bytes())[0]
    model = tmp_path / "model.tflite"
    model.write_bytes(graph + archive({constants.PROVENANCE_FILE: b'{"a":"\x1b]0;owned\x07\xff"}'}))
    assert cli.main(["card", str(model), "--provenance"]) == constants.EXIT_USAGE
    told = capsys.readouterr()
    assert "\x1b" not in told.out + told.err
    assert "control characters" in told.err
    assert cli.main(["card", str(model), "--provenance", "-o", str(tmp_path / "p.json")]) == 0


@pytest.mark.parametrize("what", ["damaged", "too large"])
def test_a_damaged_or_huge_bill_of_materials_is_named(
    what: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = bytearray(gzip.compress(b"x" * (17 << 20) if what == "too large" else b'{"a": 1}' * 50))
    if what == "damaged":
        packed[15:20] = b"\xff" * 5
    model = tmp_path / "model.tflite"
    graph = model_files.split((folder / "dist" / constants.MODEL_FILE).read_bytes())[0]
    model.write_bytes(graph + archive({constants.SBOM_FILE: bytes(packed)}))
    assert cli.main(["card", str(model), "--sbom"]) == constants.EXIT_USAGE
    assert ("is damaged" if what == "damaged" else "has more than 16,777,216 bytes") in capsys.readouterr().err

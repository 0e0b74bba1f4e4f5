"""Rows with missing cells and text, through a pipeline of scikit-learn, on a device: its labels and probabilities."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from support import penguins
from support.device import Device
from support.releases import Releases
from support.runtimes import RUNTIMES

from device_agent.shared.protocol import constants
from device_agent.shared.release.model_file import read_info

ROWS, SPECIES = penguins.birds(120, seed=2)
LABELS, SHARES = penguins.ask(ROWS)
CLASSES = sorted(penguins.SPECIES)


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory, releases: Releases) -> Device:
    made = Device(tmp_path_factory.mktemp("penguins") / "root", releases)
    made.install(releases["penguins"])
    return made


def lines(rows: np.ndarray) -> str:
    plain = [[None if cell != cell else cell for cell in row] for row in rows.tolist()]
    return "".join(json.dumps(dict(zip(penguins.COLUMNS, row))) + "\n" for row in plain)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_pipeline_answers_as_in_scikit_learn(device: Device, runtime: str) -> None:
    said = device.run("classify", "--format", "jsonl", "--proba", "--runtime", runtime, input=lines(ROWS))
    answers = [json.loads(line) for line in said.out.splitlines()]
    assert [answer["label"] for answer in answers] == LABELS.tolist()
    shares = np.array([[answer["probabilities"][name] for name in CLASSES] for answer in answers])
    assert np.abs(shares - SHARES).max() <= 1e-5
    proof = device.ask("check", "--runtime", runtime)
    assert (proof["identical"], proof["different"]) == (120, 0)
    assert proof["accuracy"] == np.mean(LABELS == SPECIES)


def test_csv_and_a_stream_give_the_same_labels(device: Device) -> None:
    text = io.StringIO()
    plain = [["" if cell != cell else cell for cell in row] for row in ROWS.tolist()]
    csv.writer(text, lineterminator="\n").writerows([penguins.COLUMNS, *plain])
    assert device.run("classify", input=text.getvalue()).out.splitlines()[1:] == LABELS.tolist()
    strange = lines(ROWS[:2]).splitlines()
    strange[0] = json.dumps(json.loads(strange[0]) | {"island": "Hawaii", "year": "long ago", "body_mass_g": "heavy"})
    strange[1] = json.dumps(json.loads(strange[1]) | {"island": "Hawaii", "year": None})
    said = device.run("classify", "--stream", input="\n".join([*strange, ""]))
    found = [json.loads(line) for line in said.out.splitlines()]
    assert "('body_mass_g')" in found[0]["error"]
    assert found[1]["label"] in CLASSES
    assert "'island' has the unknown category 'Hawaii': ignored" in said.err
    assert device.ask("status")["cells"]["unknown"] == {"island": 1}


def test_the_table_is_that_of_the_pipeline(releases: Releases) -> None:
    info = read_info(releases["penguins"] / constants.MODEL_FILE)
    assert info.table is not None
    assert info.columns == tuple(penguins.COLUMNS)
    kinds = {column.name: (column.encoding, column.missing, column.unknown) for column in info.table.columns}
    assert kinds["bill_length_mm"] == ("number", "keep", None)
    assert kinds["sex"] == ("ordinal", "keep", "ignore")
    assert kinds["year"][0] == "unused"
    assert (info.n_features, len(info.feature_names)) == (9, 9)

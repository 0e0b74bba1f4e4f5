"""WiFi positioning on a device: scikit-learn's positions in each format, and their error in the certificate."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsRegressor
from support import wifi
from support.device import Device
from support.releases import Releases
from support.runtimes import RUNTIMES

from device_agent.shared.protocol import constants
from device_agent.shared.release.model_file import read_info

ROWS, PLACES = wifi.fingerprints(400, seed=2)
ASKED, TRUTH = wifi.fingerprints(80, seed=3)
POSITIONS = (
    KNeighborsRegressor(5, weights="distance")
    .fit(np.nan_to_num(ROWS, nan=wifi.NOTHING), PLACES)
    .predict(np.nan_to_num(ASKED, nan=wifi.NOTHING))
)


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory, releases: Releases) -> Device:
    made = Device(tmp_path_factory.mktemp("wifi") / "root", releases)
    made.install(releases["wifi"])
    return made


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("asked") / "asked.csv"
    wifi.write(path, ASKED, TRUTH)
    return path


def test_csv_has_the_positions_of_scikit_learn(device: Device, asked: Path) -> None:
    said = device.run("classify", "--input", asked, "--ignore-extra", "--keep", "north", "--neighbors")
    found = list(csv.DictReader(io.StringIO(said.out)))
    assert list(found[0])[:5] == ["north", "value_east", "value_north", "neighbor_1", "distance_1"]
    assert not [name for name in found[0] if name.startswith(("label", "class"))]
    values = np.array([[float(row["value_east"]), float(row["value_north"])] for row in found])
    assert np.abs(values - POSITIONS).max() <= 1e-6 * 100
    assert len(said.err.splitlines()) <= 11, "200 columns with missing cells are not 200 lines"


def test_a_stream_and_npy_have_the_same_positions(device: Device, asked: Path, tmp_path: Path) -> None:
    options = ("classify", "--ignore-extra", "--output-format")
    said = device.run(*options, "jsonl", "--stream", input=asked.read_bytes())
    answers = [json.loads(line) for line in said.out.splitlines()]
    assert {tuple(answer) for answer in answers} == {("value", "missing")}
    values = np.array([[answer["value"]["east"], answer["value"]["north"]] for answer in answers])
    assert np.abs(values - POSITIONS).max() <= 1e-6 * 100
    device.run(*options, "npy", "--input", asked, "--output", tmp_path / "a.npy")
    assert np.load(tmp_path / "a.npy")["value"].tolist() == values.tolist()


def test_neighbours_have_the_targets_that_were_averaged(device: Device, asked: Path, tmp_path: Path) -> None:
    ask = ("classify", "--input", asked, "--ignore-extra", "--neighbors", "--output-format")
    answers = [json.loads(line) for line in device.run(*ask, "jsonl").out.splitlines()]
    near = [answer["neighbors"] for answer in answers]
    rows = np.array([[each["row"] for each in row] for row in near])
    found = np.array([[[each["target"]["east"], each["target"]["north"]] for each in row] for row in near])
    assert found.tolist() == PLACES[rows].tolist()
    weights = np.array([[1.0 / each["distance"] for each in row] for row in near])[:, :, None]
    values = np.array([[answer["value"]["east"], answer["value"]["north"]] for answer in answers])
    assert np.abs((weights * found).sum(axis=1) / weights.sum(axis=1) - values).max() <= 1e-3
    lines = list(csv.DictReader(io.StringIO(device.run(*ask, "csv").out)))
    assert [[line["target_east_1"], line["target_north_5"]] for line in lines] == [
        [str(row[0, 0]), str(row[4, 1])] for row in found
    ]
    device.run(*ask, "npy", "--output", tmp_path / "a.npy")
    assert np.load(tmp_path / "a.npy")["targets"].tolist() == found.tolist()


def test_a_regression_has_no_probabilities(device: Device, asked: Path) -> None:
    said = device.run("classify", "--input", asked, "--ignore-extra", "--proba")
    assert (said.code, "--proba: the model answers values" in said.err) == (2, True)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_certificate_has_the_error_of_each_target(device: Device, releases: Releases, runtime: str) -> None:
    proof = device.ask("check", "--runtime", runtime)
    assert (proof["identical"], proof["different"], proof["accuracy"]) == (80, 0, None)
    built = read_info(releases["wifi"] / constants.MODEL_FILE).targets
    assert built is not None
    assert built.how == "file"
    for place, (found, expected) in enumerate(zip(proof["errors"], built.errors)):
        off = POSITIONS[:, place] - TRUTH[:, place]
        assert (found["target"], found["rows"]) == (["east", "north"][place], 80)
        for value in (found["rmse"], expected.rmse):
            assert value == pytest.approx(np.sqrt(np.mean(off**2)), rel=1e-6)
        assert found["max_error"] == pytest.approx(np.abs(off).max(), rel=1e-6)
        assert found["mean_error"] == pytest.approx(np.abs(off).mean(), rel=1e-6)

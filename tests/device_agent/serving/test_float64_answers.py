"""A device answers what no graph computes: places within a radius, and outlier factors, with every runtime."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import pairwise_distances
from support import places
from support.device import Device
from support.releases import Releases
from support.runtimes import RUNTIMES

ROWS, REGIONS = places.places(300, seed=1)
ASKED, _ = places.places(60, seed=2)
FAR = [0.2, 1.5]


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory, releases: Releases) -> Device:
    made = Device(tmp_path_factory.mktemp("places") / "root", releases)
    made.install(releases["places"])
    return made


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory, releases: Releases) -> Device:
    made = Device(tmp_path_factory.mktemp("strange") / "root", releases)
    made.install(releases["strange"])
    return made


def test_all_rows_within_the_radius_vote(device: Device, tmp_path: Path) -> None:
    far = pairwise_distances(ASKED, ROWS, metric="haversine")
    weight = np.where(far <= places.RADIUS, np.exp(-0.5 * (far / places.BANDWIDTH) ** 2), 0.0)
    regions = ["east", "middle", "west"]
    shares = np.stack([weight[:, region == REGIONS].sum(axis=1) for region in regions], axis=1)
    total = shares.sum(axis=1, keepdims=True)
    shares /= np.where(total > 0.0, total, 1.0)
    labels = np.where(total[:, 0] > 0.0, np.array(regions)[shares.argmax(axis=1)], "unknown")
    lines = "".join(f"{north},{east}\n" for north, east in [*ASKED.tolist(), FAR])
    (tmp_path / "a.csv").write_text("latitude,longitude\n" + lines)
    said = device.run("classify", "--input", tmp_path / "a.csv", "--proba", "--neighbors")
    found = list(csv.DictReader(io.StringIO(said.out)))
    assert [row["label"] for row in found] == [*labels, "unknown"]
    for place, region in enumerate(regions):
        column = [float(row[next(name for name in row if region in name)]) for row in found[:-1]]
        assert np.abs(column - shares[:, place]).max() < 1e-5
    nearest = np.argsort(far, axis=1, kind="stable")[:, 0]
    assert [int(row["neighbor_1"]) for row in found[:-1]] == nearest.tolist()
    assert float(found[-1]["distance_1"]) == pytest.approx(
        pairwise_distances([FAR], ROWS, metric="haversine").min(), rel=1e-6
    )
    device.run("classify", "--input", tmp_path / "a.csv", "--output-format", "npy", "--output", tmp_path / "a.npy")
    assert np.load(tmp_path / "a.npy").tolist() == [row["label"] for row in found]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_certificate_holds_with_every_runtime(device: Device, strange: Device, runtime: str) -> None:
    proof = device.ask("check", "--runtime", runtime)
    assert (proof["identical"], proof["different"], proof["accuracy"] > 0.9) == (60, 0, True)
    proof = strange.ask("check", "--runtime", runtime)
    assert (proof["identical"], proof["different"], proof["accuracy"]) == (300, 0, None)


def test_a_stream_has_the_factor_and_says_what_an_outlier_is(strange: Device) -> None:
    rows = np.concatenate([ASKED, [FAR]])
    lines = "".join(f"{json.dumps(row)}\n" for row in rows.tolist()).encode()
    said = strange.run("classify", "--stream", "--output-format", "jsonl", "--format", "jsonl", input=lines)
    found = np.array([list(json.loads(line)["value"].values()) for line in said.out.splitlines()])
    fitted = places.outliers()
    rounded = rows.astype(np.float32).astype(np.float64)
    assert np.allclose(found[:, 0], -fitted.score_samples(rounded), rtol=1e-5)
    assert np.array_equal(found[:, 1] == 1.0, fitted.predict(rounded) == -1)
    assert found[-1, 1] == 1.0
    assert list(json.loads(said.out.splitlines()[0])["value"]) == ["outlier_factor", "is_outlier"]
    near = strange.run("classify", "--neighbors", "--format", "jsonl", input=lines).out.splitlines()[0]
    assert list(json.loads(near)["neighbors"][0]) == ["index", "distance", "row"], (
        "an outlier factor averages no target"
    )

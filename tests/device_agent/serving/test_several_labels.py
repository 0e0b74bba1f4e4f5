"""Several label columns on a device: labels and probabilities in each format, and the accuracy of each column."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from support.device import Device
from support.releases import Releases
from support.runtimes import RUNTIMES

from device_agent.shared.golden.error_gates import scores_of
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.model_info import Gates
from device_agent.shared.release.model_file import read_info


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory, releases: Releases) -> Device:
    made = Device(tmp_path_factory.mktemp("both") / "root", releases)
    made.install(releases["plants-both"])
    return made


@pytest.fixture(scope="module")
def golden(releases: Releases) -> Golden:
    return Golden.from_bytes((releases["plants-both"] / constants.GOLDEN_FILE).read_bytes())


def labels(golden: Golden, releases: Releases) -> list[dict[str, str]]:
    targets = read_info(releases["plants-both"] / constants.MODEL_FILE).targets
    assert targets is not None
    assert golden.values is not None
    rows = golden.values.astype(int).tolist()
    return [{name: own[code] for name, own, code in zip(targets.names, targets.classes, row)} for row in rows]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_stream_answers_each_column(device: Device, golden: Golden, releases: Releases, runtime: str) -> None:
    said = device.run("classify", "--stream", "--proba", "--runtime", runtime, input=golden.raw)
    answers = [json.loads(line) for line in said.out.splitlines()]
    assert [answer["label"] for answer in answers] == labels(golden, releases)
    for answer in answers:
        for column, shares in answer["probabilities"].items():
            assert sum(shares.values()) == pytest.approx(1.0, abs=1e-6)
            assert max(shares.values()) == shares[answer["label"][column]]
    gaps = [line.count("null") for line in golden.raw.decode().splitlines()]
    assert [answer.get("missing", 0) for answer in answers] == gaps
    assert max(gaps) > 0


def test_csv_and_npy_have_a_column_for_each(device: Device, golden: Golden, releases: Releases, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(golden.raw)
    ask = ("classify", "--input", tmp_path / "rows.jsonl", "--proba", "--neighbors", "--output-format")
    npy = device.run(*ask, "npy", "--output", tmp_path / "a.npy")
    assert npy.code == 0, npy.err
    found, expected = np.load(tmp_path / "a.npy"), labels(golden, releases)
    assert [{"kind": kind, "size": size} for kind, size in found[["label_kind", "label_size"]].tolist()] == expected
    text = io.StringIO(",".join(f"c{place}" for place in range(40)) + "\n" + device.run(*ask, "csv").out)
    rows = list(csv.reader(text))[1:]
    assert [{"kind": row[0], "size": row[1]} for row in rows] == expected
    assert np.array([row[2:7] for row in rows], np.float32).tolist() == found["probabilities"].tolist()
    near = [json.loads(line)["neighbors"] for line in device.run(*ask, "jsonl").out.splitlines()]
    for column in ("kind", "size"):
        assert found[f"classes_{column}"].tolist() == [[each["label"][column] for each in row] for row in near]
    assert [row[9:11] for row in rows] == [[row[0]["label"]["kind"], row[0]["label"]["size"]] for row in near]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_certificate_has_the_accuracy_of_each_column(
    device: Device, golden: Golden, releases: Releases, runtime: str
) -> None:
    proof = device.ask("check", "--runtime", runtime)
    assert (proof["identical"] + proof["equivalent"], proof["different"]) == (len(golden.rows), 0)
    assert (proof["accuracy"], proof["errors"]) == (None, [])
    assert golden.targets is not None
    right = (golden.targets == golden.values).sum(axis=0).tolist()
    expected = [{"column": name, "rows": 90, "right": count} for name, count in zip(("kind", "size"), right)]
    assert proof["columns"] == expected
    built = read_info(releases["plants-both"] / constants.MODEL_FILE).targets
    assert built is not None
    assert [each.right for each in scores_of(built)] == right


def test_a_column_below_its_gate_keeps_a_release_off_the_device(tmp_path: Path, releases: Releases) -> None:
    gates = Gates(column_accuracy={"size": 0.999, "colour": 0.1})
    strict = releases.variant("plants-both", tmp_path / "r", gates=gates)
    own = Device(tmp_path / "root", releases)
    said = own.run("install", strict)
    assert said.code == 4
    assert "accuracy of 'colour': the model has no such label column" in said.err
    assert "accuracy of 'size'" in said.err

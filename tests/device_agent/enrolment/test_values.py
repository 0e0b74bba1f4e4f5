"""Values taught to a regression: answered as by one regressor over both sets of rows, and proven to the host."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsRegressor
from support import wifi
from support.device import Device
from support.releases import Releases

from device_agent.serving import teach
from device_agent.shared.protocol import json_codec
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.model_info import Enrol, KnnInfo
from device_agent.shared.protocol.record import replace
from device_agent.shared.protocol.reports import TaughtCheck
from knnkit.evaluation.taught import contradicts

ROWS, PLACES = wifi.fingerprints(400, seed=2)
ASKED, _ = wifi.fingerprints(80, seed=3)
NEW, THERE = wifi.fingerprints(4, seed=4)


@pytest.fixture(scope="module")
def taught(releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Device:
    """A device that was taught four positions, one by one."""
    folder = tmp_path_factory.mktemp("values")
    device = Device(folder / "root", releases)
    device.install(releases["wifi-taught"])
    for row, (east, north) in zip(NEW, THERE):
        wifi.write(folder / "new.csv", row[np.newaxis], THERE[:1])
        values = ("--value", f"north={north}", "--value", f"east={east}")
        said = device.run("enrol", *values, "--ignore-extra", "--input", folder / "new.csv", "--json")
        assert said.code == 0, said.err
    assert said.document["labels"] == {"values": 4}
    return device


def classify(device: Device, rows: np.ndarray, tmp_path: Path, *more: str) -> list[dict[str, Any]]:
    wifi.write(tmp_path / "asked.csv", rows, np.zeros((len(rows), 2)))
    said = device.run("classify", "--input", tmp_path / "asked.csv", "--ignore-extra", *more)
    return list(csv.DictReader(io.StringIO(said.out)))


def test_values_are_those_of_one_regressor_over_both_sets(taught: Device, tmp_path: Path) -> None:
    asked = np.concatenate([ASKED, NEW])
    rows, places = np.concatenate([ROWS, NEW]), np.concatenate([PLACES, THERE])
    plain = KNeighborsRegressor(5, weights="distance", metric="cosine").fit(np.nan_to_num(rows, nan=-105.0), places)
    expected = plain.predict(np.nan_to_num(asked, nan=-105.0))
    found = classify(taught, asked, tmp_path)
    values = np.array([[float(row["value_east"]), float(row["value_north"])] for row in found])
    assert np.abs(values[:80] - expected[:80]).max() <= 1e-5 * 100
    assert np.abs(values[80:] - THERE).max() <= 1e-9, "an exact match has the whole weight"
    assert 4 <= sum(row["local"] == "true" for row in found) < 60
    near = classify(taught, NEW, tmp_path, "--neighbors")
    assert [[float(row["target_east_1"]), float(row["target_north_1"])] for row in near] == THERE.tolist()


def test_the_host_proves_the_values(taught: Device, releases: Releases) -> None:
    said, lines = taught.ask("check"), taught.run("enrolled", "--json").out.encode()
    claim = json_codec.from_plain(TaughtCheck, said["taught"])
    assert (said["different"], said["failures"], claim.labels) == (0, [], {"values": 4})
    assert claim.changed > 0
    release = releases["wifi-taught"]
    assert contradicts(release, said["release"], lines, claim) == ""
    assert "differently" in contradicts(release, said["release"], lines, replace(claim, answers="0" * 64))
    assert "golden answers" in contradicts(release, said["release"], lines, replace(claim, changed=0))
    moved = lines.replace(b'"values":[-', b'"values":[-1', 1)
    assert contradicts(release, said["release"], moved, claim)


@pytest.mark.parametrize(
    ("values", "said", "first", "second"),
    [
        (("--value", "3"), "one value of each target: east, north", "3", "3.5"),
        (("--value", "east=1"), "one value of each target", "1", "3.5"),
        (("--value", "east=1", "--value", "east=-2"), "one value of each target", "1", "-2"),
        (("--value", "east=1", "--value", "north=inf"), "not a finite number", "1", "3.5"),
        (("--value", "east=1_000", "--value", "north=1"), "not a finite number", "3.5", "1"),
        (("--value", "east=1", "--value", "north=１"), "not a finite number", "1", "3.5"),
        (("--label", "here"), "answers values, not labels", "3.5", "3.5"),
        (("--label", "-7"), "answers values, not labels", "-7", "3.5"),
    ],
)
def test_wrong_values_are_refused_with_what_was_typed(
    values: tuple[str, ...], said: str, first: str, second: str, taught: Device, tmp_path: Path
) -> None:
    wifi.write(tmp_path / "new.csv", NEW, THERE)
    found = taught.run("enrol", *values, "--ignore-extra", "--input", tmp_path / "new.csv", "--json").document
    assert said in found["message"]
    assert found["hint"] == f"--value east={first} --value north={second}"
    rows = [json.loads(line) for line in taught.run("enrolled", "--json").out.splitlines()]
    assert [row["values"] for row in rows] == THERE.tolist()


@pytest.mark.parametrize("typed", ["-3.5", "-7", "-1e-3", "12"])
def test_the_hint_for_one_target_repeats_the_number(typed: str) -> None:
    option = f"--value={typed}" if typed.startswith("-") else f"--value {typed}"
    assert teach._value_hint(["height"], typed) == option


@pytest.mark.parametrize(
    ("typed", "sign", "value"),
    [
        ("120.000", ".", 120_000.0),
        ("1.234,5", ".", 1234.5),
        ("-12,5", ".", -12.5),
        ("3.5", ".", None),
        ("1,234.5", ",", 1234.5),
        ("1,23", ",", None),
        ("120.000", "", 120.0),
        ("120,5", "", None),
    ],
)
def test_a_value_is_read_as_the_numbers_of_the_rows_are(typed: str, sign: str, value: float | None) -> None:
    """In the rows of a model with `thousands: "."`, 120.000 is a hundred and twenty thousand."""
    assert teach._finite(typed, sign) == value
    hint = teach._value_hint(["height"], typed, sign=sign).removeprefix("--value").strip(" =")
    assert teach._finite(hint, sign) is not None, "the hint leads out"


@pytest.mark.parametrize(
    ("typed", "option"),
    [("1.0", "--label 1"), ("01", "--label 1"), ("+2", "--label 2"), ("1e0", "--label 1"), ("elm", "--label 5"),
     ("-3.0", "--label=-3"), ("2.5", "--label 5")],
)  # fmt: skip
def test_the_hint_for_a_label_names_the_number_that_was_meant(typed: str, option: str) -> None:
    info = KnnInfo(
        name="n", k=1, n_features=1, feature_names=("a",), classes=(5, 6), metric="euclidean", weights="uniform",
        scale="none", n_train=2, batch=8, fingerprint="", minimum_runtime="1", versions={},
    )  # fmt: skip
    with pytest.raises(BadInput, match="the labels of the model are whole numbers") as refused:
        teach._label(info, typed, Enrol(rows=9))
    assert refused.value.hint == option

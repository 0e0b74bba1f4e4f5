"""A release that forgets a class is refused on the device, which keeps the release that it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.device import Device
from support.releases import Releases

from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.model_info import Gates
from device_agent.shared.protocol.reports import Activated, Certificate, Problem


def commit(device: Device, release: Path) -> str:
    digest = device.stage(release)
    device.ask("activate", digest)
    device.ask("confirm", digest)
    return digest


@pytest.mark.parametrize(
    ("gates", "said"),
    [
        ({"min_recall": 0.8}, "is below the gate of 0.8"),
        ({"recall": {"versicolor": 0.9}}, "recall of 'versicolor': 0 (0 of 18 rows) is below the gate of 0.9"),
        ({"balanced_accuracy": 0.9}, "balanced accuracy: "),
        ({"not_worse_than": "current", "by": 0.01}, "'versicolor' falls from 0.944444 to 0 (17 to 0 of 18 rows)"),
    ],
)
def test_a_release_that_forgets_a_class_is_refused(
    device: Device, releases: Releases, tmp_path: Path, gates: dict[str, Any], said: str
) -> None:
    first = commit(device, releases["iris"])
    forgets = releases.variant("iris-forgets", tmp_path / "b", gates=Gates(**gates))
    digest = device.stage(forgets)
    told = device.run("activate", digest, "--json")
    problem = json_codec.loads(Problem, told.out)
    assert problem.exit_code == told.code == 4
    assert said in problem.message
    assert "lower the gate" in problem.hint
    assert device.answering() == first
    if "not_worse_than" in gates:
        assert problem.certificate is not None
        compared = problem.certificate.compared
        assert compared is not None
        assert compared.release == first
        changes = {each.label: (each.before, each.after) for each in compared.classes}
        assert changes["versicolor"] == (17, 0)


@pytest.mark.parametrize("gates", [{"min_recall": 0.0}, {"recall": {"setosa": 0.5}}, {}])
def test_the_same_release_passes_with_a_lower_gate(
    device: Device, releases: Releases, tmp_path: Path, gates: dict[str, Any]
) -> None:
    commit(device, releases["iris"])
    digest = commit(device, releases.variant("iris-forgets", tmp_path / "b", gates=Gates(**gates)))
    assert device.answering() == digest


def test_a_first_release_and_a_better_one_pass(device: Device, releases: Releases, tmp_path: Path) -> None:
    gates = Gates(not_worse_than="current")
    commit(device, releases.variant("iris-forgets", tmp_path / "a", gates=gates, sequence=5))
    digest = device.stage(releases.variant("iris", tmp_path / "b", gates=gates))
    activated = json_codec.from_plain(Activated, device.ask("activate", digest))
    assert isinstance(activated.certificate, Certificate)
    assert activated.certificate.compared is not None
    assert all(each.after >= each.before for each in activated.certificate.compared.classes)


def test_rows_of_ones_own_need_not_hold_every_class(device: Device, releases: Releases, tmp_path: Path) -> None:
    commit(device, releases.variant("iris", tmp_path / "a", gates=Gates(min_recall=0.5)))
    golden = Golden.from_bytes((releases["iris"] / constants.GOLDEN_FILE).read_bytes())
    few = {name: part[golden.truth == 0] for name, part in vars(golden).items() if isinstance(part, np.ndarray)}
    own = Golden(metric=golden.metric, **few).to_bytes()
    told = device.run("check", "--json", "--golden", "-", input=own)
    assert told.code == 0, told.out


def test_rows_of_ones_own_count_alike_in_the_accuracy(device: Device, releases: Releases, tmp_path: Path) -> None:
    commit(device, releases.variant("iris", tmp_path / "a", gates=Gates()))
    golden = Golden.from_bytes((releases["iris"] / constants.GOLDEN_FILE).read_bytes())
    wrong = np.flatnonzero(golden.label != golden.truth)
    chosen = [*wrong[:1], *np.flatnonzero(golden.truth == 0)[:3]]
    few = {name: part[chosen] for name, part in vars(golden).items() if isinstance(part, np.ndarray)}
    own = Golden(metric=golden.metric, **few).to_bytes()
    proof = json_codec.loads(Certificate, device.run("check", "--json", "--golden", "-", input=own).out.encode())
    assert (len(wrong) > 0, proof.accuracy) == (True, 0.75)


@pytest.mark.parametrize("command", ["check", "compare"])
def test_a_golden_set_that_does_not_fit_is_named(
    command: str, device: Device, releases: Releases, tmp_path: Path
) -> None:
    commit(device, releases["iris"])
    (bad := tmp_path / "bad.npz").write_bytes(b"PK")
    said = device.run(command, "--golden", str(bad))
    assert f"--golden {bad} is not a golden set" in said.err
    if command == "check":
        other = releases["wine"] / constants.GOLDEN_FILE
        said = device.run(command, "--golden", str(other))
        assert f"--golden {other} was made for another model" in said.err
    assert "try: --golden FILE, the golden.npz of a release of this model" in said.err

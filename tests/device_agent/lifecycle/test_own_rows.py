"""A device keeps a release with stages only if its own rows, its search and its labels hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.device import Device
from support.releases import Releases
from support.runtimes import TFLITE
from support.stage_forge import edit_golden, edit_info

from device_agent.shared.protocol import constants


@pytest.mark.parametrize("runtime", TFLITE)
def test_the_certificate_counts_three_things_apart(runtime: str, releases: Releases, tmp_path: Path) -> None:
    device = Device(tmp_path / "root", releases)
    found = device.ask("activate", device.stage(releases["pixels"]), "--runtime", runtime)["certificate"]
    own = found["embedding"]
    assert (found["identical"] + found["equivalent"], found["different"]) == (own["rows"], 0)
    assert 0.0 <= own["largest_error"] <= own["bound"] == 0.1
    assert (own["above"], own["search_different"], own["labels_different"]) == (0, 0, 0)
    assert own["labels_same"] + own["labels_open"] == own["rows"]
    assert found["accuracy_rows"] == own["rows"]


def _nearest_label_elsewhere(arrays: dict[str, Any]) -> None:
    """The host claims another label for the row that its neighbours decide most clearly."""
    row = int(np.argmax([len(set(classes[:3])) == 1 for classes in arrays["classes"]]))
    there = arrays["indices"][row] >= 0
    arrays["classes"][row][there] = (arrays["classes"][row][there] + 1) % 10
    arrays["label"][row] = (arrays["label"][row] + 1) % 10


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda arrays: arrays["rows"].__iadd__(arrays["rows"].std() * 3), "too far from the host's"),
        (_nearest_label_elsewhere, "rounding does not explain"),
    ],
    ids=["rows elsewhere", "another label"],
)
def test_a_device_whose_own_rows_contradict_the_host_reverts(
    edit: Any, said: str, releases: Releases, tmp_path: Path
) -> None:
    release = releases.copy("pixels", tmp_path / "release")
    edit_golden(release, edit, releases.private_key)
    device = Device(tmp_path / "root", releases)
    found = device.ask("activate", device.stage(release), code=constants.EXIT_REFUSED)
    assert said in " ".join(found["certificate"]["failures"])


def test_a_bound_that_this_runtime_misses_is_a_gate(releases: Releases, tmp_path: Path) -> None:
    release = releases.copy("pixels", tmp_path / "release")
    edit_info(release, lambda info: info["input"].update(bound=1e-30), releases.private_key)
    edit_golden(release, lambda arrays: arrays["rows"].__imul__(1.0001), releases.private_key)
    device = Device(tmp_path / "root", releases)
    found = device.ask("activate", device.stage(release), code=constants.EXIT_REFUSED)
    assert "`input: {bound: ...}` in deploy.yaml" in found["hint"]
    assert found["certificate"]["embedding"]["above"] > 0


def test_golden_inputs_that_cannot_be_read_are_refused(releases: Releases, tmp_path: Path) -> None:
    release = releases.copy("pixels", tmp_path / "release")
    edit_golden(
        release, lambda arrays: arrays.update(raw=np.frombuffer(b"[1]\n" * 200, np.uint8)), releases.private_key
    )
    device = Device(tmp_path / "root", releases)
    found = device.ask("activate", device.stage(release), code=constants.EXIT_REFUSED)
    assert "golden.npz does not fit the model's stages" in found["message"]

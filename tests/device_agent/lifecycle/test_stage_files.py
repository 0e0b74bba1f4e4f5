"""Files of stages are members of a release: signed, verified, repaired and removed with it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.device import Device
from support.releases import Releases
from support.stage_forge import replace_stage

from device_agent.shared.protocol import constants
from knnkit.release.signing import FileSigner, sign_release

FIRST, SECOND, THIRD = constants.STAGE_FILES[:3]


def _flip(release: Path) -> None:
    data = bytearray((release / FIRST).read_bytes())
    data[len(data) // 2] ^= 1
    (release / FIRST).write_bytes(data)


def _swap(release: Path) -> None:
    first, second = ((release / name).read_bytes() for name in (FIRST, SECOND))
    (release / FIRST).write_bytes(second)
    (release / SECOND).write_bytes(first)


def _link(release: Path) -> None:
    (release / SECOND).unlink()
    (release / SECOND).symlink_to(release / FIRST)


def _too_large(release: Path) -> None:
    with (release / SECOND).open("ab") as file:
        file.truncate(constants.MAX_STAGE + 1)


ATTACKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped bit": (_flip, "file-changed"),
    "two stages in each other's place": (_swap, "file-changed"),
    "a stage too few": (lambda release: (release / SECOND).unlink(), "file-missing"),
    "a stage too many": (lambda release: shutil.copy(release / FIRST, release / THIRD), "file-unlisted"),
    "a ninth stage": (lambda release: shutil.copy(release / FIRST, release / "stage-9.tflite"), "file-unlisted"),
    "a link": (_link, "file-symlink"),
    "a huge stage": (_too_large, "file-too-large"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_release_with_another_stage_is_refused(name: str, releases: Releases, tmp_path: Path) -> None:
    attack, reason = ATTACKS[name]
    attack(releases.copy("pixels", tmp_path / "release"))
    device = Device(tmp_path / "root", releases)
    assert device.ask("stage", tmp_path / "release", code=constants.EXIT_REFUSED)["reason"] == reason
    assert list((device.root / constants.RELEASES_DIR).iterdir()) == []


def test_stages_are_staged_repaired_and_removed_with_the_release(releases: Releases, tmp_path: Path) -> None:
    device = Device(tmp_path / "root", releases)
    digest = device.stage(releases["pixels"])
    staged = device.root / constants.RELEASES_DIR / digest
    kept = {path.name: path.read_bytes() for path in staged.iterdir()}
    assert kept == {path.name: path.read_bytes() for path in releases["pixels"].iterdir()}
    assert SECOND in kept
    (staged / FIRST).chmod(0o600)
    _flip(staged)
    (staged / SECOND).unlink()
    assert device.ask("stage", releases["pixels"])["already"]
    assert kept == {path.name: path.read_bytes() for path in staged.iterdir()}


def test_a_model_that_names_another_stage_is_not_activated(releases: Releases, tmp_path: Path) -> None:
    release = releases.copy("pixels", tmp_path / "release")
    _swap(release)
    sign_release(release, FileSigner.load(releases.private_key))
    device = Device(tmp_path / "root", releases)
    found = device.ask("activate", device.stage(release), code=constants.EXIT_REFUSED)
    assert "stage-1.tflite differs from its SHA-256 in knn.json" in found["message"]


@pytest.mark.parametrize("size", [0, 7, 300])
def test_a_damaged_stage_is_an_error_and_not_a_crash(size: int, releases: Releases, tmp_path: Path) -> None:
    release = releases.copy("pixels", tmp_path / "release")
    replace_stage(release, FIRST, (release / FIRST).read_bytes()[:size], releases.private_key)
    device = Device(tmp_path / "root", releases)
    found = device.ask("activate", device.stage(release), code=constants.EXIT_REFUSED)
    assert found["reason"] in ("model-unusable", "model-crashed")

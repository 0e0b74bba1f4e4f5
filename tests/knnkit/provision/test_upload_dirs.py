"""Wheels under way lie in a place of their connection's own; what another has left is taken up, and nothing else."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent.bootstrap import lock
from device_agent.bootstrap.environments import clear_leftovers, tidy
from device_agent.bootstrap.files import make_folder
from device_agent.bootstrap.upload_dirs import claim, new_upload, started


@pytest.fixture
def other() -> Iterator[int]:
    """The process of another connection."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        yield process.pid


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def put(root: Path, process: int, *names: str, age: float = 0.0) -> Path:
    """A place of that process, into which nothing has come for so many seconds."""
    place = new_upload(root, process)
    make_folder(place)
    for name in names:
        (place / name).write_text(name)
    for path in (*place.iterdir(), place):
        os.utime(path, (time.time() - age,) * 2)
    return place


def claimed(root: Path) -> set[str]:
    name = claim({"root": str(root)})["place"]
    return {path.name for path in (root / "venvs" / name).iterdir()}


def gone() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_two_that_send_have_a_place_each_for_its_owner_alone(root: Path, other: int) -> None:
    theirs = put(root, other, "a.whl.part")
    assert claimed(root) == set()
    assert {path.name for path in theirs.iterdir()} == {"a.whl.part"}
    assert {path.stat().st_mode & 0o777 for path in root.rglob("*") if path.is_dir()} == {0o700}


def test_what_a_connection_that_is_gone_has_left_is_taken_up_most_first(root: Path) -> None:
    put(root, gone(), "a.whl")
    put(root, gone(), "a.whl", "b.whl.part")
    assert claimed(root) == {"a.whl", "b.whl.part"}


@pytest.mark.parametrize(
    ("names", "age", "taken"), [(["a.part"], 60, True), ([], 60, True), (["a.part"], 0, False), ([], 0, False)]
)
def test_a_silent_connection_is_taken_for_a_broken_one(
    root: Path, other: int, names: list[str], age: float, taken: bool
) -> None:
    place = put(root, other, *names, age=age)
    assert claimed(root) == (set(names) if taken else set())
    assert place.exists() is not taken


def test_what_has_arrived_is_being_used_however_long(root: Path, other: int) -> None:
    place = put(root, other, "a.whl", "b.whl.part", age=3600)
    assert claimed(root) == set()
    assert place.exists()


def test_a_process_that_came_later_by_the_same_number_is_another(root: Path, other: int) -> None:
    """The board was started again since."""
    place = put(root, other, "a.whl")
    place.rename(place.with_name(place.name.replace(started(other), "1")))
    assert claimed(root) == {"a.whl"}


def test_what_nobody_sends_into_any_more_is_cleared_and_makes_a_board_untidy(root: Path, other: int) -> None:
    theirs, left, before = put(root, other, "a.whl"), put(root, gone(), "a.whl"), root / "venvs" / "incoming"
    before.mkdir()  # of a knnkit of before
    assert not tidy(root)
    clear_leftovers(root)
    assert (theirs.exists(), left.exists(), before.exists()) == (True, False, False)
    assert tidy(root)


def test_a_lock_on_a_folder_that_was_removed_meanwhile_is_none(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another host that failed on a bare board has left it bare."""
    real, removed = lock.fcntl.flock, []

    def flock(handle: int, how: int) -> None:
        real(handle, how)
        if not removed:
            removed.append((root / "venvs").rmdir())

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    handle = lock.lock(root, wait=10.0)
    assert os.path.samestat(os.fstat(handle), (root / "venvs").stat())
    os.close(handle)

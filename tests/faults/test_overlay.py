"""On an overlay, which renames no directory of its lower layer: at any effect, the old release answers or the new."""

# ruff: noqa: PTH116
from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import crashpoints
from support.crashpoints import SIGNALLED, Ended, Fault
from test_crashes import (
    Bench,
    Finish,
    Scenario,
    activate,
    bench,
    check_the_board,
    copy,
    install_an_upload,
    install_one_that_fails,
    install_over_a_damaged_copy,
    prune,
    root,
    still,
)

from device_agent.shared.protocol import constants
from device_agent.system import durable

__all__ = ["bench", "root", "still"]


@contextlib.contextmanager
def lower_layer(folder: Path) -> Iterator[None]:
    """What lies in `folder` now is the lower layer."""
    below = {os.stat(name).st_ino for name, _, _ in os.walk(folder)}
    real = os.rename

    def rename(source: str | Path, destination: str | Path) -> None:
        found = os.lstat(source)
        if stat.S_ISDIR(found.st_mode) and found.st_ino in below:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source))
        real(source, destination)

    os.rename = rename
    try:
        yield
    finally:
        os.rename = real


def run(scenario: Scenario, root: Path, fault: Fault | None = None) -> Ended:
    action = scenario.on(root)

    def on_the_overlay() -> int:
        with lower_layer(root):
            return action()

    copy(scenario, root)
    return crashpoints.run(on_the_overlay, root, fault)


def install_into_a_full_store(made: Bench) -> Scenario:
    """One release more than may stay, so that one goes, as at every further deploy."""
    scenario = install_an_upload(made)
    for sequence in range(20, 19 + constants.KEEP_RELEASES):
        release = made.releases.variant("iris", made.folder / f"full-{sequence}", sequence=sequence)
        device, _ = made.with_old()
        digest = made.upload(device, release)
        (device.root / constants.INCOMING_DIR / digest).rename(scenario.root / constants.RELEASES_DIR / digest)
    return scenario


def find_a_directory_in_the_way(made: Bench) -> Scenario:
    """Where the agent's link belongs; it is set aside with all that is in it."""
    scenario = activate(made)
    place = scenario.root / constants.HISTORY_FILE
    place.unlink()
    (place / "deep").mkdir(parents=True)
    (place / "deep" / "file").write_text("theirs")
    (place / "link").symlink_to("deep")
    return scenario


def drop_the_rest_of_the_upload(scenario: Scenario, root: Path, place: str) -> None:
    """The copy is the release, and a part of the upload is left: the device refuses that once, and drops it."""
    upload = root / scenario.upload
    staged = (root / constants.RELEASES_DIR / upload.name).is_dir()
    names = {path.name.removesuffix(constants.PART_SUFFIX) for path in upload.iterdir()} if upload.is_dir() else set()
    if scenario.upload and upload.is_dir() and staged and not names >= set(constants.RELEASE_FILES):
        ended = crashpoints.run(scenario.on(root), root)
        assert ended.code == constants.EXIT_REFUSED, (place, ended.out, ended.err)
        assert not upload.exists(), place


SCENARIOS = (
    install_an_upload, install_into_a_full_store, install_over_a_damaged_copy, install_one_that_fails, prune,
)  # fmt: skip


@pytest.mark.usefixtures("still")
@pytest.mark.parametrize("make", SCENARIOS)
def test_killed_on_an_overlay_the_old_release_answers_or_the_new(
    make: Callable[[Bench], Scenario], bench: Bench, root: Path
) -> None:
    scenario = make(bench)
    whole = run(scenario, root)
    assert whole.code == scenario.code, (whole.out, whole.err)
    with lower_layer(root):
        check_the_board(scenario, root, "not killed")
    finish = Finish()
    for number, effect in enumerate(whole.effects):
        if effect.same_if_killed:
            continue
        place = f"{scenario.name}: killed after {number}: {effect}"
        ended = run(scenario, root, Fault(number, "after"))
        assert ended.code == SIGNALLED, (place, ended.out, ended.err)
        with lower_layer(root):
            check_the_board(scenario, root, place)
            drop_the_rest_of_the_upload(scenario, root, place)
            finish(scenario, root, place)


def test_a_directory_in_the_way_on_an_overlay_is_set_aside_whole(bench: Bench, root: Path) -> None:
    scenario = find_a_directory_in_the_way(bench)
    ended = run(scenario, root)
    assert ended.code == 0, (ended.out, ended.err)
    aside = root / (constants.HISTORY_FILE + durable.ASIDE)
    assert (aside / "deep" / "file").read_text() == "theirs"
    assert (aside / "link").readlink() == Path("deep")
    assert not list(root.glob(".*"))

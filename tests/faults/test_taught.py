"""Killed, starved or unplugged at any effect, the journal of taught rows is the old one or the new one, never half."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import crashpoints
from support.crashpoints import SIGNALLED, Disk, Effect, Fault
from support.device import Device
from support.releases import Releases

from device_agent import cli
from device_agent.enrolment import journal as module
from device_agent.enrolment.journal import Journal
from device_agent.shared.protocol import constants

FILES = {"journal", "key", "lock"}


@dataclass(frozen=True)
class Scenario:
    """A command on a prepared root, and the labels that are taught before and after it."""

    name: str
    root: Path
    argv: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]

    def on(self, root: Path) -> Callable[[], int]:
        def run() -> int:  # in a child
            if self.name.endswith("again"):
                module.SPARE = -10_000
            return cli.main(["--root", str(root), *self.argv, "--json"])

        return run


#: Command -> what is done before it, and what is taught before and after.
COMMANDS = {
    "enrol, the first": (("enrol", "--label", "rose"), (), (), ("rose", "rose")),
    "enrol, written again": (("enrol", "--label", "lily"), ("rose",), ("rose",) * 2, ("rose",) * 2 + ("lily",) * 2),
    "forget": (("forget", "--label", "rose"), ("rose", "lily"), ("rose",) * 2 + ("lily",) * 2, ("lily",) * 2),
    "erase": (("forget", "--last", "3", "--erase"), ("rose", "lily"), ("rose",) * 2 + ("lily",) * 2, ("rose",)),
    "undo": (("undo",), ("rose", "lily"), ("rose",) * 2 + ("lily",) * 2, ("rose",) * 2),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    crashpoints.preload()
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else tmp_path_factory.getbasetemp()
    found = Path(tempfile.mkdtemp(prefix="knnkit-taught-", dir=place))
    yield found
    shutil.rmtree(found)


@pytest.fixture(scope="module", params=COMMANDS)
def scenario(request: pytest.FixtureRequest, folder: Path, releases: Releases) -> Iterator[Scenario]:
    command, taught, before, after = COMMANDS[request.param]
    rows = folder / "rows.csv"
    rows.write_text("19,9,9,9\n19,9,9.1,9\n")
    device = Device(folder / "prepared", releases)
    device.install(releases["taught"])
    for label in taught:
        device.ask("enrol", "--label", label, "--input", str(rows))
    more = ("--input", str(rows)) if command[0] == "enrol" else ()
    yield Scenario(request.param, device.root, (*command, *more), before, after)
    shutil.rmtree(device.root)


@pytest.fixture
def root(folder: Path) -> Iterator[Path]:
    yield folder / "root"
    shutil.rmtree(folder / "root", ignore_errors=True)


def copy(scenario: Scenario, root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(scenario.root, root, symlinks=True)


def traced(scenario: Scenario, root: Path) -> tuple[Effect, ...]:
    copy(scenario, root)
    ended = crashpoints.run(scenario.on(root), root)
    assert ended.code == 0, (ended.out, ended.err)
    assert labels(root) == scenario.after
    disk = Disk(scenario.root)
    for effect in ended.effects:
        disk.play(effect)
    assert disk.files() == crashpoints.snapshot(root), "an effect was not traced"
    return ended.effects


def labels(root: Path) -> tuple[str, ...]:
    return tuple(str(row.label) for row in Journal(root).read())


def check(scenario: Scenario, root: Path, place: str) -> None:
    """The journal is whole; the next command works on it, and leaves no other file."""
    assert labels(root) in (scenario.before, scenario.after), place
    with Journal(root).changing("test") as journal:
        journal.forget([row.id for row in journal.taught.rows()])
        assert journal.taught.rows() == []
        journal.undo()
    assert labels(root) in (scenario.before, scenario.after), place
    assert {path.name for path in (root / constants.ENROLLED_DIR).iterdir()} <= FILES, place


def test_killed_at_any_effect_the_journal_is_the_old_one_or_the_new(scenario: Scenario, root: Path) -> None:
    effects = traced(scenario, root)
    assert {"write", "fsync"} <= {effect.call for effect in effects}
    for number, effect in enumerate(effects):
        if effect.same_if_killed:
            continue
        place = f"{scenario.name}: killed after {number}: {effect}"
        copy(scenario, root)
        ended = crashpoints.run(scenario.on(root), root, Fault(number, "after"))
        assert ended.code == SIGNALLED, (place, ended.out, ended.err)
        check(scenario, root, place)


@pytest.mark.parametrize(("kind", "reason"), [("ENOSPC", "disk-full"), ("EIO", "disk-error")])
def test_a_disk_that_fails_at_any_effect_leaves_the_old_journal_or_the_new(
    scenario: Scenario, root: Path, kind: str, reason: str
) -> None:
    failed = 0
    for number, effect in enumerate(traced(scenario, root)):
        place = f"{scenario.name}: {kind} at {number}: {effect}"
        copy(scenario, root)
        ended = crashpoints.run(scenario.on(root), root, Fault(number, kind, lasting=kind == "ENOSPC"))
        if ended.code:
            assert (ended.code, json.loads(ended.out)["reason"]) == (constants.EXIT_FAILED, reason), place
            failed += 1
        else:
            assert labels(root) == scenario.after, place
        check(scenario, root, place)
    assert failed


def test_a_power_cut_loses_a_command_or_nothing(scenario: Scenario, root: Path) -> None:
    effects = traced(scenario, root)
    for entries_survive in (False, True):
        disk = Disk(scenario.root)
        for number, effect in enumerate(effects):
            disk.play(effect)
            shutil.rmtree(root, ignore_errors=True)
            disk.write_to(root, entries_survive=entries_survive)
            place = f"{scenario.name}: power cut after {number}: {effect} (names survive: {entries_survive})"
            assert labels(root) in (scenario.before, scenario.after), place
            if number == len(effects) - 1:  # the command has returned
                assert labels(root) == scenario.after, place
            if (root / constants.ENROLLED_DIR).exists():
                check(scenario, root, place)

"""When a rollout stops, devices that committed in the same run go back, if that was asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from support.simulation import Fleet, how_many, make_package, with_files

from device_agent.shared.protocol import json_codec
from knnkit.fleet.decide import go_back
from knnkit.fleet.device.connect import Pace
from knnkit.fleet.jobs.job import DeviceJob
from knnkit.fleet.report import DeviceReport, FleetReport, Outcome
from knnkit.fleet.rollout.executor import Fan, fan
from knnkit.fleet.rollout.rollout import Rules, roll_out
from knnkit.fleet.rollout.waves import Wave
from knnkit.fleet.targets import Target

PACE = Pace(connect=1.0, retries=0, command=5.0, confirm=60.0)
OLD = make_package("1.0.0", 10)
NAMES = [f"d{number}" for number in range(6)]
BACK = Rules(("canary", "100%"), 0, "roll_back")


class Watch:
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.finished: list[DeviceReport] = []
        self.on_note: Callable[[str], object] = lambda text: None

    def wave(self, wave: Wave, number: int, total: int) -> None: ...

    def step(self, device: str, step: str, done: int | None, total: int | None) -> None: ...

    def finish(self, report: DeviceReport) -> None:
        self.finished.append(report)

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.on_note(text)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """d0 to d2 are canaries and take the release; d3 begins the second wave and fails."""
    package = with_files(make_package(), tmp_path, {"model.tflite": 5000, "release.json": 90})
    made = Fleet(NAMES, package, running=OLD)
    made.boards["d3"].faults.add("gate")
    return made


def deploy(fleet: Fleet, rules: Rules = BACK, watch: Watch | None = None, spread: Fan | None = None) -> FleetReport:
    def make_job(target: Target) -> DeviceJob:
        return DeviceJob(target, fleet.package, "nonce", "ann@laptop 1", pace=PACE, opener=fleet.open)

    targets = fleet.targets(canary=NAMES[:3])
    with fan(1) as own:
        return roll_out(targets, make_job, rules, spread or own, watch or Watch())


def by_name(report: FleetReport) -> dict[str, DeviceReport]:
    return {device.name: device for device in report.devices}


def versions(fleet: Fleet) -> list[str]:
    return [fleet.boards[name].known_release for name in NAMES]


def test_devices_that_committed_go_back_and_the_report_names_the_release(fleet: Fleet) -> None:
    watch = Watch()
    report = deploy(fleet, watch=watch)
    found = by_name(report)
    assert versions(fleet) == ["1.0.0"] * 6
    for name in NAMES[:3]:
        assert (found[name].outcome, found[name].reason) == (Outcome.ROLLED_BACK, "rollout-rolled-back")
        assert found[name].message == f"{name}: rolled back to fruit 1.0.0"
        assert found[name].release == OLD.ref
        assert [step.name for step in found[name].steps][-1] == "roll back"
    assert found["d3"].reason == "gate-failed"
    assert report.exit_code == found["d0"].exit_code == 4
    assert report.unfinished() == tuple(NAMES)
    assert watch.notes[-1] == "rolling back d0, d1, d2"
    assert json_codec.loads(FleetReport, json_codec.dumps(report)) == report


def test_without_the_rule_devices_keep_the_release(fleet: Fleet) -> None:
    report = deploy(fleet, dataclasses.replace(BACK, on_failure="stop"))
    assert versions(fleet) == ["1.1.0"] * 3 + ["1.0.0"] * 3
    assert how_many(report, Outcome.COMMITTED) == 3


def test_a_rollout_that_succeeds_goes_nowhere(fleet: Fleet) -> None:
    fleet.boards["d3"].faults.clear()
    assert how_many(deploy(fleet), Outcome.COMMITTED) == 6
    assert versions(fleet) == ["1.1.0"] * 6


def test_a_failure_within_the_budget_goes_nowhere(fleet: Fleet) -> None:
    deploy(fleet, dataclasses.replace(BACK, max_failures=1))
    assert versions(fleet) == ["1.1.0"] * 3 + ["1.0.0"] + ["1.1.0"] * 2


def test_a_device_that_ran_the_release_before_this_run_keeps_it(fleet: Fleet) -> None:
    board = fleet.boards["d0"]
    board.committed, board.previous = fleet.package.ref, OLD.ref
    board.staged.add(fleet.package.digest)
    assert by_name(deploy(fleet))["d0"].outcome is Outcome.UNCHANGED
    assert versions(fleet) == ["1.1.0"] + ["1.0.0"] * 5


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("no-way-back", "the key of the release before was revoked"),
        ("locked-rollback", "ann@laptop holds this device"),
        ("first", "the device ran no release before"),
    ],
)
def test_a_device_that_cannot_go_back_is_named_and_the_others_go(fleet: Fleet, fault: str, said: str) -> None:
    if fault == "first":
        fleet.boards["d1"].committed = None
    fleet.boards["d1"].faults.add(fault)
    report = deploy(fleet)
    kept = by_name(report)["d1"]
    assert (kept.outcome, kept.reason, kept.exit_code) == (Outcome.COMMITTED, "not-rolled-back", 1)
    assert kept.message.startswith("d1: still on fruit 1.1.0, not rolled back: ")
    assert said in kept.message
    assert kept.hint
    assert not kept.good
    assert report.exit_code == 1
    assert versions(fleet)[:3] == ["1.0.0", "1.1.0", "1.0.0"]


@pytest.mark.parametrize("cut", ["cut-before-rollback", "cut-after-rollback", "unreachable-3"])
def test_a_lost_answer_is_asked_for_once_more(fleet: Fleet, cut: str) -> None:
    """The third connection is the one that goes back: one was to deploy, one to confirm."""
    fleet.boards["d1"].faults.add(cut)
    assert by_name(deploy(fleet))["d1"].message == "d1: rolled back to fruit 1.0.0"
    assert versions(fleet) == ["1.0.0"] * 6


def test_a_device_that_never_answers_again_is_named(fleet: Fleet) -> None:
    watch = Watch()
    watch.on_note = lambda text: text.startswith("rolling") and fleet.boards["d1"].faults.add("unreachable")
    kept = by_name(deploy(fleet, watch=watch))["d1"]
    assert (kept.reason, kept.exit_code) == ("not-rolled-back", 1)
    assert "nothing listens there" in kept.message


def test_what_another_host_brought_since_stays(fleet: Fleet) -> None:
    newer = make_package("2.0.0", 12)
    watch = Watch()

    def replaced(text: str) -> None:
        board = fleet.boards["d1"]
        if text.startswith("rolling"):
            board.committed, board.previous = newer.ref, board.committed

    watch.on_note = replaced
    found = by_name(deploy(fleet, watch=watch))["d1"]
    assert found.message == "d1: another host has replaced the release since; the device runs fruit 2.0.0"
    assert found.release == newer.ref
    assert versions(fleet)[1] == "2.0.0"


def test_an_interrupt_leaves_the_rest_on_the_release_and_names_them(fleet: Fleet) -> None:
    watch = Watch()
    with fan(1) as spread:
        watch.on_note = lambda text: spread.stop.set() if text.startswith("rolling") else None
        report = deploy(fleet, watch=watch, spread=spread)
    assert [by_name(report)[name].reason for name in NAMES[:3]] == ["not-rolled-back"] * 3
    assert "interrupted before this device was asked" in by_name(report)["d0"].message
    assert report.exit_code == 130


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.COMMITTED])
def test_only_what_was_committed_goes_back(outcome: Outcome) -> None:
    assert go_back.committed([DeviceReport("a", "a", outcome)]) == ()

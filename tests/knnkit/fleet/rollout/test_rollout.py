"""A release spreads in waves within a budget, and whatever happens every device is on one known release."""

from __future__ import annotations

import os
import signal
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.simulation import Fleet, how_many, make_package, with_files

from device_agent.shared.protocol import json_codec
from knnkit.fleet.device.connect import Pace
from knnkit.fleet.jobs.deploy import plan_job, plans_of, run_job
from knnkit.fleet.jobs.job import DeviceJob
from knnkit.fleet.jobs.query import Question, ask_device
from knnkit.fleet.report import DeviceReport, FleetReport, Outcome
from knnkit.fleet.rollout.executor import Fan, fan
from knnkit.fleet.rollout.rollout import Rules, ask_all, roll_out
from knnkit.fleet.rollout.waves import Wave
from knnkit.fleet.targets import Target
from knnkit.release.package import Package

PACE = Pace(connect=1.0, retries=0, command=5.0, confirm=60.0)
OLD = make_package("1.0.0", 10)


class Quiet:
    """A Watch that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.waves: list[str] = []
        self.finished: list[str] = []

    def wave(self, wave: Wave, number: int, total: int) -> None:
        self.waves.append(wave.label)

    def step(self, device: str, step: str, done: int | None, total: int | None) -> None:
        pass

    def finish(self, report: DeviceReport) -> None:
        self.finished.append(report.name)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return with_files(make_package(), tmp_path, {"model.tflite": 5000, "golden.npz": 700, "release.json": 90})


def names(count: int) -> list[str]:
    return [f"d{number:04}" for number in range(count)]


def deploy(
    fleet: Fleet,
    targets: tuple[Target, ...] | None = None,
    rules: Rules | None = None,
    *,
    concurrency: int = 8,
    work: Callable[..., DeviceReport] = run_job,
    watch: Quiet | None = None,
    pace: Pace = PACE,
) -> FleetReport:
    def make_job(target: Target) -> DeviceJob:
        return DeviceJob(target, fleet.package, "nonce", "ann@laptop 1", pace=pace, opener=fleet.open)

    with fan(concurrency) as spread:
        return roll_out(targets or fleet.targets(), make_job, rules or Rules(), spread, watch or Quiet(), work=work)


def outcomes(report: FleetReport) -> dict[str, str]:
    return {device.name: device.outcome.value for device in report.devices}


def test_every_device_gets_the_release_and_proves_it(package: Package) -> None:
    fleet = Fleet(names(5), package, running=OLD)
    report = deploy(fleet)
    assert report.exit_code == 0
    assert how_many(report, Outcome.COMMITTED) == 5
    for device in report.devices:
        assert device.release == package.ref
        assert device.previous == OLD.ref
        assert device.certificate is not None
        assert device.certificate.nonce == "nonce"
        assert device.sent_bytes == package.size
    assert fleet.open_now == 0


def test_a_second_deploy_changes_nothing_and_costs_one_question(package: Package) -> None:
    fleet = Fleet(names(3), package, running=OLD)
    deploy(fleet)
    before = {name: len(board.log) for name, board in fleet.boards.items()}
    report = deploy(fleet)
    assert set(outcomes(report).values()) == {"unchanged"}
    assert report.exit_code == 0
    assert [len(board.log) - before[name] for name, board in fleet.boards.items()] == [1, 1, 1]


def test_each_trouble_has_an_outcome_of_its_own_and_the_rest_goes_on(package: Package) -> None:
    fleet = Fleet(names(50), package, running=OLD)
    faults = {"d0010": "bad-disk", "d0020": "unreachable", "d0030": "host-key", "d0040": "gate"}
    for name, fault in faults.items():
        fleet.boards[name].faults.add(fault)
    fleet.boards["d0045"].faults.add("locked-install")
    report = deploy(fleet, rules=Rules(("10%", "100%"), 2))
    found = {device.name: (device.outcome, device.reason, device.exit_code) for device in report.devices}
    assert found["d0010"] == (Outcome.FAILED, "cannot-write", 1)
    assert found["d0020"] == (Outcome.UNREACHABLE, "connect", 3)
    assert found["d0030"] == (Outcome.UNREACHABLE, "host-key-changed", 3)
    assert found["d0040"] == (Outcome.FAILED, "gate-failed", 4)
    assert found["d0045"] == (Outcome.LOCKED, "locked", 5)
    assert how_many(report, Outcome.COMMITTED) == 45
    assert report.stopped == ""
    assert report.exit_code == 1
    gated = next(device for device in report.devices if device.name == "d0040")
    assert gated.certificate is not None
    assert gated.certificate.accuracy == 0.5
    assert fleet.boards["d0040"].known_release == "1.0.0"


def test_a_failing_canary_stops_everything_whatever_the_budget(package: Package) -> None:
    fleet = Fleet(names(20), package, running=OLD)
    fleet.boards["d0001"].faults.add("gate")
    watch = Quiet()
    targets = fleet.targets(canary=("d0000", "d0001"))
    report = deploy(fleet, targets, Rules(("canary", "25%", "100%"), 10), watch=watch)
    assert watch.waves == ["canary"]
    assert "d0001 failed in the first wave" in report.stopped
    assert how_many(report, Outcome.SKIPPED) == 18
    skipped = report.devices[5]
    assert (skipped.reason, skipped.wave) == ("rollout-stopped", 2)
    assert all(not fleet.boards[name].log for name in names(20)[2:])
    assert [wave.started is None for wave in report.waves] == [False, True, True]
    assert report.exit_code == 4


def test_an_unreachable_canary_proves_nothing(package: Package) -> None:
    fleet = Fleet(names(4), package, running=OLD)
    fleet.boards["d0000"].faults.add("unreachable")
    report = deploy(fleet, fleet.targets(canary=("d0000",)), Rules(("canary", "100%"), 3))
    assert "proves nothing" in report.stopped
    assert report.exit_code == 3


def test_the_budget_counts_across_waves_and_stops_within_one(package: Package) -> None:
    fleet = Fleet(names(100), package, running=OLD)
    for name in names(100)[10:]:
        fleet.boards[name].faults.add("bad-disk")
    report = deploy(fleet, rules=Rules(("5%", "20%", "100%"), "4%"), concurrency=1)
    assert how_many(report, Outcome.FAILED) == 5
    assert how_many(report, Outcome.COMMITTED) == 10
    assert how_many(report, Outcome.SKIPPED) == 85
    assert report.stopped == "5 devices failed; 4 may fail"


def test_devices_that_fail_after_the_stop_are_counted(package: Package) -> None:
    fleet, both = Fleet(names(2), package, running=OLD), threading.Barrier(2)

    def work(job: DeviceJob, *rest: object) -> DeviceReport:
        both.wait(30.0)
        raise RuntimeError("out of luck")

    assert deploy(fleet, concurrency=2, work=work).stopped == "2 devices failed; none may fail"


def test_unreachable_devices_spend_nothing(package: Package) -> None:
    fleet = Fleet(names(10), package, running=OLD)
    for name in names(10)[5:]:
        fleet.boards[name].faults.add("unreachable")
    report = deploy(fleet, rules=Rules(max_failures=0))
    assert (how_many(report, Outcome.COMMITTED), how_many(report, Outcome.UNREACHABLE)) == (5, 5)
    assert report.stopped == ""
    assert report.exit_code == 3


def test_a_device_that_is_lost_while_it_switches_stops_the_rollout(package: Package) -> None:
    """The release may have hung it."""
    fleet = Fleet(names(10), package, running=OLD)

    def hang(name: str, command: str) -> None:
        if (name, command) == ("d0001", "install"):
            fleet.boards[name].faults |= {"cut-after-install", "unreachable"}

    fleet.on_command = hang
    report = deploy(fleet, rules=Rules((2, "100%"), max_failures=5))
    assert outcomes(report)["d0001"] == "unreachable"
    assert report.stopped == "d0001 failed in the first wave"
    assert how_many(report, Outcome.SKIPPED) == 8
    assert report.exit_code == 3


def test_what_no_wave_takes_is_skipped_and_says_so(package: Package) -> None:
    fleet = Fleet(names(4), package, running=OLD)
    report = deploy(fleet, fleet.targets(canary=("d0000",)), Rules(("canary",)))
    assert outcomes(report) == {"d0000": "committed", "d0001": "skipped", "d0002": "skipped", "d0003": "skipped"}
    assert report.devices[1].reason == "no-wave"
    assert report.exit_code == 0


def test_no_more_devices_at_a_time_than_asked_for(package: Package) -> None:
    fleet = Fleet(names(60), package, running=OLD)
    assert how_many(deploy(fleet, concurrency=7), Outcome.COMMITTED) == 60
    assert 1 < fleet.most_open <= 7


def test_a_job_that_crashes_is_one_devices_failure(package: Package) -> None:
    fleet = Fleet(names(3), package, running=OLD)

    def work(job: DeviceJob, *rest: object) -> DeviceReport:
        if job.target.name == "d0001":
            raise RuntimeError("out of luck")
        return run_job(job, *rest)  # type: ignore[arg-type]

    report = deploy(fleet, rules=Rules(max_failures=1), work=work)
    assert [device.outcome for device in report.devices] == [Outcome.COMMITTED, Outcome.FAILED, Outcome.COMMITTED]
    assert "RuntimeError: out of luck" in report.devices[1].message


def test_a_report_comes_back_from_json_and_says_what_is_left_to_do(package: Package) -> None:
    fleet = Fleet(names(4), package, running=OLD)
    fleet.boards["d0002"].faults.add("unreachable")
    report = deploy(fleet)
    again = json_codec.loads(FleetReport, json_codec.dump_file(report))
    assert again == report
    assert again.unfinished() == ("d0002",)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_leaves_each_device_committed_or_as_it_was_and_says_which(package: Package, number: int) -> None:
    fleet = Fleet(names(12), package, running=OLD)
    switched = threading.Event()

    def interrupt(name: str, step: str) -> None:
        """While d0001 is being activated, d0000 is about to upload: then the signal comes."""
        if (name, step) == ("d0001", "install"):
            os.kill(os.getpid(), number)
            switched.set()
        elif name != "d0001" and step == "look":
            assert switched.wait(10)

    fleet.on_command = interrupt
    watch = Quiet()
    report = deploy(fleet, concurrency=3, watch=watch)
    assert report.interrupted
    assert report.exit_code == 130
    by_name = {device.name: device for device in report.devices}
    assert by_name["d0001"].outcome is Outcome.COMMITTED
    for name, board in fleet.boards.items():
        assert board.pending is None
        expected = "1.1.0" if by_name[name].outcome is Outcome.COMMITTED else "1.0.0"
        assert board.known_release == expected
        if by_name[name].outcome is not Outcome.COMMITTED:
            assert (by_name[name].outcome, by_name[name].reason) == (Outcome.SKIPPED, "interrupted")
    assert Counter(device.outcome for device in report.devices)[Outcome.SKIPPED] >= 9
    assert any("starts no further device" in note for note in watch.notes)


def test_a_thousand_devices_in_waves_and_the_hosts_memory_stays_flat(package: Package) -> None:
    def peak(count: int) -> int:
        fleet = Fleet(names(count), package, running=OLD)
        for board in fleet.boards.values():
            board.files = _Forgetful()
        targets = fleet.targets(canary=names(2))
        tracemalloc.start()
        report = deploy(fleet, targets, Rules(("canary", "25%", "100%"), "1%"), concurrency=32)
        kept, top = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert how_many(report, Outcome.COMMITTED) == count
        assert [len(wave.devices) for wave in report.waves] == [2, count // 4 - 2, count - count // 4]
        return top - kept

    small = peak(100)
    # What is needed beside the reports themselves does not grow with the fleet.
    assert peak(1000) < 2 * small + 2_000_000


class _Forgetful(dict):  # type: ignore[type-arg]
    """A board's disk is not the host's memory: only whether the last upload was right is kept."""

    def __setitem__(self, key: str, value: bytes) -> None:
        super().__setitem__(key, value)

    def pop(self, key: str, default: bytes = b"") -> bytes:
        data: bytes = super().pop(key, default)
        return data


def test_any_executor_will_do(package: Package) -> None:
    """One that takes only positional, picklable arguments and gives no way to listen or to stop."""
    fleet = Fleet(names(6), package, running=OLD)
    with ThreadPoolExecutor(2) as executor:
        spread = Fan(executor, concurrency=2, in_process=False)

        def make_job(target: Target) -> DeviceJob:
            return DeviceJob(target, package, "nonce", "ann", pace=PACE, opener=fleet.open)

        report = roll_out(fleet.targets(), make_job, Rules(("50%", "100%")), spread, Quiet())
    assert how_many(report, Outcome.COMMITTED) == 6


def test_a_dry_run_tells_the_plan_that_a_deploy_follows_and_changes_nothing(package: Package) -> None:
    fleet = Fleet(names(3), package, running=OLD)
    fleet.boards["d0001"].committed = package.ref
    fleet.boards["d0002"].faults.add("unreachable")
    jobs = [DeviceJob(t, package, "nonce", "ann", pace=PACE, opener=fleet.open) for t in fleet.targets()]
    with fan(2) as spread:
        report = ask_all("deploy --dry-run", jobs, plan_job, spread, Quiet())
    plans = plans_of(report)
    assert [[step.action for step in plan.steps] for plan in plans] == [["upload", "stage", "activate", "confirm"], []]
    assert [board.log for board in fleet.boards.values()] == [["1:probe"], ["1:probe"], []]
    assert report.exit_code == 3
    done = deploy(fleet).devices[0]
    assert [step.name for step in done.steps] == ["connect", "probe", "upload", "stage", "activate", "confirm"]


# --- questions ----------------------------------------------------------------------------------------------------
def ask(fleet: Fleet, kind: str, nonce: str = "n1") -> FleetReport:
    questions = [Question(t, kind, "ann", nonce, pace=PACE, opener=fleet.open) for t in fleet.targets()]  # type: ignore[arg-type]
    with fan(4) as spread:
        return ask_all(kind, questions, ask_device, spread, Quiet())


def test_parity_lines_up_certificates_and_a_difference_is_exit_4(package: Package) -> None:
    fleet = Fleet(names(4), package, running=OLD)
    fleet.boards["d0002"].faults.add("differs")
    report = ask(fleet, "parity")
    assert report.exit_code == 4
    good = [device for device in report.devices if device.good]
    assert [device.name for device in good] == ["d0000", "d0001", "d0003"]
    proof = report.devices[2].certificate
    assert proof is not None
    assert [row.row for row in proof.differences] == [7, 9]
    assert report.devices[2].hint == "loosen the gate"


def test_an_old_certificate_is_no_proof(package: Package) -> None:
    fleet = Fleet(names(2), package, running=OLD)
    fleet.boards["d0001"].faults.add("stale-nonce")
    report = ask(fleet, "parity")
    assert report.exit_code == 4
    assert report.devices[1].reason == "bad-certificate"
    assert "not made for this run" in report.devices[1].message
    assert "knnkit provision --target" in report.devices[1].hint


def test_rollback_on_the_whole_fleet(package: Package) -> None:
    fleet = Fleet(names(3), package, running=OLD)
    deploy(fleet)
    report = ask(fleet, "rollback")
    assert report.exit_code == 0
    assert {board.known_release for board in fleet.boards.values()} == {"1.0.0"}
    assert {device.steps[-1].name for device in report.devices} == {"roll back"}, "the report has a colour for it"
    again = ask(fleet, "rollback")
    assert (again.exit_code, {device.outcome for device in again.devices}) == (0, {Outcome.UNCHANGED})
    assert {device.message for device in again.devices} == {
        "the device has gone back already; to go further back: --to VERSION or DIGEST"
    }


def test_rollback_where_there_is_nothing_before_it(package: Package) -> None:
    assert ask(Fleet(names(1), package, running=OLD), "rollback").exit_code == 1


def test_status_of_a_device_that_answers_nonsense_names_the_likely_cause(package: Package) -> None:
    fleet = Fleet(names(1), package, running=OLD)
    fleet.boards["d0000"].faults.add("garbage")
    report = ask(fleet, "status")
    assert report.devices[0].outcome is Outcome.FAILED
    assert "Welcome to your board" in report.devices[0].message
    assert "login shell" in report.devices[0].hint

"""One device, whatever breaks: after the next run it is on one known release, and the report told the truth."""

from __future__ import annotations

import dataclasses
import itertools
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.simulation import BESIDE, Fleet, make_package, with_files

from knnkit.fleet.decide.plan import DevicePlan
from knnkit.fleet.device.connect import Pace
from knnkit.fleet.device.recorder import Recorder, nobody
from knnkit.fleet.jobs.deploy import plan_job, run_job
from knnkit.fleet.jobs.job import DeviceJob
from knnkit.fleet.jobs.session import Conversation
from knnkit.fleet.report import DeviceReport, Outcome
from knnkit.release.package import Package

OLD = make_package("1.0.0", 10)
PACE = Pace(connect=1.0, retries=0, command=5.0, confirm=60.0)


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return with_files(make_package(), tmp_path, {"model.tflite": 5000, "release.json": 90})


@pytest.fixture
def fleet(package: Package) -> Fleet:
    return Fleet(["board"], package, running=OLD)


_RUNS = itertools.count(1)


def run(
    fleet: Fleet, *, pace: Pace = PACE, paused: list[float] | None = None, holder: str | None = None
) -> DeviceReport:
    def pause(seconds: float) -> bool:
        if paused is not None and seconds:
            paused.append(seconds)
        return False

    named = holder or f"ann@laptop {next(_RUNS)}"  # no two runs have one name
    job = DeviceJob(fleet.targets()[0], fleet.package, "nonce", named, pace=pace, opener=fleet.open)
    return run_job(job, pause=pause)


STEPS = ("probe", "claim", "look", "append", "install", "confirm")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_line_cut_at_any_step_leaves_a_known_release_and_the_next_run_finishes(
    fleet: Fleet, step: str, when: str
) -> None:
    board = fleet.boards["board"]
    board.faults.add(f"cut-{when}-{step}")
    report = run(fleet)
    assert board.pending is None
    if step == "confirm":  # a confirmation is repeated for as long as the device waits for it
        assert report.outcome is Outcome.COMMITTED
        assert report.connections == 3
    else:
        switched = (step, when) == ("install", "after")
        expected = Outcome.ROLLED_BACK if switched else Outcome.UNREACHABLE
        assert report.outcome is expected
        assert board.known_release == "1.0.0"
    again = run(fleet)
    assert again.outcome in (Outcome.COMMITTED, Outcome.UNCHANGED)
    assert board.known_release == "1.1.0"
    assert fleet.open_now == 0


def test_an_upload_cut_in_the_middle_resumes(fleet: Fleet) -> None:
    board = fleet.boards["board"]
    board.faults.add("cut-in-append")
    assert run(fleet).outcome is Outcome.UNREACHABLE
    again = run(fleet)
    assert again.outcome is Outcome.COMMITTED
    assert again.resumed_bytes == 2500
    assert again.sent_bytes == fleet.package.size - 2500


def test_a_part_that_holds_other_bytes_is_not_resumed(fleet: Fleet) -> None:
    board = fleet.boards["board"]
    there = f"/home/pi/.knnkit/incoming/{fleet.package.digest}/model.tflite.part"
    board.files[there] = b"something else entirely"
    report = run(fleet)
    assert report.outcome is Outcome.COMMITTED
    assert (report.resumed_bytes, report.sent_bytes) == (0, fleet.package.size)


@pytest.mark.parametrize("how", ["other bytes", "gone"])
def test_a_release_that_a_build_replaced_during_the_run_is_named(fleet: Fleet, tmp_path: Path, how: str) -> None:
    model = tmp_path / "model.tflite"
    fleet.on_command = lambda _, command: command == "look" and (model.unlink() if how == "gone" else again())

    def again() -> None:
        model.write_bytes(b"another model")

    report = run(fleet)
    assert (report.outcome, report.reason) == (Outcome.FAILED, "release-changed")
    assert report.message.startswith(f"board: {tmp_path} was replaced on this machine during the run (")


def test_what_is_staged_already_is_not_sent_again(fleet: Fleet) -> None:
    fleet.boards["board"].staged.add(fleet.package.digest)
    report = run(fleet)
    assert report.outcome is Outcome.COMMITTED
    assert report.sent_bytes == 0
    assert [step.name for step in report.steps] == ["connect", "probe", "activate", "confirm"]


def test_the_confirmation_comes_over_a_new_connection(fleet: Fleet) -> None:
    run(fleet)
    log = fleet.boards["board"].log
    assert log[-2:] == ["1:install", "2:confirm"]


def test_staging_and_activating_are_two_steps_of_the_report_though_one_command(fleet: Fleet) -> None:
    report = run(fleet)
    assert [step.name for step in report.steps] == ["connect", "probe", "upload", "stage", "activate", "confirm"]
    stage, activate = report.steps[3:5]
    assert activate.started == pytest.approx(stage.started + stage.seconds)
    assert report.warnings == ("clock-behind: 1970",)


@pytest.mark.parametrize("said", [-5.0, 0.0, 1e9])
def test_a_device_cannot_stretch_the_time_of_its_steps(fleet: Fleet, said: float) -> None:
    fleet.boards["board"].stage_seconds = said
    report = run(fleet)
    assert all(0.0 <= step.seconds <= report.seconds for step in report.steps)


@pytest.mark.parametrize(("fault", "step"), [("refuses", "stage"), ("gate", "activate")])
def test_a_refusal_to_stage_is_told_apart_from_a_gate_that_failed(fleet: Fleet, fault: str, step: str) -> None:
    fleet.boards["board"].faults.add(fault)
    report = run(fleet)
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, 4)
    assert (report.steps[-1].name, report.steps[-1].note) == (step, report.reason)


def test_where_an_answer_was_lost_and_nothing_is_pending_the_device_is_said_to_revert_by_itself(fleet: Fleet) -> None:
    """The command may still be at work there, and switch a moment later."""
    fleet.boards["board"].faults.add("cut-before-install")
    report = run(fleet)
    assert (report.outcome, report.exit_code) == (Outcome.UNREACHABLE, 3)
    assert "if the release was activated, the device returns to the previous release within 60 s" in report.message


def test_a_device_that_answers_no_command_is_said_to_return_if_it_was_activated(fleet: Fleet) -> None:
    fleet.boards["board"].faults.add("mute")
    report = run(fleet)
    assert (report.outcome, report.reason) == (Outcome.FAILED, "no-answer")
    assert "if the release was activated, the device returns to the previous release" in report.message


def test_a_device_that_reverted_meanwhile_is_rolled_back(fleet: Fleet) -> None:
    fleet.boards["board"].faults.add("reverted")
    report = run(fleet)
    assert (report.outcome, report.reason, report.exit_code) == (Outcome.ROLLED_BACK, "rolled-back", 1)
    assert fleet.boards["board"].known_release == "1.0.0"


@pytest.mark.parametrize("fault", ["stale-nonce", "lies"])
def test_a_certificate_that_cannot_be_believed_is_taken_back(fleet: Fleet, fault: str) -> None:
    board = fleet.boards["board"]
    board.faults.add(fault)
    report = run(fleet)
    assert (report.outcome, report.exit_code) == (Outcome.ROLLED_BACK, 4)
    assert "knnkit provision --target" in report.hint
    assert board.log[-1:] == ["2:rollback"]
    assert board.pending is None
    assert board.known_release == "1.0.0"


def test_a_device_that_cannot_be_reached_again_is_said_to_revert_by_itself(fleet: Fleet) -> None:
    board = fleet.boards["board"]
    board.faults |= {"cut-after-install", "unreachable-2"}
    report = run(fleet)
    assert report.outcome is Outcome.UNREACHABLE
    assert "returns to the previous release within 60 s" in report.message
    assert board.known_release == "1.0.0"


def test_only_connecting_is_tried_again_with_growing_jittered_pauses(fleet: Fleet) -> None:
    board = fleet.boards["board"]
    board.faults |= {"unreachable-1", "unreachable-2"}
    paused: list[float] = []
    pace = Pace(connect=1.0, retries=2, command=5.0)
    report = run(fleet, pace=pace, paused=paused)
    assert report.outcome is Outcome.COMMITTED
    assert report.connections == 4  # three to get in, one to confirm
    assert len(paused) == 2
    assert 0.125 <= paused[0] <= 0.5
    assert 0.25 <= paused[1] <= 1.0
    board.faults.add("cut-before-install")
    fleet.boards["board"].committed, fleet.boards["board"].staged = OLD.ref, set()
    assert run(fleet, pace=pace).outcome is Outcome.UNREACHABLE
    assert sum(entry.endswith(":install") for entry in board.log) == 2


def test_a_changed_host_key_is_not_tried_again(fleet: Fleet) -> None:
    fleet.boards["board"].faults.add("host-key")
    report = run(fleet, pace=Pace(connect=1.0, retries=5))
    assert (report.outcome, report.reason, report.connections) == (Outcome.UNREACHABLE, "host-key-changed", 1)


def test_a_locked_device_is_waited_for_as_long_as_asked(fleet: Fleet) -> None:
    board = fleet.boards["board"]
    board.faults.add("locked-install")
    assert run(fleet).outcome is Outcome.LOCKED
    waits: list[float] = []

    def pause(seconds: float) -> bool:
        if seconds:
            waits.append(seconds)
            board.faults.discard("locked-install")
        return False

    job = DeviceJob(
        fleet.targets()[0], fleet.package, "nonce", "ann", pace=dataclasses.replace(PACE, lock=30.0), opener=fleet.open
    )
    assert run_job(job, pause=pause).outcome is Outcome.COMMITTED
    assert len(waits) == 1


@pytest.mark.parametrize(
    ("fault", "outcome", "reason", "code"),
    [
        ("mute", Outcome.FAILED, "no-answer", 1),
        ("huge-install", Outcome.FAILED, "no-answer", 1),
        ("garbage", Outcome.FAILED, "probe-failed", 1),
        ("refuses", Outcome.FAILED, "unknown-key", 4),
        ("gate", Outcome.FAILED, "gate-failed", 4),
        ("bad-disk", Outcome.FAILED, "cannot-write", 1),
        ("commits-another", Outcome.FAILED, "wrong-release", 1),
    ],
)
def test_what_a_device_does_wrong_has_a_name_and_leaves_the_old_release(
    fleet: Fleet, fault: str, outcome: Outcome, reason: str, code: int
) -> None:
    fleet.boards["board"].faults.add(fault)
    report = run(fleet)
    assert (report.outcome, report.reason, report.exit_code) == (outcome, reason, code)
    assert fleet.boards["board"].known_release == "1.0.0"


def test_job_and_report_travel(package: Package) -> None:
    """To a worker in another process and back."""
    fleet = Fleet(["board"], package, running=OLD)
    job = DeviceJob(fleet.targets()[0], package, "nonce", "ann")
    assert pickle.loads(pickle.dumps(job)) == job
    report = run(fleet)
    assert pickle.loads(pickle.dumps(report)) == report


def test_a_runtime_that_is_too_old_is_refused_before_a_byte_is_sent(fleet: Fleet, tmp_path: Path) -> None:
    needs = with_files(make_package(runtime="2.99.0"), tmp_path, {"model.tflite": 5000, "release.json": 90})
    fleet.package = needs
    report = run(fleet)
    board = fleet.boards["board"]
    assert (report.outcome, report.exit_code, report.reason) == (Outcome.FAILED, 4, "runtime-too-old")
    assert report.message == "board has tflite_runtime 2.14.0; fruit 1.1.0 needs TFLite runtime 2.99.0"
    assert "2.21" in report.hint
    assert report.sent_bytes == 0
    assert board.files == {}
    assert board.staged == {OLD.digest}
    assert board.known_release == "1.0.0"


def test_a_runtime_is_chosen_in_one_place_for_the_plan_and_for_the_deploy_that_follows_it(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, asked = with_another_runtime(fleet, monkeypatch)
    planned = plan_job(job).answer(DevicePlan)
    assert "ai_edge_litert was chosen" in planned.steps[0].why
    assert run_job(job).outcome is Outcome.COMMITTED
    assert asked == ["ai_edge_litert"]


def with_another_runtime(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> tuple[DeviceJob, list[str]]:
    """A job whose target chose LiteRT, and which runtimes came into use: provisioning does nothing but what it asks."""
    target = dataclasses.replace(fleet.targets()[0], runtime="ai_edge_litert")
    used: list[str] = []

    def provision(*_: Any, runtime: str, prove: Callable[[str, str], None], **__: Any) -> SimpleNamespace:
        prove(BESIDE, "ai_edge_litert")
        used.append(runtime)
        return SimpleNamespace(notes=())

    monkeypatch.setattr("knnkit.fleet.jobs.provision.provision", provision)
    return DeviceJob(target, fleet.package, "nonce", "ann@laptop", pace=PACE, opener=fleet.open), used


def test_a_release_that_stays_is_proven_on_another_runtime_before_that_is_used(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = fleet.boards["board"]
    board.committed = fleet.package.ref
    job, used = with_another_runtime(fleet, monkeypatch)
    report = run_job(job)
    assert (report.outcome, used) == (Outcome.UNCHANGED, ["ai_edge_litert"])
    assert [entry for entry in board.log if entry != "1:probe"] == ["1:check"]
    assert report.certificate is not None
    assert (report.certificate.release, report.certificate.nonce) == (fleet.package.digest, "nonce")


@pytest.mark.parametrize(
    ("fault", "reason", "said"),
    [
        ("differs", "gate-failed", "2 rows differ"),
        ("stale-nonce", "bad-certificate", "the certificate has another nonce: it was not made for this run"),
        ("does-not-load", "model-unusable", "ai_edge_litert cannot load it"),
    ],
)
@pytest.mark.parametrize("stays", [True, False])
def test_a_runtime_on_which_what_answers_does_not_hold_is_never_used(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, fault: str, reason: str, said: str, stays: bool
) -> None:
    """Also where a new release would follow: until that is committed, and where it fails, the one before answers."""
    board = fleet.boards["board"]
    board.committed = fleet.package.ref if stays else OLD.ref
    board.faults.add(f"beside-{fault}")
    job, used = with_another_runtime(fleet, monkeypatch)
    report = run_job(job)
    assert (report.outcome, report.exit_code, report.reason, used) == (Outcome.FAILED, 4, reason, [])
    assert (
        report.said
        == f"its release fails the golden check on ai_edge_litert; the device keeps its old environment: {said}"
    )
    assert report.hint or fault == "does-not-load"
    assert (report.certificate is None) == (fault == "does-not-load")
    assert [entry for entry in board.log if entry != "1:probe"] == ["1:check", "1:check"]


@pytest.mark.parametrize(("fault", "said"), [("differs", "2 rows differ"), ("does-not-load", "cannot load it")])
def test_what_does_not_hold_where_it_answers_either_keeps_nothing_out_of_use(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, fault: str, said: str
) -> None:
    """Else a device with a release that fails could be given neither another environment nor what needs it."""
    board = fleet.boards["board"]
    board.committed = fleet.package.ref
    board.faults.add(fault)
    job, used = with_another_runtime(fleet, monkeypatch)
    report = run_job(job)
    assert (report.outcome, used) == (Outcome.UNCHANGED, ["ai_edge_litert"])
    (warning,) = report.warnings
    why = "which comes into use all the same, because the old environment answers no better"
    assert warning.startswith(f"its release fails the golden check on ai_edge_litert, {why}: ")
    assert warning.endswith(said)


def test_what_answers_more_rows_wrongly_than_where_it_answers_is_not_used(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = fleet.boards["board"]
    board.committed = fleet.package.ref
    board.faults |= {"differs", "beside-does-not-load"}
    job, used = with_another_runtime(fleet, monkeypatch)
    report = run_job(job)
    assert (report.outcome, report.reason, used) == (Outcome.FAILED, "model-unusable", [])


def test_a_certificate_that_proves_nothing_counts_no_row_as_right(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where what answers fails too, as many wrong rows in a certificate of another run would else be good enough."""
    board = fleet.boards["board"]
    board.committed = fleet.package.ref
    board.faults |= {"differs", "beside-stale-nonce"}
    job, used = with_another_runtime(fleet, monkeypatch)
    report = run_job(job)
    assert (report.outcome, report.reason, used) == (Outcome.FAILED, "bad-certificate", [])


def test_an_agent_that_says_no_over_a_certificate_without_fault_has_said_no(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = fleet.boards["board"]
    board.committed = fleet.package.ref
    board.faults.add("beside-says-no")
    job, used = with_another_runtime(fleet, monkeypatch)
    report = run_job(job)
    assert (report.outcome, report.exit_code, report.reason, used) == (Outcome.FAILED, 4, "gate-failed", [])
    assert report.said.endswith("keeps its old environment: no")


@pytest.mark.parametrize("committed", [True, False])
def test_a_runtime_that_was_never_proven_says_nothing_of_a_release_that_follows(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    board = fleet.boards["board"]
    board.committed = OLD.ref if committed else None
    board.faults.add("refuses")
    job, used = with_another_runtime(fleet, monkeypatch)
    report = run_job(job)
    assert (report.reason, report.certificate, used) == ("unknown-key", None, ["ai_edge_litert"])
    assert ("1:check" in board.log) == committed


@pytest.mark.parametrize("stopped", [False, True])
def test_what_has_begun_waits_its_time_also_in_a_run_that_was_stopped(
    stopped: bool, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop ends a pause at once: a device that another command holds would be asked again without one."""
    waited: list[float] = []
    monkeypatch.setattr("knnkit.fleet.jobs.session.time.sleep", waited.append)
    job = DeviceJob(fleet.targets()[0], fleet.package, "nonce", "ann@laptop", pace=PACE, opener=fleet.open)
    Conversation(job, Recorder(job.target, nobody), lambda seconds: stopped).wait(1.0)
    assert [round(seconds, 1) for seconds in waited] == [1.0] * stopped

"""After an answer that was lost or not believed the report says what the device says, whoever else has been there.

A host takes back what it began itself; no clock decides anything.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.simulation import Board, Fleet, make_package, with_files

from device_agent.shared.protocol import constants, documents
from device_agent.shared.protocol.documents import HistoryEntry, LockHolder, ReleaseRef
from device_agent.shared.protocol.reports import Problem, TakenBack
from knnkit.errors import DeviceFailed, KnnkitError, ParityFailed, Unreachable
from knnkit.fleet.decide import lost_answer
from knnkit.fleet.decide.lost_answer import Stage
from knnkit.fleet.device.agent_client import AgentProblem
from knnkit.fleet.device.connect import Pace
from knnkit.fleet.jobs.deploy import run_job
from knnkit.fleet.jobs.job import DeviceJob
from knnkit.fleet.report import DeviceReport, Outcome
from knnkit.release.package import Package

OLD, OTHER = make_package("1.0.0", 10), make_package("1.2.0", 12)
PACE = Pace(connect=1.0, retries=0, command=5.0, confirm=60.0)
ANN, BEN = "ann@laptop 1a2b", "ben@desk 3c4d"


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    package = with_files(make_package(), tmp_path, {"model.tflite": 5000, "release.json": 90})
    fleet = Fleet(["board"], package, running=OLD)
    fleet.boards["board"].packages[OTHER.digest] = OTHER
    return fleet


def run(fleet: Fleet, *, holder: str = ANN, pace: Pace = PACE) -> DeviceReport:
    job = DeviceJob(fleet.targets()[0], fleet.package, "nonce", holder, pace=pace, opener=fleet.open)
    return run_job(job, pause=lambda seconds: False)


def meanwhile(fleet: Fleet, command: str, act: Callable[[Board], None]) -> None:
    """Does something to the board right before `command` reaches it, once."""
    done: list[str] = []

    def on_command(name: str, said: str) -> None:
        if said == command and not done:
            done.append(said)
            act(fleet.boards[name])

    fleet.on_command = on_command


def ben_begins(package: Package) -> Callable[[Board], None]:
    return lambda board: board.begin(package.ref, BEN)


def ben_commits(package: Package) -> Callable[[Board], None]:
    def act(board: Board) -> None:
        board.revert("no confirmation within 60 s")
        board.begin(package.ref, BEN)
        board.commit()

    return act


# --- whose activation it is -------------------------------------------------------------------------------------------
def test_another_hosts_activation_of_the_same_release_is_left_and_named(fleet: Fleet) -> None:
    """It came to the device between our question and our look."""
    board = fleet.boards["board"]
    board.faults.add("cut-before-install")
    meanwhile(fleet, "rollback", ben_begins(fleet.package))
    report = run(fleet)
    assert (report.outcome, report.exit_code, report.reason) == (Outcome.LOCKED, 5, "locked")
    assert f"{BEN} activated 1.1.0, which waits" in report.message
    assert "the connection was lost" in report.message
    assert (board.pending, board.pending_holder) == (fleet.package.ref, BEN)
    board.commit()


def test_ones_own_is_taken_back(fleet: Fleet) -> None:
    board = fleet.boards["board"]
    board.faults.add("cut-after-install")
    report = run(fleet)
    assert (report.outcome, report.exit_code, report.reason) == (Outcome.ROLLED_BACK, 1, "connection-lost")
    assert (board.pending, board.known_release) == (None, "1.0.0")
    assert board.became[ANN].why == f"given up by {ANN}"


def test_the_first_release_of_a_board_is_taken_back_to_nothing(fleet: Fleet) -> None:
    board = fleet.boards["board"]
    board.committed, board.staged = None, set()
    board.faults.add("cut-after-install")
    report = run(fleet)
    assert (report.outcome, report.release) == (Outcome.ROLLED_BACK, None)
    assert board.pending is None


# --- what became of it ------------------------------------------------------------------------------------------------
def test_what_another_host_committed_meanwhile_is_not_pushed_one_release_further(fleet: Fleet) -> None:
    board = fleet.boards["board"]
    board.faults.add("cut-after-install")
    meanwhile(fleet, "rollback", ben_commits(fleet.package))
    report = run(fleet)
    assert (report.outcome, report.exit_code) == (Outcome.UNCHANGED, 0)
    assert report.release == fleet.package.ref
    assert report.warnings[-1].endswith("another host has committed the release")
    assert board.known_release == "1.1.0"


def test_an_activation_that_somebody_confirmed_counts_as_committed(fleet: Fleet) -> None:
    fleet.boards["board"].faults.add("cut-after-install")
    meanwhile(fleet, "rollback", Board.commit)
    report = run(fleet)
    assert (report.outcome, report.release, report.exit_code) == (Outcome.COMMITTED, fleet.package.ref, 0)
    assert "the device says that the release was confirmed" in report.warnings[-1]


def test_a_bad_certificate_fails_also_where_it_could_not_be_taken_back_any_more(fleet: Fleet) -> None:
    fleet.boards["board"].faults.add("lies")
    meanwhile(fleet, "rollback", Board.commit)
    report = run(fleet)
    assert (report.outcome, report.exit_code, report.reason) == (Outcome.FAILED, 4, "gate-failed")
    assert "could not be reverted" in report.message
    assert report.release == fleet.package.ref


def test_a_bad_certificate_of_what_was_committed_before_rolls_nothing_back(fleet: Fleet) -> None:
    """Another host committed it between our look and our question."""
    board = fleet.boards["board"]
    board.faults.add("lies")
    meanwhile(fleet, "install", ben_commits(fleet.package))
    report = run(fleet)
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, 4)
    assert board.known_release == "1.1.0"


def test_a_device_that_went_back_by_itself_is_rolled_back_and_says_why(fleet: Fleet) -> None:
    fleet.boards["board"].faults.add("cut-after-install")
    meanwhile(fleet, "rollback", lambda board: board.revert("the board restarted before the confirmation"))
    report = run(fleet)
    assert (report.outcome, report.exit_code) == (Outcome.ROLLED_BACK, 1)
    assert report.message.endswith("the device went back: the board restarted before the confirmation")


def test_a_confirmation_whose_answer_is_lost_to_the_end_is_looked_into(fleet: Fleet) -> None:
    """The board has it; only the answers never came back."""
    board = fleet.boards["board"]

    def cut_each_answer(name: str, command: str) -> None:
        if command == "confirm":
            board.faults.add("cut-after-confirm")

    fleet.on_command = cut_each_answer
    report = run(fleet, pace=replace(PACE, confirm=0.5))
    assert (report.outcome, report.release, report.exit_code) == (Outcome.COMMITTED, fleet.package.ref, 0)


def test_a_confirmation_whose_fate_nobody_can_tell_is_not_said_to_have_reverted(fleet: Fleet) -> None:
    board = fleet.boards["board"]

    def vanish(name: str, command: str) -> None:
        if command == "confirm":
            board.faults |= {"cut-after-confirm", "unreachable"}

    fleet.on_command = vanish
    report = run(fleet, pace=replace(PACE, confirm=0.5))
    assert (report.outcome, report.exit_code) == (Outcome.UNREACHABLE, 3)
    assert "unless the confirmation arrived, the device returns to the previous release within 0.5 s" in report.message
    assert board.known_release == "1.1.0"


def test_a_confirmation_that_never_left_is_said_to_return(fleet: Fleet) -> None:
    board = fleet.boards["board"]
    board.faults |= {f"unreachable-{line}" for line in range(2, 99)}
    report = run(fleet, pace=replace(PACE, confirm=0.5))
    assert (report.outcome, report.exit_code) == (Outcome.UNREACHABLE, 3)
    assert (
        "the release was activated and not confirmed: the device returns to the previous release within 0.5 s"
        in report.message
    )


def test_a_confirmation_waits_for_another_command_on_the_device(fleet: Fleet) -> None:
    """Another host verifies its upload of the same release, and holds the device for longer than a command waits."""
    board = fleet.boards["board"]
    board.faults.add("locked-confirm")

    def passes(name: str, command: str) -> None:
        if board.log.count("3:confirm"):
            board.faults.discard("locked-confirm")

    fleet.on_command = passes
    report = run(fleet)
    assert (report.outcome, report.exit_code) == (Outcome.COMMITTED, 0)


def test_a_confirmation_without_an_answer_is_looked_into(fleet: Fleet) -> None:
    board = fleet.boards["board"]
    board.faults.add("huge-confirm")
    report = run(fleet)
    assert (report.outcome, report.exit_code, report.reason) == (Outcome.ROLLED_BACK, 1, "no-answer")
    assert board.pending is None


def test_a_device_that_is_held_when_it_is_to_be_taken_back_is_not_said_to_be_back(fleet: Fleet) -> None:
    board = fleet.boards["board"]
    board.faults |= {"lies", "locked-rollback"}
    report = run(fleet)
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, 4)
    assert (
        "the release was activated and not confirmed: the device returns to the previous release within 60 s"
        in report.message
    )
    assert "ann@laptop holds this device (deploy)" in report.warnings[-1]
    assert board.pending is not None


def test_a_device_that_talks_nonsense_when_it_is_asked_is_not_said_to_be_as_before(fleet: Fleet) -> None:
    board = fleet.boards["board"]

    def go_mad(name: str, command: str) -> None:
        if command == "confirm":
            board.faults |= {"garbage", "huge-confirm", "huge-rollback"}

    fleet.on_command = go_mad
    report = run(fleet)
    assert (report.outcome, report.exit_code, report.reason) == (Outcome.FAILED, 1, "no-answer")
    assert "unless the confirmation arrived, the device returns to the previous release within 60 s" in report.message
    assert "`rollback` gave no answer" in report.warnings[-1]


def test_a_bad_certificate_from_a_device_that_then_vanishes_is_a_failure_of_the_release(fleet: Fleet) -> None:
    fleet.boards["board"].faults |= {"lies", "unreachable-2"}
    report = run(fleet)
    assert (report.outcome, report.exit_code, report.reason) == (Outcome.FAILED, 4, "gate-failed")
    assert "the device returns to the previous release within 60 s" in report.message


# --- two hosts --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fault", ["cut-before-install", "cut-after-install", "cut-after-confirm"])
def test_two_hosts_with_one_release_both_report_what_is_so(fleet: Fleet, fault: str) -> None:
    """Ben's whole deploy falls into Ann's, whose line breaks once."""
    board = fleet.boards["board"]
    board.faults.add(fault)
    reports: dict[str, DeviceReport] = {}

    def ben(board: Board) -> None:
        fleet.on_command = lambda name, command: None
        reports[BEN] = run(fleet, holder=BEN)

    meanwhile(fleet, "confirm" if fault == "cut-after-confirm" else "rollback", ben)
    reports[ANN] = run(fleet)
    runs = any(report.outcome is Outcome.COMMITTED for report in reports.values())
    assert (board.known_release, board.pending) == ("1.1.0" if runs else "1.0.0", None)
    assert reports[ANN].outcome in (Outcome.COMMITTED, Outcome.UNCHANGED, Outcome.ROLLED_BACK)
    assert reports[BEN].outcome in (Outcome.COMMITTED, Outcome.LOCKED)
    for holder, report in reports.items():
        began = board.became.get(holder)
        if report.outcome is Outcome.COMMITTED:
            assert began is not None
            assert began.what == "confirmed"
        if report.outcome is Outcome.LOCKED:
            assert began is None


def test_an_upload_that_another_host_overtook_goes_on_with_what_that_one_brought(fleet: Fleet) -> None:
    board = fleet.boards["board"]
    board.faults.add("bad-disk")

    def ben(board: Board) -> None:
        board.faults.discard("bad-disk")
        assert run(fleet, holder=BEN).outcome is Outcome.COMMITTED
        board.faults.add("bad-disk")

    meanwhile(fleet, "append", ben)
    report = run(fleet)
    assert (report.outcome, report.release) == (Outcome.UNCHANGED, fleet.package.ref)
    assert "cannot write" in report.warnings[-1]


def test_an_upload_that_meets_another_host_at_work_is_locked_and_waits_if_it_may(fleet: Fleet) -> None:
    board = fleet.boards["board"]
    board.faults.add("bad-disk")
    board.running = BEN
    report = run(fleet)
    assert (report.outcome, report.exit_code) == (Outcome.LOCKED, 5)
    assert f"{BEN} has locked the device" in report.message
    looks = itertools.count()

    def ben_is_done(name: str, command: str) -> None:
        if command == "probe" and next(looks) == 3:
            board.running = ""
            board.staged.add(fleet.package.digest)

    fleet.on_command = ben_is_done
    report = run(fleet, holder="ann@laptop 7f80", pace=replace(PACE, lock=60.0))
    assert (report.outcome, report.release) == (Outcome.COMMITTED, fleet.package.ref)


# --- the judgement alone ----------------------------------------------------------------------------------------------
NEW = make_package().ref
LOST, MUTE, BAD = Unreachable("d: lost", reason="x"), DeviceFailed("d: mute", reason="x"), ParityFailed("d: bad")
ERRORS: tuple[KnnkitError, ...] = (LOST, MUTE, BAD)


def entry(what: str) -> HistoryEntry:
    return HistoryEntry(0, what, NEW, None, "a reason", ANN)


def found(
    became: str | None = None, *, runs: ReleaseRef = OLD.ref, pending: ReleaseRef | None = None, taken: bool = False
) -> TakenBack:
    lock = documents.LockHolder(BEN, "activation", 0, 0) if pending else None
    return TakenBack(taken, entry(became) if became else None, runs, None, pending, lock)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("became", [None, "confirmed", "reverted"])
@pytest.mark.parametrize("runs", [OLD.ref, NEW, OTHER.ref])
@pytest.mark.parametrize("pending", [None, NEW, OTHER.ref])
def test_no_report_claims_what_the_device_does_not_say(
    error: KnnkitError, stage: Stage, became: str | None, runs: ReleaseRef, pending: ReleaseRef | None
) -> None:
    said = lost_answer.judge(error, stage, found(became, runs=runs, pending=pending), NEW.digest, 60.0)
    if said.error is None:
        assert runs == NEW, "only what runs there is a success"
        assert error is not BAD
        assert said.outcome is (Outcome.COMMITTED if became == "confirmed" else Outcome.UNCHANGED)
    elif said.outcome is Outcome.ROLLED_BACK:
        assert runs != NEW
        assert became is not None or stage is not Stage.ASKED, "what was never activated was not rolled back"
    elif said.outcome is Outcome.LOCKED:
        assert pending is not None
        assert BEN in str(said.error)
    elif "returns" in said.more:
        assert error is LOST
        assert (became, stage, pending) == (None, Stage.ASKED, None), "elsewhere the device has said what is so"


@pytest.mark.parametrize(("runs", "named"), [(OTHER.ref, "1.2.0"), (None, "nothing")])
def test_what_was_confirmed_and_is_no_more_is_told_with_what_took_its_place(
    runs: ReleaseRef | None, named: str
) -> None:
    said = lost_answer.judge(LOST, Stage.CONFIRMING, replace(found("confirmed"), committed=runs), NEW.digest, 60.0)
    assert (said.outcome, said.error) == (Outcome.ROLLED_BACK, LOST)
    assert said.more == f"the release was confirmed, and {named} has replaced it since"


def test_what_became_of_another_release_is_no_answer() -> None:
    other = replace(entry("reverted"), release=OTHER.ref)
    said = lost_answer.judge(LOST, Stage.ASKED, replace(found(), became=other), NEW.digest, 60.0)
    assert said.outcome is None
    assert said.more == "if the release was activated, the device returns to the previous release within 60 s"


@pytest.mark.parametrize(
    ("error", "taken", "told"),
    [(LOST, False, "the device went back: a reason"), (LOST, True, ""), (BAD, False, "")],
)
def test_why_a_device_went_back_is_told_where_it_was_not_told_to(error: KnnkitError, taken: bool, told: str) -> None:
    said = lost_answer.judge(error, Stage.ACTIVATED, found("reverted", taken=taken), NEW.digest, 60.0)
    assert (said.outcome, said.error, said.more) == (Outcome.ROLLED_BACK, error, told)


def test_what_waits_without_a_name_is_somebodys() -> None:
    said = lost_answer.judge(LOST, Stage.ASKED, replace(found(pending=NEW), lock=None), NEW.digest, 60.0)
    assert said.outcome is Outcome.LOCKED
    assert "; this run switched nothing; somebody else activated 1.1.0" in str(said.error)
    assert said.error is not None
    assert said.error.hint == "wait, then run again"


def test_a_device_that_cannot_be_reached_is_to_be_asked_again_and_one_that_is_mute_to_be_looked_at() -> None:
    said = lost_answer.unknown(LOST, Stage.ASKED, 60.0)
    assert said.error is not None
    assert (str(said.error), said.error.reason, said.error.hint) == (
        str(LOST), LOST.reason, "run it again when the device can be reached",
    )  # fmt: skip
    assert lost_answer.unknown(MUTE, Stage.ASKED, 60.0).error is MUTE


def test_what_a_device_itself_could_not_do_is_no_lock_though_another_host_waits_there_by_now() -> None:
    """A full disk ended this run's activation before another host began its own: that is what is to be mended."""
    pending, lock = OTHER.ref, LockHolder(BEN, "activation", 0, 0)
    found = TakenBack(False, None, OLD.ref, None, pending, lock)
    full = AgentProblem("board", Problem("disk-full", "no room", "df -h", constants.EXIT_FAILED))
    after = lost_answer.judge(full, Stage.ASKED, found, make_package().digest, 60.0)
    assert (after.outcome, after.error) == (None, full)
    silent = lost_answer.judge(Unreachable("cut"), Stage.ASKED, found, make_package().digest, 60.0)
    assert silent.outcome is Outcome.LOCKED

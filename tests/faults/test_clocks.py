"""Clocks that jump by years, boots that change, hosts that come and go: what answers depends on the boot alone.

The real store and the real state machine, on a clock that a test turns as it likes, against a few lines that say what
ought to hold.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from device_agent.diagnostics.status import render, status
from device_agent.lifecycle import confirm as confirmation
from device_agent.lifecycle import rollback, rollback_own
from device_agent.shared.protocol import documents, json_codec, reports
from device_agent.shared.protocol.documents import ReleaseRef
from device_agent.shared.protocol.errors import ActivationFailed, Locked
from device_agent.shared.protocol.versions import utc
from device_agent.store import history, state, transitions
from device_agent.store.store import Store
from device_agent.system import clock
from device_agent.system.clock import Moment

YEAR = 365 * 24 * 3600
#: What a board may believe the date to be: before 1970, at its start, before and after ours, beyond any calendar.
DATES = st.sampled_from([-(10**9), 0, 1, 2**31 - 1, 2**31, 1_800_000_000, 4 * 10**9, 2**40, 2**53])
HOLDERS = st.sampled_from(["ann", "ben"])
SECONDS = st.sampled_from([0.5, 1.0, 60.0, 3600.0, transitions.MAX_DEADLINE])


@dataclass
class Board:
    """The clocks of one board; `now` stands in for `device_agent.system.clock.now`."""

    boot: int = 0
    up: float = 50.0
    wall: int = 1_800_000_000

    def now(self) -> Moment:
        return Moment(f"boot-{self.boot}", self.up, self.wall)

    def uptime(self) -> float:
        return self.up


def ref(number: int) -> ReleaseRef:
    return ReleaseRef(f"{number:064x}", "fruit", f"1.0.{number}", number)


@dataclass
class Waits:
    """Something that holds until an uptime of one boot."""

    what: Any
    boot: int
    until: float
    holder: str


class Clocks(RuleBasedStateMachine):
    """Every rule does one thing to a board; every invariant looks at the real store."""

    folder: Path
    releases = Bundle("releases")

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(dir=self.folder))
        self.board, self.store = Board(), Store(self.root)
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(clock, "now", self.board.now)
        self.patch.setattr(clock, "uptime", self.board.uptime)
        self.committed: ReleaseRef | None = None
        self.previous: ReleaseRef | None = None
        self.pending: Waits | None = None
        self.became: dict[str, str] = {}  # holder: what became of the last activation that it began
        self.numbers = 0

    def teardown(self) -> None:
        self.patch.undo()
        shutil.rmtree(self.root)

    # --- what ought to hold ---------------------------------------------------------------------------------------
    def holds(self, waits: Waits | None) -> bool:
        return waits is not None and waits.boot == self.board.boot and self.board.up < waits.until

    def answers(self) -> ReleaseRef | None:
        return self.pending.what if self.pending and self.holds(self.pending) else self.committed

    def kept_out(self, holder: str) -> bool:
        return bool(self.pending) and self.holds(self.pending) and self.pending.holder != holder

    def forget(self) -> None:
        """A command that changes something tidies up first."""
        if self.pending and not self.holds(self.pending):
            self.became[self.pending.holder] = "reverted"
            self.pending = None

    # --- the clocks -----------------------------------------------------------------------------------------------
    @rule(wall=DATES)
    def somebody_sets_the_date(self, wall: int) -> None:
        self.board.wall = wall

    @rule(years=st.integers(-40, 40))
    def the_date_jumps_by_years(self, years: int) -> None:
        self.board.wall += years * YEAR

    @rule(seconds=st.sampled_from([0.0, 0.4, 0.5, 59.0, 3600.0, 2 * transitions.MAX_DEADLINE]))
    def time_passes(self, seconds: float) -> None:
        self.board.up += seconds
        self.board.wall += int(seconds)

    @rule(up=st.sampled_from([0.5, 49.0, 51.0, 10_000.0]))
    def the_board_starts_anew(self, up: float) -> None:
        """Nobody may look at it before it has run for longer than before."""
        self.board.boot += 1
        self.board.up = up

    # --- the hosts ------------------------------------------------------------------------------------------------
    @initialize(target=releases)
    def first_release(self) -> ReleaseRef:
        return self.another_release()

    @rule(target=releases)
    def another_release(self) -> ReleaseRef:
        self.numbers += 1
        return ref(self.numbers)

    @rule(release=releases, holder=HOLDERS, seconds=SECONDS)
    def activate(self, release: ReleaseRef, holder: str, seconds: float) -> None:
        with self.store.changing(holder, "activate"):
            self.forget()
            current, moment = self.store.load(), clock.now()
            begin = {"created": release.sequence, "holder": holder, "connection": "", "seconds": seconds}
            if self.kept_out(holder) or self.pending:
                with pytest.raises(Locked) as refused:
                    transitions.begin(current, release, **begin, moment=moment)
                assert "Traceback" not in str(refused.value)
                return
            self.store.commit(transitions.begin(current, release, **begin, moment=moment))
        self.pending = Waits(release, self.board.boot, self.board.up + seconds, holder)
        self.became[holder] = "activated"

    @rule(release=releases)
    def confirm(self, release: ReleaseRef) -> None:
        with self.store.changing("host", "confirm"):
            self.forget()
            if self.committed == release and (self.pending is None or self.pending.what != release):
                assert confirmation.confirm(self.store, release.digest).already
            elif self.pending is None or self.pending.what != release:
                with pytest.raises(ActivationFailed):
                    confirmation.confirm(self.store, release.digest)
            else:
                assert confirmation.confirm(self.store, release.digest).release == release
                self.became[self.pending.holder] = "confirmed"
                self.previous = self.committed or self.previous
                self.committed, self.pending = release, None

    @rule(holder=HOLDERS)
    def give_up(self, holder: str) -> None:
        with self.store.changing(holder, "rollback"):
            self.forget()
            if self.pending is None:
                return
            if self.committed is None:
                with pytest.raises(ActivationFailed):
                    rollback.roll_back(self.store, holder)
            else:
                assert rollback.roll_back(self.store, holder).release == self.committed
            self.became[self.pending.holder] = "reverted"
            self.pending = None

    @rule(holder=HOLDERS)
    def take_back(self, holder: str) -> None:
        """Only what the holder began; it is told what became of that, whoever has been there since."""
        with self.store.changing(holder, "rollback"):
            self.forget()
            found = rollback_own.take_back(self.store, holder)
        mine = self.pending is not None and self.pending.holder == holder
        if mine:
            self.pending = None
            self.became[holder] = "reverted"
        assert found.taken == mine
        assert (found.became.what if found.became else None) == self.became.get(holder)
        assert (found.committed, found.previous) == (self.committed, self.previous)
        assert found.pending == (self.pending.what if self.pending else None)
        assert (found.lock.holder if self.pending and found.lock else None) == (
            self.pending.holder if self.pending else None
        )
        assert json_codec.loads(reports.TakenBack, json_codec.dumps(found)) == found

    @rule()
    def somebody_asks_for_the_status(self) -> None:
        found = status(self.store)
        self.forget()
        answers = self.answers()
        assert found.answering == (answers.digest if answers else None)
        assert found.committed == self.committed
        assert (found.lock.holder if found.lock else None) == (self.pending.holder if self.pending else None)
        assert found.pending is None or (found.lock is not None and found.lock.pid == 0)
        assert found.seconds_left is None or 0.0 < found.seconds_left <= transitions.MAX_DEADLINE
        assert render(found)
        assert json_codec.loads(documents.Status, json_codec.dumps(found)) == found

    # --- what is so after each of them ----------------------------------------------------------------------------
    @invariant()
    def what_answers_is_what_ought_to(self) -> None:
        found = state.answering(self.store.load(), clock.now())
        assert (found.release if found else None) == self.answers()
        assert found is None or (found.until is None) == (found.release == self.committed and not self.waits())
        assert found is None or found.until is None or math.isfinite(found.until)

    def waits(self) -> bool:
        return self.holds(self.pending)

    @invariant()
    def nobody_is_kept_out_by_who_is_gone(self) -> None:
        held = state.waiting(self.store.load(), clock.now())
        due = self.pending if self.holds(self.pending) else None
        assert (held.holder if held else None) == (due.holder if due else None)
        assert held is None or held.deadline - self.board.up <= transitions.MAX_DEADLINE

    @invariant()
    def what_was_committed_stays_and_the_floor_never_falls(self) -> None:
        current = self.store.load()
        assert (current.committed, current.previous) == (self.committed, self.previous)
        assert current.floor >= (self.committed.sequence if self.committed else 0)

    @invariant()
    def each_step_stands_in_the_history_once(self) -> None:
        entries = history.read(self.store.history_file)
        assert [entry.serial for entry in entries if entry.serial] == list(range(1, self.store.load().serial + 1))
        assert all(history.render(entry) for entry in entries)


def test_no_clock_and_no_boot_changes_what_answers_who_holds_or_what_was_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Path("/dev/shm")  # thousands of fsyncs
    Clocks.folder = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else tmp_path))
    try:
        run_state_machine_as_test(
            Clocks,
            settings=settings(
                max_examples=120,
                stateful_step_count=25,
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        shutil.rmtree(Clocks.folder)


@pytest.mark.parametrize("seconds", [-(2**63), -(10**12), -1, 0, 2**31, 2**40, 2**62])
def test_any_date_at_all_can_be_told(seconds: int) -> None:
    assert utc(seconds)


def test_a_boot_id_that_cannot_be_read_any_more_counts_as_another_boot(tmp_path: Path) -> None:
    moment = Moment("boot", 100.0, 0)
    begun = transitions.begin(
        state.StoreState(), ref(1), created=0, holder="ann", connection="", seconds=60.0, moment=moment
    )
    for later in (Moment("", 101.0, 0), Moment("other", 101.0, 0), Moment("boot", 99.0, 0), Moment("boot", 160.0, 0)):
        assert state.answering(begun, later) is None
    assert state.answering(begun, Moment("boot", 159.9, -(10**12))) is not None


def test_an_activation_ends_with_its_boot_also_where_no_boot_id_can_be_read() -> None:
    moment = Moment("", 100.0, 0)
    begun = transitions.begin(
        state.StoreState(), ref(1), created=0, holder="ann", connection="", seconds=60.0, moment=moment
    )
    for uptime, holds in ((99.9, False), (100.0, True), (159.9, True), (160.0, False)):
        assert (state.waiting(begun, Moment("", uptime, 0)) is not None) is holds

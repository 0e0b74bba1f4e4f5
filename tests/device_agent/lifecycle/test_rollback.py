"""What `rollback --own` and `confirm` answer, in this process: the state first, then what the history still knows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent.lifecycle import confirm, rollback_own
from device_agent.shared.protocol.documents import HistoryEntry, ReleaseRef
from device_agent.shared.protocol.errors import ActivationFailed
from device_agent.store import history, transitions
from device_agent.store.store import Store
from device_agent.system import clock

ONE, TWO = (ReleaseRef(f"{number:064x}", "fruit", f"1.0.{number}", number) for number in (1, 2))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A locked device on which nothing was ever stored."""
    mask = os.umask(0o077)
    made = Store(tmp_path / "root")
    with made.changing("ann", "a test"):
        yield made
    os.umask(mask)


def begin(store: Store, release: ReleaseRef, holder: str, connection: str = "") -> None:
    now = clock.now()
    store.commit(
        transitions.begin(
            store.load(), release, created=0, holder=holder, connection=connection, seconds=600.0, moment=now
        )
    )


def end(store: Store, release: ReleaseRef, holder: str) -> None:
    """A whole deployment."""
    begin(store, release, holder)
    confirm.confirm(store, release.digest)


# --- taking back ------------------------------------------------------------------------------------------------------
def test_all_that_is_so_stands_in_the_answer(store: Store) -> None:
    end(store, ONE, "ann")
    end(store, TWO, "ben")
    begin(store, ONE, "eve")
    before = store.load()
    for holder, what in (("ann", "confirmed"), ("ben", "confirmed"), ("eve", "activated")):
        if holder != "eve":
            found = rollback_own.take_back(store, holder)
            assert (found.taken, found.committed, found.previous, found.pending) == (False, TWO, ONE, ONE)
            assert found.became is not None
            assert (found.became.what, found.became.holder) == (what, holder)
            assert found.lock is not None
            assert found.lock.holder == "eve"
            assert store.load() == before
    found = rollback_own.take_back(store, "eve")
    assert (found.taken, found.committed, found.previous, found.pending, found.lock) == (True, TWO, ONE, None, None)
    assert found.became is not None
    assert (found.became.what, found.became.why, found.became.release) == ("reverted", "given up by eve", ONE)
    assert store.load().pending is None


def test_of_a_holders_steps_the_last_counts_also_without_a_history(store: Store) -> None:
    begin(store, ONE, "ann")
    rollback_own.take_back(store, "ann")
    end(store, TWO, "ann")
    for known in (True, False):
        if not known:
            store.history_file.unlink()
            store.history_file.mkdir()
        found = rollback_own.take_back(store, "ann")
        assert found.became is not None
        assert (found.became.what, found.became.release) == ("confirmed", TWO)


def test_what_is_no_step_of_an_activation_is_passed_over(store: Store) -> None:
    """What somebody stages, or has rolled back, says nothing of what he began."""
    end(store, ONE, "ann")
    end(store, TWO, "ben")
    history.add(store.history_file, HistoryEntry(0, "staged", TWO, ONE, "", "ann"))
    store.commit(transitions.roll_back(store.load(), "ann", clock.now()))
    found = rollback_own.take_back(store, "ann")
    assert found.became is not None
    assert (found.became.what, found.became.release) == ("confirmed", ONE)
    assert rollback_own.take_back(store, "eve").became is None


# --- the answer in words ----------------------------------------------------------------------------------------------
def test_a_person_reads_what_was_done_and_who_waits(store: Store) -> None:
    def said(holder: str) -> list[str]:
        return rollback_own.render(rollback_own.take_back(store, holder), holder).splitlines()

    assert said("ann") == ["ann has not activated a release here; nothing was done"]
    begin(store, ONE, "ann")
    nothing, waits = said("ben")
    assert nothing == "ben has not activated a release here; nothing was done"
    assert waits.startswith("ann holds this device: activation of fruit 1.0.1")
    assert said("ann") == ["the last activation by ann: reverted now"]
    (again,) = said("ann")
    assert again.startswith("the last activation by ann: reverted at ")
    assert again.endswith("; nothing was done (given up by ann)")
    end(store, TWO, "ben")
    (kept,) = said("ben")
    assert kept.startswith("the last activation by ben: confirmed at ")
    assert kept.endswith("; nothing was done")


# --- confirming -------------------------------------------------------------------------------------------------------
def test_a_confirmation_commits_once_and_says_what_was_before(store: Store) -> None:
    end(store, ONE, "ann")
    begin(store, TWO, "ann")
    done = confirm.confirm(store, TWO.digest)
    assert (done.release, done.previous, done.already) == (TWO, ONE, False)
    again = confirm.confirm(store, TWO.digest)
    assert (again.release, again.previous, again.already) == (TWO, ONE, True)
    begin(store, ONE, "ben")  # what waits by now is another's
    assert confirm.confirm(store, TWO.digest).already
    rollback_own.take_back(store, "ben")
    with pytest.raises(ActivationFailed):
        confirm.confirm(store, ONE.digest)


def test_what_is_committed_and_waits_again_is_confirmed_anew(store: Store) -> None:
    """As where a device is to try once more what it runs."""
    end(store, ONE, "ann")
    begin(store, ONE, "ben")
    assert not confirm.confirm(store, ONE.digest).already
    assert store.load().pending is None


def test_the_connection_is_that_of_the_command(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.1 40000 192.0.2.2 22")
    begin(store, ONE, "ann", confirm.connection())
    with pytest.raises(ActivationFailed) as caught:
        confirm.confirm(store, ONE.digest)
    assert caught.value.reason == "same-connection"
    monkeypatch.delenv("SSH_CONNECTION")
    assert confirm.connection() == ""
    assert not confirm.confirm(store, ONE.digest).already

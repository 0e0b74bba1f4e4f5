"""Each transition of the store changes what it says, and nothing else: pure functions, no disk, no clock."""

from __future__ import annotations

from typing import Any

import pytest

from device_agent.shared.protocol.documents import ReleaseRef
from device_agent.shared.protocol.errors import ActivationFailed, AgentError, Locked
from device_agent.shared.protocol.record import replace
from device_agent.store import transitions
from device_agent.store.state import StoreState, why_left
from device_agent.store.transitions import MAX_DEADLINE
from device_agent.system.clock import Moment

NOW = Moment("boot", 100.0, 5000)


def ref(number: int) -> ReleaseRef:
    return ReleaseRef(f"{number:064x}", "fruit", f"1.0.{number}", number)


#: A device that has committed release 5, after 4.
BEFORE = StoreState(
    committed=ref(5),
    previous=ref(4),
    left=ref(3),
    floor=5,
    floor_digest=ref(5).digest,
    time_floor=1000,
)


def begun(
    number: int = 6, *, created: int = 1006, connection: str = "first", before: StoreState = BEFORE
) -> StoreState:
    return transitions.begin(
        before, ref(number), created=created, holder="ann", connection=connection, seconds=60.0, moment=NOW
    )


def confirmed(waiting: StoreState, number: int = 6, connection: str = "second") -> StoreState:
    return transitions.confirm(waiting, ref(number).digest, connection=connection, moment=NOW)


def changed(before: StoreState, after: StoreState) -> dict[str, Any]:
    names = set(vars(before)) - {"event"}
    return {name: getattr(after, name) for name in names if getattr(after, name) != getattr(before, name)}


def test_an_activation_commits_nothing() -> None:
    after = begun()
    assert set(changed(BEFORE, after)) == {"pending"}
    assert after.event is not None
    assert (after.event.what, after.event.release, after.event.answering) == ("activated", ref(6), ref(6))
    with pytest.raises(Locked, match="waits for confirmation"):
        begun(7, before=after)


def test_a_confirmation_commits_and_raises_the_floors() -> None:
    waiting = begun()
    assert changed(waiting, confirmed(waiting)) == {
        "committed": ref(6),
        "previous": ref(5),
        "pending": None,
        "left": None,
        "floor": 6,
        "floor_digest": ref(6).digest,
        "time_floor": 1006,
    }


def test_no_floor_ever_falls() -> None:
    after = confirmed(begun(2, created=900), 2)
    assert (after.floor, after.floor_digest, after.time_floor) == (5, ref(5).digest, 1000)
    assert after.committed == ref(2)


def test_the_number_of_the_floor_is_for_the_release_that_was_committed_last_under_it() -> None:
    other = ReleaseRef("e" * 64, "fruit", "1.0.5", 5)
    waiting = transitions.begin(BEFORE, other, created=0, holder="ann", connection="", seconds=60.0, moment=NOW)
    after = transitions.confirm(waiting, other.digest, connection="", moment=NOW)
    assert (after.floor, after.floor_digest) == (5, other.digest)


def test_the_connection_that_activated_cannot_confirm_and_without_one_there_is_nothing_to_compare() -> None:
    with pytest.raises(ActivationFailed) as caught:
        confirmed(begun(), connection="first")
    assert caught.value.reason == "same-connection"
    assert confirmed(begun(connection=""), connection="").committed == ref(6)


def test_a_confirmation_that_comes_to_nothing_says_whether_there_was_anything_to_confirm() -> None:
    over = replace(NOW, uptime=160.0)
    given_up = transitions.revert(begun(), "given up by ben", NOW)
    for state, moment, why in ((begun(), over, ""), (given_up, NOW, " (given up by ben)")):
        with pytest.raises(ActivationFailed) as caught:
            transitions.confirm(state, ref(6).digest, connection="", moment=moment)
        assert caught.value.reason == "rolled-back"
        assert str(caught.value).endswith(f"so the previous release answers{why}")
    # Over for one release, for another there never was anything.
    other = replace(begun(), event=given_up.event)
    for state, number in ((begun(), 7), (given_up, 7), (confirmed(begun()), 6), (StoreState(), 6), (other, 7)):
        with pytest.raises(ActivationFailed) as caught:
            transitions.confirm(state, ref(number).digest, connection="", moment=NOW)
        assert caught.value.reason == "not-pending"
        assert ref(number).digest[:12] in str(caught.value)


def test_what_waits_past_another_return_is_too_late_without_its_reason() -> None:
    """The event of the state is of another release: its reason is not ours."""
    late = replace(begun(), event=transitions.revert(begun(7), "given up by ben", NOW).event)
    with pytest.raises(ActivationFailed) as caught:
        transitions.confirm(late, ref(6).digest, connection="", moment=replace(NOW, uptime=160.0))
    assert caught.value.reason == "rolled-back"
    assert "ben" not in str(caught.value)


@pytest.mark.parametrize(
    ("ask", "reason", "hint"),
    [
        (lambda: begun(7, before=begun()), "locked", "cancel it: python -m device_agent rollback"),
        (lambda: confirmed(begun(), connection="first"), "same-connection", "connect again, then confirm"),
        (lambda: confirmed(BEFORE, 9), "not-pending", f"python -m device_agent activate {ref(9).digest[:12]}"),
        (
            lambda: confirmed(transitions.revert(begun(), "", NOW)),
            "rolled-back",
            "knnkit deploy --confirm-within 5m --target HOST",
        ),
        (lambda: transitions.roll_back(StoreState(), "ann", NOW), "no-previous", "knnkit deploy --target HOST"),
        (lambda: transitions.checked_deadline(0.0), None, "--deadline 60"),
    ],
)
def test_each_refusal_has_its_reason_and_says_what_to_type(ask: Any, reason: str | None, hint: str) -> None:
    with pytest.raises(AgentError) as caught:
        ask()
    assert reason in (None, caught.value.reason)
    assert (caught.value.hint or "").endswith(hint)
    nothing = transitions.nothing_left()
    assert (nothing.reason, nothing.hint) == ("no-release", "deploy a release: knnkit deploy --target HOST")


def test_whoever_is_kept_out_is_told_by_whom_how_long_and_how_to_end_it() -> None:
    with pytest.raises(Locked) as caught:
        transitions.refuse_foreign(begun(), "ben", replace(NOW, uptime=100.5))
    assert str(caught.value).startswith("ann holds this device since ")
    assert "(activation of fruit 1.0.6, not yet confirmed), for at most 60 s more" in str(caught.value)
    assert (caught.value.hint or "").endswith("python -m device_agent rollback")


def test_a_return_by_itself_leaves_all_as_it_was_before_the_activation() -> None:
    after = transitions.revert(begun(), "no word", NOW)
    assert changed(BEFORE, after) == {}
    assert after.event is not None
    assert (after.event.what, after.event.release, after.event.answering) == ("reverted", ref(6), ref(5))
    assert transitions.revert(BEFORE, "nothing waits", NOW) == BEFORE
    first = transitions.revert(begun(before=StoreState()), "no word", NOW)
    assert first.event is not None
    assert (first.committed, first.event.answering) == (None, None)


def test_a_rollback_goes_back_once_and_lowers_nothing() -> None:
    after = transitions.roll_back(BEFORE, "ann", NOW)
    assert changed(BEFORE, after) == {"committed": ref(4), "previous": None, "left": ref(5)}
    with pytest.raises(ActivationFailed, match="no previous release"):
        transitions.roll_back(after, "ann", NOW)


@pytest.mark.parametrize("back", ["revert", "roll_back"])
def test_after_a_return_there_is_nothing_to_leave_unless_it_is_named(back: str) -> None:
    after = transitions.revert(begun(), "", NOW) if back == "revert" else transitions.roll_back(BEFORE, "ann", NOW)
    assert after.committed is not None
    assert not transitions.is_to_leave(after, None)
    assert transitions.is_to_leave(after, after.committed.digest)
    assert not transitions.is_to_leave(after, ref(9).digest)
    assert transitions.is_to_leave(BEFORE, None)
    assert transitions.is_to_leave(confirmed(begun()), None)
    assert not transitions.is_to_leave(StoreState(), ref(5).digest)
    assert transitions.is_to_leave(begun(), None)
    # What somebody else activates meanwhile is not given up for one that waits behind it.
    assert not transitions.is_to_leave(begun(), ref(5).digest)
    assert transitions.is_to_leave(begun(), ref(6).digest)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf"), MAX_DEADLINE * 1.001])
def test_how_long_an_activation_may_wait_has_its_limits(seconds: float) -> None:
    with pytest.raises(AgentError, match="--deadline"):
        transitions.checked_deadline(seconds)
    for fine in (0.001, 60.0, MAX_DEADLINE, 24.0 * 3600.0):
        assert transitions.checked_deadline(fine) == fine


def test_an_activation_keeps_others_out_until_its_deadline() -> None:
    for refused in (
        lambda: transitions.refuse_foreign(begun(), "ben", NOW),
        lambda: transitions.begin(begun(), ref(7), created=0, holder="ben", connection="", seconds=60.0, moment=NOW),
    ):
        with pytest.raises(Locked, match="ann holds this device"):
            refused()
    transitions.refuse_foreign(begun(), "ann", NOW)
    for later in (replace(NOW, boot="another"), replace(NOW, uptime=160.0)):
        transitions.refuse_foreign(begun(), "ben", later)


def test_every_transition_counts() -> None:
    waiting = begun()
    assert [one.serial for one in (BEFORE, waiting, confirmed(waiting))] == [0, 1, 2]


def test_a_release_whose_starts_never_answer_is_left_for_the_one_before() -> None:
    after = transitions.leave_failing(BEFORE, ref(5).digest, 3, NOW)
    assert changed(BEFORE, after) == {"committed": ref(4), "previous": None, "left": ref(5)}
    assert after.event is not None
    assert (after.event.what, after.event.release, after.event.answering) == ("rolled-back", ref(5), ref(4))
    assert why_left(after) == f"fruit 1.0.5 ({ref(5).digest[:12]}) did not start: {after.event.why}"
    assert not why_left(begun(7, before=after))


@pytest.mark.parametrize(
    "state", [StoreState(), replace(BEFORE, previous=None), replace(BEFORE, committed=ref(9)), begun(6)]
)
def test_nothing_else_is_left_for_starts_that_never_answer(state: StoreState) -> None:
    assert transitions.leave_failing(state, ref(5).digest, 3, NOW) == state

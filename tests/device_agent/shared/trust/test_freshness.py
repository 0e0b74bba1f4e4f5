"""The checklist "Freshness": only forward, only for this device, and never without a model."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import forge
from support.forge import NOW, fingerprint

from device_agent.shared.protocol import constants, versions
from device_agent.shared.protocol.errors import Refused
from device_agent.shared.protocol.versions import utc
from device_agent.shared.release import directory as release_files
from device_agent.shared.trust import rules
from device_agent.shared.trust.reasons import Reason
from device_agent.shared.trust.rules import AGENT_EPOCH, CLOCK_SLACK, MAX_AHEAD

YEAR = 365 * 24 * 3600


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "release"


def refuses(
    reason: Reason, release: Path, known: rules.TrustState | None = None, now: int = NOW, **options: str
) -> None:
    with pytest.raises(Refused) as caught:
        forge.verify(release, known, now, **options)
    assert caught.value.reason == reason.value
    assert caught.value.exit_code == constants.EXIT_REFUSED


def keeps(release: Path, known: rules.TrustState, now: int = NOW) -> rules.Verdict:
    with release_files.open_release(release) as opened:
        return opened.verify_accepted(_digest(release), known, now=now)


# --- sequence -----------------------------------------------------------------------------------------------------
def test_an_older_sequence_is_refused_also_with_a_valid_signature(directory: Path) -> None:
    release = forge.write(directory, sequence=999)
    refuses(Reason.OLDER_SEQUENCE, release, forge.state(floor=1000))


def test_the_same_sequence_with_other_contents_is_refused(directory: Path) -> None:
    release = forge.write(directory, sequence=1000)
    refuses(Reason.SAME_SEQUENCE, release, forge.state(floor=1000))


def test_a_newer_sequence_is_accepted_and_raises_the_floor_only_in_the_verdict(directory: Path) -> None:
    release = forge.write(directory, sequence=1001)
    known = forge.state(floor=1000)
    assert forge.verify(release, known).floor == 1001
    assert known.floor == 1000


def test_the_release_that_runs_is_a_no_op_whatever_its_age_and_key(directory: Path) -> None:
    release = forge.write(directory, sequence=1000, expires=NOW - 1)
    known = forge.state(floor=5000, committed_digest=_digest(release), revoked=frozenset({fingerprint()}), name="other")
    verdict = forge.verify(release, known)
    assert verdict.already_committed
    assert verdict.floor == 5000
    assert [warning.partition(":")[0] for warning in verdict.warnings] == ["revoked-key", "expired"]


def _digest(release: Path) -> str:
    return forge.verify(release, forge.state(floor=0, time_floor=0), now=0).digest


def test_the_newest_release_may_come_back_after_a_rollback(directory: Path) -> None:
    release = forge.write(directory, sequence=1000)
    known = forge.state(floor=1000, floor_digest=_digest(release), committed_digest="0" * 64)
    assert not forge.verify(release, known).already_committed


@pytest.mark.parametrize("sequence", [NOW + MAX_AHEAD + 1, 2**53, 2**63 - 1])
def test_a_huge_sequence_is_refused(directory: Path, sequence: int) -> None:
    refuses(Reason.SEQUENCE_TOO_FAR, forge.write(directory, sequence=sequence))


def test_after_the_farthest_jump_there_is_always_a_next_release(tmp_path: Path) -> None:
    first = forge.write(tmp_path / "jump", sequence=NOW + MAX_AHEAD)
    floor = forge.verify(first).floor
    following = forge.write(tmp_path / "next", sequence=floor + 1)
    assert forge.verify(following, forge.state(floor=floor)).floor == floor + 1


def test_a_fresh_board_at_1970_takes_a_release_of_today(directory: Path) -> None:
    release = forge.write(directory, sequence=NOW, created=NOW)
    assert forge.verify(release, rules.TrustState(keys=forge.keys()), now=0).floor == NOW


def test_a_release_from_far_in_the_future_is_refused(directory: Path) -> None:
    refuses(Reason.CREATED_TOO_FAR, forge.write(directory, created=NOW + MAX_AHEAD + 1))


def test_how_far_ahead_a_release_lies_counts_from_what_was_committed_where_the_clock_is_behind(tmp_path: Path) -> None:
    later = AGENT_EPOCH + 2 * MAX_AHEAD
    known = forge.state(floor=5, time_floor=later)
    for number, now in enumerate((0, NOW)):
        release = forge.write(tmp_path / f"good-{number}", sequence=later + MAX_AHEAD, created=later + MAX_AHEAD)
        assert forge.verify(release, known, now=now).floor == later + MAX_AHEAD
        too_far = forge.write(tmp_path / f"far-{number}", sequence=later + MAX_AHEAD + 1, created=later)
        refuses(Reason.SEQUENCE_TOO_FAR, too_far, known, now=now)
        too_new = forge.write(tmp_path / f"new-{number}", sequence=later, created=later + MAX_AHEAD + 1)
        refuses(Reason.CREATED_TOO_FAR, too_new, known, now=now)


# --- expiry and the clock -----------------------------------------------------------------------------------------
def test_an_expired_release_is_not_activated(directory: Path) -> None:
    refuses(Reason.EXPIRED, forge.write(directory, expires=NOW))


def test_a_release_is_good_until_the_second_it_expires(directory: Path) -> None:
    assert forge.verify(forge.write(directory, expires=NOW + 1)).warnings == ()


def test_an_expired_release_that_runs_goes_on_with_a_warning(directory: Path) -> None:
    release = forge.write(directory, expires=NOW - 5)
    verdict = keeps(release, forge.state(committed_digest=_digest(release)))
    assert verdict.warnings == (f"expired: the running release expired at {utc(NOW - 5)}",)


def test_a_clock_at_1970_warns_and_does_not_brick(directory: Path) -> None:
    verdict = forge.verify(forge.write(directory), forge.state(), now=0)
    assert [warning.partition(":")[0] for warning in verdict.warnings] == ["clock-behind"]


def test_a_clock_at_1970_does_not_bring_an_expired_release_back(directory: Path) -> None:
    release = forge.write(directory, expires=NOW - 500)
    refuses(Reason.EXPIRED, release, forge.state(time_floor=NOW), now=0)


def test_a_clock_behind_what_was_committed_is_told_also_where_the_release_is_older(directory: Path) -> None:
    verdict = forge.verify(forge.write(directory), forge.state(time_floor=NOW + 1))
    assert verdict.warnings == (f"clock-behind: the clock says {utc(NOW)}, but the time is at least {utc(NOW + 1)}",)


def test_the_time_floor_never_falls(directory: Path) -> None:
    release = forge.write(directory, created=1000)
    assert forge.verify(release, forge.state(time_floor=NOW), now=0).time_floor == NOW


def test_a_committed_release_raises_the_time_floor_of_a_board_without_a_clock(directory: Path) -> None:
    release = forge.write(directory, created=NOW - 7)
    assert forge.verify(release, forge.state(time_floor=0), now=0).time_floor == NOW - 7


def test_a_date_in_the_future_does_not_push_the_time_floor_past_a_sane_clock(directory: Path) -> None:
    release = forge.write(directory, created=NOW + YEAR)
    assert forge.verify(release).time_floor == NOW


def test_a_clock_behind_what_was_committed_does_not_hold_the_time_floor_back(directory: Path) -> None:
    release = forge.write(directory, created=NOW + YEAR)
    assert forge.verify(release, forge.state(time_floor=NOW + 7), now=NOW).time_floor == NOW + YEAR


def test_a_clock_in_the_far_future_pushes_nothing(directory: Path) -> None:
    release = forge.write(directory)
    assert forge.verify(release, now=NOW + 70 * YEAR).time_floor == forge.MANIFEST.created


def test_a_clock_a_little_behind_is_no_warning(directory: Path) -> None:
    release = forge.write(directory)
    created = forge.MANIFEST.created
    assert forge.verify(release, forge.state(time_floor=0), now=created - CLOCK_SLACK).warnings == ()
    assert forge.verify(release, forge.state(time_floor=0), now=created - CLOCK_SLACK - 1).warnings != ()


def test_the_agents_epoch_is_in_the_past_of_every_release() -> None:
    assert forge.MANIFEST.created > AGENT_EPOCH


# --- for this device ----------------------------------------------------------------------------------------------
def test_a_release_of_another_model_is_refused(directory: Path) -> None:
    refuses(Reason.WRONG_NAME, forge.write(directory, name="vegetable"))


def test_a_device_that_has_no_model_yet_takes_any_name(directory: Path) -> None:
    assert forge.verify(forge.write(directory, name="vegetable"), forge.state(name=None)).manifest.name == "vegetable"


def test_a_release_for_another_device_class_is_refused(directory: Path) -> None:
    refuses(Reason.WRONG_DEVICE_CLASS, forge.write(directory, device_class="freezer"))


@pytest.mark.parametrize("device_class", ["any", "greenhouse"])
def test_a_release_for_this_class_or_any_is_accepted(directory: Path, device_class: str) -> None:
    assert forge.verify(forge.write(directory, device_class=device_class)).manifest.device_class == device_class


def test_a_release_that_needs_a_newer_agent_is_refused(directory: Path) -> None:
    refuses(Reason.AGENT_TOO_OLD, forge.write(directory, minimum_agent="0.2.0"))


def test_a_release_that_needs_a_newer_runtime_is_refused(directory: Path) -> None:
    refuses(Reason.RUNTIME_TOO_OLD, forge.write(directory, minimum_runtime="2.15"))


def test_ai_edge_litert_counts_from_one_and_is_newer_than_every_tflite_runtime(directory: Path) -> None:
    release = forge.write(directory, minimum_runtime="2.15")
    assert forge.verify(release, forge.state(runtime_version="ai_edge_litert 1.0.1"))


@pytest.mark.parametrize(
    ("have", "need", "enough"),
    [
        ("0.1.0", "0.1", True),
        ("0.1", "0.1.0", True),
        ("0.10.0", "0.9.9", True),
        ("0.9.9", "0.10", False),
        ("1.0.0rc1", "1.0.0", True),
        ("2.14.0", "2.14.1", False),
    ],
)
def test_versions_are_compared_as_numbers(directory: Path, have: str, need: str, enough: bool) -> None:
    release = forge.write(directory, minimum_agent=need)
    known = forge.state(agent_version=have)
    if enough:
        assert forge.verify(release, known)
    else:
        refuses(Reason.AGENT_TOO_OLD, release, known)


@pytest.mark.parametrize("text", ["", "v1", "1.", "1..2", "1.2.3.4.5.6", "1" * 10, "1.0 ", "١.٢"])
def test_what_is_no_version_is_none(text: str) -> None:
    assert versions.parse(text) is None


# --- what runs, and the way back ----------------------------------------------------------------------------------
def test_the_release_that_runs_outlives_its_key(directory: Path) -> None:
    release = forge.write(directory)
    verdict = keeps(release, forge.state(revoked=frozenset({fingerprint()})))
    assert verdict.warnings == (
        f"revoked-key: the running release was signed by {fingerprint()}, which has been revoked",
    )


def test_an_automatic_return_goes_under_the_floor(directory: Path) -> None:
    release = forge.write(directory, sequence=5)
    assert keeps(release, forge.state(floor=NOW)).floor == NOW


def test_a_start_checks_every_byte_again(directory: Path) -> None:
    release = forge.write(directory)
    digest = _digest(release)
    for name in constants.SIGNED_FILES:
        forge.flip(release / name, 10)
        with release_files.open_release(release) as opened, pytest.raises(Refused) as caught:
            opened.verify_accepted(digest, forge.state(), now=NOW)
        assert caught.value.reason == Reason.FILE_CHANGED.value
        forge.flip(release / name, 10)


def test_a_start_refuses_another_release_in_the_place_of_the_committed_one(tmp_path: Path) -> None:
    committed = forge.write(tmp_path / "committed")
    older = forge.write(tmp_path / "older", sequence=3)
    with release_files.open_release(older) as opened, pytest.raises(Refused) as caught:
        opened.verify_accepted(_digest(committed), forge.state(), now=NOW)
    assert caught.value.reason == Reason.OTHER_RELEASE.value


def test_a_start_refuses_a_key_that_the_device_never_knew(directory: Path) -> None:
    release = forge.write(directory)
    forge.sign(release, by="stranger")
    with release_files.open_release(release) as opened, pytest.raises(Refused) as caught:
        opened.verify_accepted("0" * 64, forge.state(), now=NOW)
    assert caught.value.reason == Reason.UNKNOWN_KEY.value


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "1970-01-01T00:00:00Z"), (1_767_225_600, "2026-01-01T00:00:00Z"), (2**62, f"{2**62} seconds after 1970")],
)
def test_a_date_is_told_as_people_read_it_also_one_that_no_calendar_reaches(seconds: int, said: str) -> None:
    assert utc(seconds) == said

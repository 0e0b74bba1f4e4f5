"""Who goes when, and when a rollout stops."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knnkit.fleet.report import DeviceReport, Outcome
from knnkit.fleet.rollout import waves
from knnkit.fleet.targets import Target


def fleet(count: int, canaries: int = 0) -> list[Target]:
    return [Target(f"d{i}", None, tags=("canary",) if i < canaries else ()) for i in range(count)]


def sizes(count: int, labels: list[int | str], canaries: int = 0) -> list[int]:
    found, _ = waves.divide(fleet(count, canaries), labels)
    return [len(wave.devices) for wave in found]


def test_canaries_then_a_quarter_of_the_whole_then_the_rest() -> None:
    assert sizes(20, ["canary", "25%", "100%"], canaries=2) == [2, 3, 15]


@pytest.mark.parametrize(
    ("count", "labels", "expected"),
    [
        (10, ["100%"], [10]),
        (10, [1, 5, "100%"], [1, 4, 5]),
        (3, ["1%", "100%"], [1, 2]),
        (10, ["50%", "25%", "100%"], [5, 5]),
        (10, ["canary", "100%"], [10]),
        (1, ["canary", "25%", "100%"], [1]),
        (7, [100], [7]),
    ],
)
def test_shares_and_counts_are_of_the_fleet_so_far_and_empty_waves_vanish(
    count: int, labels: list[int | str], expected: list[int]
) -> None:
    assert sizes(count, labels) == expected


def test_what_no_wave_takes_is_named() -> None:
    found, left = waves.divide(fleet(4, canaries=1), ["canary", "50%"])
    assert [wave.devices for wave in found] == [("d0",), ("d1",)]
    assert left == ("d2", "d3")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(0, 60),
    st.integers(0, 60),
    st.lists(st.one_of(st.integers(1, 70), st.integers(0, 100).map("{}%".format), st.just("canary")), max_size=6),
)
def test_every_device_goes_at_most_once_and_none_is_lost(count: int, canaries: int, labels: list[int | str]) -> None:
    targets = fleet(count, canaries)
    found, left = waves.divide(targets, labels)
    went = [name for wave in found for name in wave.devices]
    assert sorted([*went, *left]) == sorted(target.name for target in targets)
    assert len(set(went)) == len(went)
    if "100%" in labels:
        assert left == ()


@pytest.mark.parametrize(
    ("said", "total", "expected"), [(0, 10, 0), (3, 10, 3), (99, 10, 10), ("10%", 50, 5), ("10%", 9, 0)]
)
def test_the_budget_is_a_count_or_a_share_rounded_down(said: int | str, total: int, expected: int) -> None:
    assert waves.allowed(said, total) == expected


def done(*outcomes: Outcome) -> list[DeviceReport]:
    return [DeviceReport(f"d{i}", "", outcome) for i, outcome in enumerate(outcomes)]


def test_failed_and_rolled_back_spend_the_budget_and_nothing_else_does() -> None:
    free = done(Outcome.UNREACHABLE, Outcome.LOCKED, Outcome.SKIPPED, Outcome.COMMITTED, Outcome.UNCHANGED)
    assert waves.overspent(free, 0, proving=False) == ""
    assert waves.overspent(done(Outcome.FAILED, Outcome.ROLLED_BACK), 2, proving=False) == ""
    failed = done(Outcome.FAILED, Outcome.ROLLED_BACK)
    assert waves.overspent(failed, 1, proving=False) == "2 devices failed; 1 may fail"


def test_the_first_of_several_waves_must_be_flawless_whatever_the_budget() -> None:
    assert "d0 failed in the first wave" in waves.overspent(done(Outcome.FAILED), 10, proving=True)
    assert waves.overspent(done(*[Outcome.FAILED] * 3), 9, proving=True) == "d0 and 2 more failed in the first wave"


def test_a_first_wave_that_nobody_could_take_proves_nothing() -> None:
    assert waves.unproven(done(Outcome.UNREACHABLE, Outcome.LOCKED)) != ""
    assert waves.unproven(done(Outcome.UNREACHABLE, Outcome.COMMITTED)) == ""

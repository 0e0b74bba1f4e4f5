"""`knnkit deploy --dry-run` shows the rollout: which device goes when, what would be done there, who is left out."""

from __future__ import annotations

import pytest

from device_agent.shared.protocol.documents import ReleaseRef
from knnkit.commands import _dry_run
from knnkit.fleet.decide.plan import DevicePlan, PlanStep
from knnkit.fleet.report import DeviceReport, FleetReport, Outcome
from knnkit.fleet.rollout.waves import Wave

OLD, NEW = ReleaseRef("a" * 64, "fruit", "1.0", 1), ReleaseRef("b" * 64, "fruit", "1.1", 2)


def plan(name: str) -> DevicePlan:
    return DevicePlan(name, NEW, OLD, (PlanStep("activate", "instead of 1.0, after the golden check"),))


def shown(capsys: pytest.CaptureFixture[str], found: tuple[Wave, ...], left: tuple[str, ...] = ()) -> str:
    gone = DeviceReport("gone", "pi@gone", Outcome.UNREACHABLE, 3, message="nothing listens there", hint="is it on?")
    answered = [DeviceReport(name, f"pi@{name}", Outcome.ANSWERED, 0, details="{}") for name in ("roof", "shed")]
    _dry_run.show(found, left, [plan("roof"), plan("shed")], FleetReport("deploy", 0.0, 1.0, (*answered, gone)))
    return capsys.readouterr().out


def test_each_device_stands_in_its_wave_whatever_became_of_the_question(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, (Wave("canary", ("shed",)), Wave("100%", ("roof", "gone"))))
    assert [line.split(":")[0] for line in out.splitlines() if not line.startswith(" ")] == [
        "wave 1 of 2 (canary)",
        "shed",
        "wave 2 of 2 (100%)",
        "roof",
        "gone",
    ]
    assert "gone: unreachable: nothing listens there\n  try: is it on?" in out


def test_one_wave_needs_no_line_and_who_is_left_out_has_one(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, (Wave("50%", ("roof",)),), left=("shed", "gone"))
    assert out.startswith("roof: fruit 1.0 (aaaaaaaa) -> fruit 1.1 (bbbbbbbb)\n  activate ")
    assert out.endswith("shed: no wave contains it\ngone: no wave contains it\n")

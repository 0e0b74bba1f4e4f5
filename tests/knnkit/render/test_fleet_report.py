"""A fleet's report, as people see it: every outcome in its own words, and no false comfort."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from support import pages

from device_agent.shared.protocol.model_info import Gates, TargetError
from device_agent.shared.protocol.reports import ColumnScore
from knnkit.commands import parity
from knnkit.fleet.report import DeviceReport, FleetReport, Outcome, Step, WaveReport
from knnkit.render import fleet_report, html, page

HOST = 1_772_366_400.0


def device(name: str, outcome: Outcome, code: int = 0, **more: object) -> DeviceReport:
    return DeviceReport(name, f"pi@{name}", outcome, code, release=pages.RELEASE, **more)  # type: ignore[arg-type]


def run(*devices: DeviceReport, **more: object) -> FleetReport:
    return FleetReport("deploy", HOST, 12.0, devices, releases=(pages.RELEASE,), **more)  # type: ignore[arg-type]


def test_every_outcome_has_a_tone() -> None:
    assert set(page.TONES) == set(Outcome)


def test_a_fleet_in_order_is_said_to_answer_as_the_host() -> None:
    report = run(*(device(f"pi-{n}", Outcome.COMMITTED, certificate=pages.certificate()) for n in range(3)))
    assert fleet_report.tone(report) == "good"
    assert fleet_report.verdict(report) == "All 3 devices give the same answers as the host: 3 committed"


def test_no_device_is_said_to_answer_as_the_host_without_a_certificate() -> None:
    report = run(device("a", Outcome.COMMITTED, certificate=pages.certificate()), device("b", Outcome.UNCHANGED))
    assert "answers as the host" not in fleet_report.verdict(report)
    missed = pages.certificate(different=1, failures=("parity",))
    assert "answers as the host" not in fleet_report.verdict(run(device("a", Outcome.ANSWERED, 4, certificate=missed)))


def test_an_empty_fleet_is_not_good() -> None:
    assert fleet_report.tone(run()) == "warn"
    assert fleet_report.verdict(run()) == "0 of 0 devices are as they should be: no devices"


def test_one_device_is_spoken_of_as_one() -> None:
    failed = device("roof", Outcome.FAILED, 1)
    assert fleet_report.verdict(run(failed)) == "The device is not as it should be: failed"
    out = io.StringIO()
    fleet_report.print_report(run(replace(failed, message="roof: there is no agent")), out)
    assert "roof: there is" not in out.getvalue()
    assert out.getvalue().splitlines()[0].split() == ["device", "outcome", "release", "says"]


def test_unreachable_devices_alone_warn_and_failures_are_bad() -> None:
    assert fleet_report.tone(run(device("a", Outcome.COMMITTED), device("b", Outcome.UNREACHABLE, 3))) == "warn"
    assert fleet_report.tone(run(device("a", Outcome.COMMITTED), device("b", Outcome.ROLLED_BACK, 4))) == "bad"


def test_an_answer_that_misses_a_gate_is_shown_as_bad() -> None:
    assert page.device_tone(device("a", Outcome.ANSWERED, 4)) == "bad"


def test_the_page_counts_steps_from_the_start_of_the_run() -> None:
    steps = (Step("connect", HOST + 2.0, 0.5), Step("roll back", HOST + 3.0, 1.0))
    shown = fleet_report.page_of(run(device("a", Outcome.ROLLED_BACK, 4, steps=steps, wave=1)), gates=Gates())
    plot = page.timeline(shown)
    assert plot is not None
    assert [(bar.left, bar.width) for bar in plot[0][0].bars] == [(50.0, 12.5), (75.0, 25.0)]
    assert shown.title == "Deployment of fruit 1.4.0"


def test_the_page_says_why_a_run_stopped_and_what_was_not_begun() -> None:
    waves = (WaveReport("canary", ("a",), HOST, 3.0), WaveReport("100%", ("b", "c")))
    report = run(device("a", Outcome.FAILED, 1), device("b", Outcome.SKIPPED), stopped="the canary failed", waves=waves)
    notes = fleet_report.page_of(report).notes
    assert notes[0] == "The run stopped early: the canary failed"
    assert notes[2] == "Wave 2: 100%, 2 devices, 0.0 s (not begun)"


def test_the_table_shows_each_device_its_proof_and_what_to_do_next() -> None:
    out = io.StringIO()
    proof = pages.certificate(identical=277, different=23, failures=("parity",))
    bad = device("roof", Outcome.ROLLED_BACK, 4, certificate=proof, message="23 rows differ", hint="knnkit doctor")
    fleet_report.print_report(
        run(replace(bad, warnings=("the clock stands at 1970",)), device("shed", Outcome.SKIPPED)), out
    )
    lines = out.getvalue().splitlines()
    assert lines[1].split() == ["roof", "rolled", "back", "fruit", "1.4.0", "277/0/23", "94.33", "%", "21", "µs",
                                "23", "rows", "differ"]  # fmt: skip
    assert lines[2].split() == ["shed", "skipped", "fruit", "1.4.0", "–", "–", "–"]
    assert lines[3:] == [
        "roof: the clock stands at 1970",
        "roof: try: knnkit doctor",
        "0 of 2 devices are as they should be: 1 rolled back, 1 skipped",
    ]


def test_a_mixed_fleet_is_not_said_to_run_one_release() -> None:
    other = replace(pages.RELEASE, version="9.9.9", digest="9" * 64)
    devices = [device(f"pi-{n}", Outcome.ANSWERED, certificate=pages.certificate()) for n in range(3)]
    said = fleet_report.verdict(run(*devices[:2], replace(devices[2], release=other)))
    name = pages.RELEASE.name
    assert said.endswith(f"; 2 run {name} {pages.RELEASE.version}, 1 runs {name} 9.9.9")
    twice = replace(pages.RELEASE, digest="8" * 64)
    said = fleet_report.verdict(run(*devices[:2], replace(devices[2], release=twice)))
    assert said.endswith(f"; they run 2 different releases called {name} {pages.RELEASE.version}")


def test_a_rollback_is_titled_by_the_release_it_returns_to() -> None:
    back = FleetReport("rollback", HOST, 12.0, (device("a", Outcome.ROLLED_BACK),), releases=(pages.RELEASE,))
    assert fleet_report.page_of(back).title == f"Rollback to {pages.RELEASE.name} {pages.RELEASE.version}"


@pytest.mark.parametrize(
    ("measured", "short", "line"),
    [
        (
            {"errors": (TargetError("east", 178, 10.531, 8.0, 37.9), TargetError("north", 178, 49.31, 30.0, 163.1))},
            "rmse 10.53, 49.31",
            "rmse of east 10.53 (largest 37.9), north 49.31 (largest 163.1) on 178 rows",
        ),
        (
            {"columns": (ColumnScore("species", 40, 30), ColumnScore("health", 40, 40))},
            "75.00 %, 100.00 %",
            "accuracy of species 75.00 %, health 100.00 % on 40 rows",
        ),
        ({"columns": (ColumnScore("a", 1, 1),)}, "100.00 %", "accuracy of a 100.00 % on 1 row"),
        ({"columns": (ColumnScore("a", 30_000, 29_999),)}, "99.99 %", "accuracy of a 99.99 % on 30,000 rows"),
    ],
)
def test_the_figures_of_each_target_are_short_in_the_table(measured: Any, short: str, line: str) -> None:
    proof = pages.certificate(accuracy=None, accuracy_rows=0, confusion=(), classes=(), **measured)
    report = run(*(device(name, Outcome.COMMITTED, certificate=proof) for name in "ab"))
    out = io.StringIO()
    fleet_report.print_report(report, out)
    assert f"  {short}  " in out.getvalue().splitlines()[1]
    assert f"2 devices: {line}" in out.getvalue()
    shown = html.render(fleet_report.page_of(report))
    assert short in shown
    assert shown.count(line) == 2
    assert "not measured" not in shown


def test_parity_has_a_line_for_each_target_and_a_table_as_wide_as_any(capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"target {number}" for number in range(9)]
    errors = tuple(TargetError(name, 178, 10.531, 8.0, 37.9) for name in names)
    proof = pages.certificate(accuracy=None, accuracy_rows=0, confusion=(), classes=(), errors=errors)
    parity._show(run(*(device(name, Outcome.ANSWERED, certificate=proof) for name in "ab")))
    lines = capsys.readouterr().out.splitlines()
    assert "  rmse 10.53, 10.53, 10.53 and 6 more  " in lines[1]
    assert lines[3].split() == ["device", "target", "rows", "rmse", "mean", "error", "largest", "error"]
    assert lines[4].split() == ["2", "devices", "target", "0", "178", "10.53", "8", "37.9"]
    assert len(lines) == 4 + len(names)
    proof = replace(proof, errors=(), columns=(ColumnScore("species", 40, 30), ColumnScore("health", 40, 40)))
    parity._show(run(device("a", Outcome.ANSWERED, certificate=proof)))
    shown = capsys.readouterr().out
    assert [line.split() for line in shown.splitlines()[-2:]] == [
        ["a", "species", "40", "75.00", "%"],
        ["a", "health", "40", "100.00", "%"],
    ]


def test_a_command_to_type_is_whole_however_long_its_paths_are() -> None:
    command = f"`knnkit remove --target local --root /{'deep/' * 200}root`"
    out = io.StringIO()
    fleet_report.print_report(run(device("a", Outcome.FAILED, 1, hint=command)), out)
    assert command in out.getvalue()

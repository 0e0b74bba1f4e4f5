"""Prints the plans of `knnkit deploy --dry-run`, wave by wave."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from device_agent.shared.protocol import constants
from device_agent.shared.release import model_file
from knnkit.commands._query import wave_line
from knnkit.fleet.decide.plan import DevicePlan
from knnkit.fleet.report import DeviceReport, FleetReport
from knnkit.fleet.rollout.waves import Wave
from knnkit.render import figures
from knnkit.render.changes import Rows, change_lines, flip_lines, no_rows
from knnkit.render.fleet_report import outcome_line
from knnkit.render.page import release_text
from knnkit.render.sanitize import size
from knnkit.render.terminal import print_line


def show(
    found: Sequence[Wave], left: Sequence[str], plans: Sequence[DevicePlan], report: FleetReport, rows: Rows = no_rows
) -> None:
    """Prints each device's plan, wave by wave (`found`), then the names of devices that are in no wave (`left`).

    `report` tells why a device has no plan. `rows` maps a release's digest to its evaluation rows (None: not on this
    host), to list those that the device's present release answers right and the new one wrong.
    """
    by_name = {plan.device: plan for plan in plans}
    devices = {device.name: device for device in report.devices}
    for number, wave in enumerate(found, 1):
        if len(found) > 1:
            print_line(wave_line(wave, number, len(found)))
        for name in wave.devices:
            _show_plan(by_name.get(name), devices[name], rows)
    for name in left:
        print_line(f"{name}: no wave contains it", "warn")


def show_figures(releases: Iterable[str]) -> None:
    """Prints the accuracy and other figures that the build measured, for each of the release directories `releases`."""
    for directory in sorted(releases):
        for line in figures.lines_of(model_file.read_info(Path(directory) / constants.MODEL_FILE)):
            print_line(f"{directory}: {line}")


def _show_plan(plan: DevicePlan | None, device: DeviceReport, rows: Rows) -> None:
    if plan is None:
        print_line(f"{device.name}: {outcome_line(device)}", "warn")
        if device.hint:
            print_line(f"  try: {device.hint}")
        return
    current = release_text(plan.current) if plan.current else "nothing"
    print_line(f"{plan.device}: {current} -> {release_text(plan.release)}")
    for step in plan.steps:
        print_line(f"  {step.action:<10} {step.why}" + (f", {size(step.size)}" if step.size else ""))
    for line, tone in change_lines(plan.compared):
        print_line(f"  {line}", tone)
    for line in flip_lines(plan.compared, rows(plan.release.digest)) if plan.compared else ():
        print_line(f"  {line}", "warn")
    for warning in plan.warnings:
        print_line(f"  warning    {warning}", "warn")
    if plan.unchanged:
        print_line("  nothing to do")
    if plan.refusal:
        print_line(f"  refused    {plan.refusal.message}", "bad")
        print_line(f"             try: {plan.refusal.hint}")

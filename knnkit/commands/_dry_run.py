"""How `knnkit deploy --dry-run` is shown: each device's plan in the wave that takes it, in a rollout's order.
Plans nothing itself."""

from __future__ import annotations

from collections.abc import Sequence

from knnkit.commands._console import wave_line
from knnkit.fleet.decide.plan import DevicePlan
from knnkit.fleet.report import DeviceReport, FleetReport
from knnkit.fleet.rollout.waves import Wave
from knnkit.render.fleet_report import outcome_line, release_text
from knnkit.render.sanitize import size
from knnkit.render.terminal import print_line


def show(found: Sequence[Wave], left: Sequence[str], plans: Sequence[DevicePlan], report: FleetReport) -> None:
    """Prints what would be done, and the devices that no wave takes."""
    by_name = {plan.device: plan for plan in plans}
    devices = {device.name: device for device in report.devices}
    for number, wave in enumerate(found, 1):
        if len(found) > 1:
            print_line(wave_line(wave, number, len(found)))
        for name in wave.devices:
            _show_plan(by_name.get(name), devices[name])
    for name in left:
        print_line(f"{name}: no wave takes it", "warn")


def _show_plan(plan: DevicePlan | None, device: DeviceReport) -> None:
    if plan is None:
        print_line(f"{device.name}: {outcome_line(device)}", "warn")
        if device.hint:
            print_line(f"  try: {device.hint}")
        return
    current = release_text(plan.current) if plan.current else "nothing"
    print_line(f"{plan.device}: {current} -> {release_text(plan.release)}")
    for step in plan.steps:
        print_line(f"  {step.action:<10} {step.why}" + (f", {size(step.size)}" if step.size else ""))
    for warning in plan.warnings:
        print_line(f"  warning    {warning}", "warn")
    if plan.unchanged:
        print_line("  nothing to do")
    if plan.refusal:
        print_line(f"  refused    {plan.refusal.message}", "bad")
        print_line(f"             try: {plan.refusal.hint}")

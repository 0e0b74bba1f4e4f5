"""Turns a fleet report into the values of the HTML page. Reads nothing, writes nothing."""

from __future__ import annotations

from knnkit.commands._fleet import tone_of
from knnkit.fleet.report import FleetReport
from knnkit.render import page


def page_of(report: FleetReport) -> page.Page:
    """Returns the page of a run."""
    good = report.exit_code == 0
    devices = tuple(
        page.Device(
            name=device.name,
            outcome=device.outcome.value.replace("_", " "),
            tone=tone_of(device),
            detail=device.message.removeprefix(f"{device.name}: "),
            hint=device.hint,
            wave=device.wave or 0,
            certificate=device.certificate,
            steps=tuple(
                page.Step(step.name, max(0.0, step.started - report.started), step.seconds) for step in device.steps
            ),
        )
        for device in report.devices
    )
    releases = report.releases
    return page.Page(
        title=f"knnkit {report.command}" + (f": {releases[0].name} {releases[0].version}" if releases else ""),
        verdict=report.summary() + (f"; stopped: {report.stopped}" if report.stopped else ""),
        tone="good" if good else "bad",
        devices=devices,
        release=releases[0] if len(releases) == 1 else None,
        started=report.started,
        seconds=report.seconds,
        notes=tuple(f"{device.name}: {warning}" for device in report.devices for warning in device.warnings),
    )

"""`knnkit status`: shows what runs on each device."""

from __future__ import annotations

import argparse
import sys

from device_agent.shared.console.lists import first_of
from device_agent.shared.protocol.documents import ReleaseRef
from device_agent.shared.trust import standing
from knnkit.commands import _config, _output, _query, _selection
from knnkit.fleet.report import DeviceReport, FleetReport
from knnkit.render.fleet_report import outcome_line
from knnkit.render.page import release_text
from knnkit.render.sanitize import count, size
from knnkit.render.terminal import Cell, Table, Tone, print_line


def run(arguments: argparse.Namespace) -> int:
    """Prints for each device a line with the release that runs there; returns the exit code."""
    report = _query.ask_fleet(arguments, "status")
    heads = ("device", "runs", "before", "pending", "agent", "runtime", "machine", "free", "says")
    code = _output.finish(arguments, report, table=Table(heads, tuple(map(_row, report.devices))))
    if not arguments.json and (said := behind(report)):
        print_line(said, "warn", stream=sys.stderr)
        config = _config.load_config(arguments)
        release = "" if config and config.builds() else " --release RELEASE"
        print_line(f"try: knnkit deploy{_selection.words(arguments)}{release}", stream=sys.stderr)
    return code


def behind(report: FleetReport) -> str:
    """Returns which devices run no release, or not the newest one of their model in the fleet; "" if none."""
    newest: dict[str, ReleaseRef] = {}
    for device in report.devices:
        if ref := device.release:
            newest[ref.name] = max(newest.get(ref.name, ref), ref, key=lambda each: each.sequence)
    late = [
        f"{device.name} ({f'{device.release.name} {device.release.version}' if device.release else 'no release'})"
        for device in report.devices
        if device.status and newest and (not device.release or device.release != newest[device.release.name])
    ]
    are = "is" if len(late) == 1 else "are"
    return f"{count(len(late), 'device')} {are} behind: {first_of(late)}" if late else ""


def _row(device: DeviceReport) -> tuple[Cell | str, ...]:
    status = device.status
    if status is None:
        return (device.name, *["-"] * 7, outcome_line(device))
    lock = f"locked by {status.lock.holder} ({status.lock.reason})" if status.lock else ""
    tone: Tone = "bad" if standing.gates_missed(device.warnings) else "warn" if device.warnings else ""
    return (
        device.name,
        release_text(status.committed),
        release_text(status.previous),
        release_text(status.pending),
        status.agent,
        status.runtime or "none",
        status.device.machine,
        size(status.disk_free_bytes),
        Cell("; ".join([*([lock] if lock else []), *device.warnings]), tone),
    )

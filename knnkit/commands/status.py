"""`knnkit status`: shows what runs on each device."""

from __future__ import annotations

import argparse

from device_agent.shared.trust import standing
from knnkit.commands import _output, _query
from knnkit.fleet.report import DeviceReport
from knnkit.render.fleet_report import outcome_line
from knnkit.render.page import release_text
from knnkit.render.sanitize import size
from knnkit.render.terminal import Cell, Table, Tone


def run(arguments: argparse.Namespace) -> int:
    """Prints for each device a line with the release that runs there; returns the exit code."""
    report = _query.ask_fleet(arguments, "status")
    heads = ("device", "runs", "before", "pending", "agent", "runtime", "machine", "free", "says")
    return _output.finish(arguments, report, table=Table(heads, tuple(map(_row, report.devices))))


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

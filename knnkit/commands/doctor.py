"""`knnkit doctor`: finds faults of devices, each with its repair."""

from __future__ import annotations

import argparse

from knnkit.commands import _output, _query
from knnkit.fleet.jobs.query import Findings
from knnkit.fleet.report import DeviceReport
from knnkit.render.terminal import Cell, Table, Tone


def run(arguments: argparse.Namespace) -> int:
    """Prints each finding; returns 1 if one is an error, 3 if a device cannot be reached."""
    report = _query.ask_fleet(arguments, "doctor")
    rows = tuple(row for device in report.devices for row in _rows(device))
    return _output.finish(arguments, report, table=Table(("device", "about", "", "finding", "try"), rows))


def _rows(device: DeviceReport) -> list[tuple[Cell | str, ...]]:
    if not device.details:
        return [(device.name, "connection", Cell("error", "bad"), device.said, device.hint)]
    tones: dict[str, Tone] = {"ok": "good", "warning": "warn", "error": "bad"}
    found = device.answer(Findings).findings
    return [(device.name, f.name, Cell(f.level, tones[f.level]), f.message, f.mend) for f in found]

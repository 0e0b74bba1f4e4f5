"""`knnkit doctor`: what is wrong with a device, from outside and from inside, and the command that mends it."""

from __future__ import annotations

import argparse

from device_agent.shared.protocol import json_codec
from device_agent.shared.protocol.reports import Finding
from knnkit.commands import _output, _query
from knnkit.fleet.report import DeviceReport
from knnkit.render.terminal import Cell, Table, Tone


def run(arguments: argparse.Namespace) -> int:
    """Asks, and shows each finding; returns 1 where one is an error, 3 where a device cannot be reached."""
    report = _query.ask_fleet(arguments, "doctor")
    rows = tuple(row for device in report.devices for row in _rows(device))
    return _output.finish(arguments, report, table=Table(("device", "about", "", "finding", "try"), rows))


def _rows(device: DeviceReport) -> list[tuple[Cell | str, ...]]:
    if not device.details:
        return [(device.name, "connection", Cell("error", "bad"), device.said, device.hint)]
    tones: dict[str, Tone] = {"ok": "good", "warning": "warn", "error": "bad"}
    found = [
        json_codec.from_plain(Finding, entry)
        for entry in json_codec.parse(device.details, limit=len(device.details))["findings"]
    ]
    return [(device.name, f.name, Cell(f.level, tones[f.level]), f.message, f.mend) for f in found]

"""`knnkit logs`: prints the history of each device's releases."""

from __future__ import annotations

import argparse

from device_agent.shared.protocol.documents import History, HistoryEntry
from knnkit.commands import _output, _query
from knnkit.fleet.report import DeviceReport
from knnkit.render.sanitize import moment
from knnkit.render.terminal import Table


def run(arguments: argparse.Namespace) -> int:
    """Prints the entries of each device, oldest first; returns the exit code."""
    report = _query.ask_fleet(arguments, "logs", ("--last", str(arguments.lines)))
    heads = ("device", "when (its clock)", "what", "release", "answering", "who", "why")
    rows = tuple(row for device in report.devices for row in rows_of(device))
    return _output.finish(arguments, report, table=Table(heads, rows))


def rows_of(device: DeviceReport) -> list[tuple[str, ...]]:
    """Returns a table line for each event of a device: (device, time, event, release, answering release, who, why)."""
    if not device.details:
        return [(device.name, "-", device.word, "-", "-", "-", device.said)]
    return [_entry(device.name, entry) for entry in device.answer(History).entries]


def _entry(name: str, entry: HistoryEntry) -> tuple[str, ...]:
    return (
        name,
        moment(entry.at),
        entry.what,
        f"{entry.release.name} {entry.release.version}" if entry.release else "-",
        f"{entry.answering.name} {entry.answering.version}" if entry.answering else "-",
        entry.holder,
        entry.why,
    )

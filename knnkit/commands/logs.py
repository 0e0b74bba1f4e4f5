"""`knnkit logs`: what happened to the releases of each device. Changes nothing."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from knnkit.commands import _options, _output, _query
from knnkit.render.terminal import Table

if TYPE_CHECKING:
    from device_agent.shared.protocol.documents import HistoryEntry
    from knnkit.fleet.report import DeviceReport


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this command."""
    _options.add_fleet(parser)
    parser.add_argument(
        "-n",
        "--lines",
        type=_options.count,
        default=20,
        metavar="N",
        help="how many entries, the last ones (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Asks, and shows the entries of each device, oldest first."""
    report = _query.ask_fleet(arguments, "logs", ("--last", str(arguments.lines)))
    heads = ("device", "when (its clock)", "what", "release", "answering", "who", "why")
    rows = tuple(row for device in report.devices for row in rows_of(device))
    return _output.finish(arguments, report, table=Table(heads, rows))


def rows_of(device: DeviceReport) -> list[tuple[str, ...]]:
    """Returns a device's lines of the table."""
    from device_agent.shared.protocol.documents import History
    from knnkit.render.fleet_report import outcome_text

    if not device.details:
        return [(device.name, "-", outcome_text(device), "-", "-", "-", device.said)]
    return [_entry(device.name, entry) for entry in device.answer(History).entries]


def _entry(name: str, entry: HistoryEntry) -> tuple[str, ...]:
    from knnkit.render.sanitize import moment

    return (
        name,
        moment(entry.at),
        entry.what,
        f"{entry.release.name} {entry.release.version}" if entry.release else "-",
        f"{entry.answering.name} {entry.answering.version}" if entry.answering else "-",
        entry.holder,
        entry.why,
    )

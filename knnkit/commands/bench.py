"""`knnkit bench`: measures speed and memory of each device."""

from __future__ import annotations

import argparse

from device_agent.shared.protocol.reports import Bench
from knnkit.commands import _output, _query
from knnkit.fleet.report import DeviceReport
from knnkit.render.fleet_report import outcome_line
from knnkit.render.sanitize import milliseconds, size
from knnkit.render.terminal import Column, Table


def run(arguments: argparse.Namespace) -> int:
    """Measures the model on each device, and prints a line for each; returns the exit code."""
    threads = ("--threads", str(arguments.threads)) if arguments.threads else ()
    report = _query.ask_fleet(arguments, "bench", threads)
    figures = ("one row p50", "p99", "line p50", "rows/s", "load", "memory", "peak", "installed")
    heads: tuple[Column | str, ...] = ("device", "release", *(Column(figure, right=True) for figure in figures), "says")
    return _output.finish(arguments, report, table=Table(heads, tuple(map(_row, report.devices))))


def _row(device: DeviceReport) -> tuple[str, ...]:
    if not device.details:
        return (device.name, *["-"] * 9, outcome_line(device))
    found = device.answer(Bench)
    return (
        device.name,
        f"{found.name} {found.version}",
        milliseconds(found.one.p50_ms),
        milliseconds(found.one.p99_ms),
        milliseconds(found.line.p50_ms),
        f"{found.rows_per_second:,.0f}",
        milliseconds(found.load_ms),
        size(found.memory_bytes),
        size(found.peak_bytes),
        size(sum(found.installed_bytes.values())),
        "",
    )

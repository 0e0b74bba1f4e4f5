"""`knnkit collect`: copies rows from devices to this machine.

Copies the rows that devices keep for labelling, and the rows that they were taught. If a device fails, the report names
it; the rows of the other devices are still written.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from device_agent.shared.safe_files import folder_for
from knnkit.commands import _config, _output, _query, _selection
from knnkit.data import collected
from knnkit.data.collected import Columns, FieldRow
from knnkit.errors import KnnkitError, unwritten
from knnkit.fleet.device.connect import Job
from knnkit.fleet.jobs.collect import collect_rows, rows_in
from knnkit.fleet.report import DeviceReport, FleetReport
from knnkit.render.sanitize import count
from knnkit.render.terminal import Column, Table, print_line

_KINDS = ("enrolled", "unknown", "uncertain", "random")


def run(arguments: argparse.Namespace) -> int:
    """Adds the rows of all reachable devices to the files in a folder; returns the exit code."""
    _output.check_report_paths(arguments)
    config = _config.load_config(arguments)
    targets = _selection.select_targets(arguments, config)
    folder: Path = arguments.output
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(folder_for(folder))
        except OSError as error:
            raise unwritten(f"--output {folder}", error, hint="--output FOLDER, a folder that you may write") from None
        jobs = [Job(target, pace=_selection.pace_of(arguments, config)) for target in targets]
        report = _query.run_jobs(arguments, config, "collect", jobs, collect_rows)
        report, files = _merge(report, folder)
    heads: tuple[Column | str, ...] = ("device", *(Column(kind, right=True) for kind in _KINDS), "remarks")
    code = _output.finish(arguments, report, table=Table(heads, tuple(map(_line, report.devices))))
    for path, (new, waiting) in files.items():
        more = f"; knnkit label {shlex.quote(str(path))}{_config.flags(arguments, model=False)}" if waiting else ""
        said = f"{path}: {count(new, 'new row')}, {waiting:,} without a label{more}"
        print_line(said, stream=sys.stderr if arguments.json else sys.stdout)
    return code


def _merge(report: FleetReport, folder: Path) -> tuple[FleetReport, dict[Path, tuple[int, int]]]:
    """Adds the rows in `report` to one file for each model (and for other columns of another release) in `folder`.

    Returns (report, files). In the report, each device's `details` are JSON: kind of row ("enrolled": taught; else why
    it was kept) -> number of rows. `files` maps a file's path to (number of new rows, number of rows without label).
    """
    rows: dict[Columns, list[FieldRow]] = {}
    devices = []
    for device in report.devices:
        if device.good:
            brought = rows_in(device)
            for columns, found in brought.rows.items():
                rows.setdefault(columns, []).extend(found)
            device = _counted(device, [row.kind for found in brought.rows.values() for row in found], brought.unplaced)
        devices.append(device)
    files: dict[Path, tuple[int, int]] = {}
    for columns, brought_home in rows.items():
        try:
            path = collected.file_for(folder, columns)
            new = collected.merge(path, columns, brought_home)
        except KnnkitError as error:
            print_line(f"knnkit: {error}; try: {error.hint}", "bad", stream=sys.stderr)
            names = {row.device for row in brought_home}
            devices = [_failed(each, error) if each.name in names else each for each in devices]
            continue
        files[path] = (new, sum(row.label is None for row in collected.read(path).rows))
    return replace(report, devices=tuple(devices)), files


def _counted(device: DeviceReport, kinds: list[str], unplaced: int) -> DeviceReport:
    counts = {kind: kinds.count(kind) for kind in _KINDS}
    warnings = device.warnings
    if unplaced:
        warnings += (
            f"left on the device: {count(unplaced, 'row')} without column names, of a release that it no longer has",
        )
    return replace(device, details=json.dumps(counts), warnings=warnings)


def _failed(device: DeviceReport, error: KnnkitError) -> DeviceReport:
    return replace(
        device, exit_code=error.exit_code, reason="not-merged", message=f"{device.name}: {error}", hint=error.hint
    )


def _line(device: DeviceReport) -> tuple[str, ...]:
    if not device.good:
        return (device.name, *("-" for _ in _KINDS), device.said)
    counts = json.loads(device.details)
    return (device.name, *(f"{counts[kind]:,}" for kind in _KINDS), "; ".join(device.warnings))

"""`knnkit parity`: compares devices' answers with the reference's.

Each device answers the release's golden rows, or the user's own rows, and returns a new certificate: a report of how
its answers differ from the reference's."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from device_agent.shared.protocol.reports import EmbeddingCheck
from knnkit.commands import _config, _decision_regions, _options, _output, _query, _selection
from knnkit.errors import KnnkitError, UsageError, flags_for
from knnkit.evaluation.metrics import percent
from knnkit.fleet.report import DeviceReport, FleetReport
from knnkit.release.golden import golden_for
from knnkit.release.package import read_package
from knnkit.render.changes import alike
from knnkit.render.decision_regions import Regions
from knnkit.render.fleet_report import outcome_line
from knnkit.render.page import score
from knnkit.render.sanitize import milliseconds
from knnkit.render.terminal import Cell, Column, print_table


def run(arguments: argparse.Namespace) -> int:
    """Prints a line for each device's certificate (how its answers differ); returns 4 if a gate failed."""
    if not arguments.data:
        _options.refuse(arguments, "is the label column of --data FILE", "label")
    _output.check_report_paths(arguments)  # before the reference answers own rows, which may take minutes
    report = (
        _about_own_rows(arguments) if arguments.data else _query.ask_fleet(arguments, "parity", built=_built(arguments))
    )
    if not arguments.json:
        _show(report)
    return _output.finish(arguments, report, shown=True, regions=_surveyed(arguments, report))


def _built(arguments: argparse.Namespace) -> dict[str, Path]:
    """Returns digest -> directory of each release in deploy.yaml that is built and can be read."""
    found = {}
    for directory in _decision_regions.release_directories(_config.load_config(arguments)):
        with contextlib.suppress(KnnkitError, OSError):
            found[read_package(directory, {}).digest] = directory
    return found


def _about_own_rows(arguments: argparse.Namespace) -> FleetReport:
    """Sends the user's rows and the reference's answers to each device; returns how the devices' answers differ."""
    builds = _config.require_builds(_config.load_config(arguments), "--data", arguments.config)
    if len(builds) > 1:
        said = f"--data is for one model, but {arguments.config or 'deploy.yaml'} has several"
        raise UsageError(said, hint="--config FILE, a deploy.yaml with that one model and no other")
    package = read_package(builds[0].release.dir, {})
    made = builds[0], builds[0].release.dir
    with flags_for("label"):
        own = golden_for(*made, arguments.data, arguments.label, package.manifest.gates.margin)
    if own.left_out:
        said = f"{own.rows:,} of {own.rows + own.left_out:,} rows, drawn at random, are compared"
        print(f"knnkit: {said}: a certificate cannot cover more rows. Split the file to compare all", file=sys.stderr)
    return _query.ask_fleet(
        arguments, "parity", ("--golden", "-"), input=own.data, rows=own.rows, digest=package.digest
    )


def _surveyed(arguments: argparse.Namespace, report: FleetReport) -> tuple[Regions, str] | None:
    if not arguments.report:
        return None
    config = _config.load_config(arguments)
    targets = _selection.select_targets(arguments, config)
    directories = _decision_regions.release_directories(config)
    return _decision_regions.survey(arguments, report, targets, directories, _selection.pace_of(arguments, config))


def _show(report: FleetReport) -> None:
    figures = ("identical", "equivalent", "different", "largest error", "accuracy", "one row")
    numbers = [Column(name, right=True) for name in figures]
    print_table(["device", "release", *numbers, "runtime", "cpu", "gates"], [_row(device) for device in report.devices])
    _show_errors(report)
    certified = [(device.name, device.certificate) for device in report.devices if device.certificate]
    networks = [[name, *_own(found.embedding)] for name, found in certified if found.embedding]
    if networks:
        labels = ("labels same", "open", "different")
        print_table(["device", "own rows", "largest error", "bound", "searched otherwise", *labels], networks)
    rows = [row for device in report.devices for row in _differences(device)]
    if rows:
        print_table(["device", "row", "expected", "answered", "neighbours expected", "answered", "error"], rows)


def _show_errors(report: FleetReport) -> None:
    """Prints a line for each target or label column; devices with equal figures share their lines."""
    errors: list[list[str]] = []
    columns: list[list[str]] = []
    for names, proof in alike(report):
        who = names[0] if len(names) == 1 else f"{len(names):,} devices"
        for each in proof.errors:
            sizes = (each.rmse, each.mean_error, each.max_error)
            errors.append([who, each.target, f"{each.rows:,}", *(f"{size:.4g}" for size in sizes)])
        for own in proof.columns:
            columns.append([who, own.column, f"{own.rows:,}", percent(own.right / own.rows)])
    numbers = [Column(name, right=True) for name in ("rows", "rmse", "mean error", "largest error", "accuracy")]
    if errors:
        print_table(["device", "target", *numbers[:-1]], errors)
    if columns:
        print_table(["device", "label column", numbers[0], numbers[-1]], columns)


def _own(own: EmbeddingCheck) -> list[str]:
    counts = (own.search_different, own.labels_same, own.labels_open, own.labels_different)
    return [f"{own.rows:,}", f"{own.largest_error:.2e}", f"{own.bound:g}", *(f"{count:,}" for count in counts)]


def _row(device: DeviceReport) -> list[Cell | str]:
    proof = device.certificate
    if proof is None:
        return [device.name, *["-"] * 9, outcome_line(device)]
    return [
        device.name,
        f"{proof.name} {proof.version}",
        f"{proof.identical:,}",
        f"{proof.equivalent:,}",
        Cell(f"{proof.different:,}", "bad" if proof.different else ""),
        f"{proof.largest_distance_error:.2e}",
        score(proof),
        milliseconds(proof.latency.p50_ms if proof.latency else None),
        f"{proof.runtime.name} {proof.runtime.version}",
        f"{proof.device.machine} {proof.device.cpu}".strip(),
        "kept" if device.good else Cell(device.said, "bad"),
    ]


def _differences(device: DeviceReport) -> list[list[str]]:
    proof = device.certificate
    return [
        [
            device.name,
            str(row.row),
            row.expected_label,
            row.label,
            " ".join(map(str, row.expected_indices)),
            " ".join(map(str, row.indices)),
            f"{row.distance_error:.2e}",
        ]
        for row in (proof.differences if proof else ())
    ]

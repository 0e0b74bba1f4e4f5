"""Decision regions of a two-feature model, for a report.

Only for an HTML report: a device on which the run succeeded classifies a grid of rows. If that fails, the report has no
decision regions.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.release import model_file
from device_agent.shared.safe_files import read_small
from knnkit.commands import _output
from knnkit.config.parse import Config
from knnkit.errors import KnnkitError
from knnkit.fleet.device.classify_client import Answerer
from knnkit.fleet.device.connect import Job, Pace, dial
from knnkit.fleet.device.probe import probe
from knnkit.fleet.report import FleetReport
from knnkit.fleet.targets import Target
from knnkit.release.package import read_package
from knnkit.render import decision_regions
from knnkit.render.decision_regions import Regions


def survey(
    arguments: argparse.Namespace,
    report: FleetReport,
    targets: Sequence[Target],
    directories: Iterable[Path],
    pace: Pace,
) -> tuple[Regions, str] | None:
    """Returns decision regions, and the name of the device that classified their grid of points; None without regions.

    Asks one of `targets` on which the run of `report` succeeded. There are no regions if no HTML report is wanted, if
    no device runs one of the releases in `directories`, if that release does not classify rows of two numbers, or if
    the device fails (then prints why on stderr).
    """
    if report.interrupted or not _output.draws(arguments):
        return None
    for directory in directories:
        try:
            found = _survey(report, targets, directory, pace)
        except KeyboardInterrupt:
            return None
        except (KnnkitError, OSError) as error:
            print(f"knnkit: the report has no decision regions: {error}", file=sys.stderr)
            return None
        if found:
            return found
    return None


def release_directories(config: Config | None) -> list[Path]:
    """Returns the release directories that deploy.yaml names and that exist; [] without deploy.yaml (None)."""
    built = [build.release.dir for build in config.builds()] if config else []
    return [directory for directory in built if (directory / constants.MANIFEST_FILE).exists()]


def _survey(report: FleetReport, targets: Sequence[Target], directory: Path, pace: Pace) -> tuple[Regions, str] | None:
    package = read_package(directory, {})
    running = {d.name for d in report.devices if d.good and d.release and d.release.digest == package.digest}
    target = next((target for target in targets if target.name in running), None)
    if package.manifest.n_features != 2 or target is None:
        return None
    info = model_file.read_info(directory / constants.MODEL_FILE)
    if info.table is not None or info.targets is not None:
        return None  # a picture of two features needs plain rows, and classes to colour
    golden = Golden.from_bytes(read_small(directory / constants.GOLDEN_FILE, constants.MAX_GOLDEN))
    known = golden.truth >= 0
    transport = dial(Job(target, pace=pace))
    try:
        device = Answerer(transport, probe(transport, target.root, timeout=pace.command))
        return ask(device, info, golden.rows[known], golden.truth[known]), target.name
    finally:
        transport.close()


def ask(
    device: Answerer, info: KnnInfo, points: NDArray[Any], truth: NDArray[np.int32], around: NDArray[Any] | None = None
) -> Regions:
    """Returns decision regions: how a device's model labels a grid of points; `info` is the model's metadata.

    `points` are (n, 2) evaluation rows, `truth` their (n,) class indices. The grid covers them, and the rows `around`.

    Raises:
        DeviceFailed: the device cannot answer.
    """
    return decision_regions.survey(
        lambda rows: device.labels(rows, info.classes),
        np.asarray(points, np.float64),
        truth,
        tuple(map(str, info.classes)),
        (info.feature_names[0], info.feature_names[1]),
        around=None if around is None else np.asarray(around, np.float64),
    )

"""Runs one query, such as `status`, on each device.

Shows progress on stderr.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from knnkit.commands import _config, _output, _selection
from knnkit.config.parse import Config
from knnkit.fleet.device.connect import Job
from knnkit.fleet.jobs.query import Kind, Question, ask_device
from knnkit.fleet.report import DeviceReport, FleetReport
from knnkit.fleet.rollout.executor import Work
from knnkit.fleet.rollout.rollout import ask_all
from knnkit.fleet.rollout.waves import Wave
from knnkit.fleet.targets import Target
from knnkit.render.fleet_report import outcome_line
from knnkit.render.page import device_tone
from knnkit.render.sanitize import count
from knnkit.render.terminal import Progress


def wave_line(wave: Wave, number: int, total: int) -> str:
    """Returns the line that announces a wave, the `number`-th of `total`; the lines of its devices follow."""
    return f"wave {number} of {total} ({wave.label}): {count(len(wave.devices), 'device')}"


class Console(Progress):
    """Shows the progress of a run on stderr: waves that begin, steps of devices, devices that are finished."""

    def wave(self, wave: Wave, number: int, total: int) -> None:
        """Announces that a wave begins."""
        if total > 1:
            self.note(wave_line(wave, number, total), "")

    def finish(self, report: DeviceReport) -> None:
        """Prints the outcome of a device that is finished."""
        self.end(report.name, outcome_line(report), device_tone(report))


def ask_fleet(
    arguments: argparse.Namespace,
    kind: Kind,
    agent_arguments: tuple[str, ...] = (),
    *,
    inputs: Mapping[str, bytes] | None = None,
    **shared: Any,
) -> FleetReport:
    """Runs a query on every selected device, and returns the report.

    `inputs` maps the name of a device to the standard input of its query; devices without an entry are not asked (None:
    all devices are asked). `shared`: more fields of `Question`.
    """
    _output.check_report_paths(arguments)
    config = _config.load_config(arguments)
    targets = _selection.select_targets(arguments, config)
    nonce, holder, pace = _selection.nonce(), _selection.holder(), _selection.pace_of(arguments, config)
    named = _selection.named_keys(arguments, config)
    models = _selection.models_of(config)
    if inputs is not None:
        targets = tuple(target for target in targets if target.name in inputs)
    everyone = Question(
        Target("", None), kind, holder, nonce, agent_arguments, pace=pace, named=named, models=models, **shared
    )
    questions = [
        replace(everyone, target=target, input=(inputs or {}).get(target.name, everyone.input)) for target in targets
    ]
    report = run_jobs(arguments, config, kind, questions, ask_device)
    releases = {device.release.digest: device.release for device in report.devices if device.release}
    return replace(report, nonce=nonce, holder=holder, releases=tuple(releases.values()))


def run_jobs(
    arguments: argparse.Namespace, config: Config | None, command: str, jobs: Sequence[Job], work: Work
) -> FleetReport:
    """Calls `work` for each job, shows progress on stderr, and returns the report of this `command`."""
    with Console(total=len(jobs)) as console, _selection.open_fan(arguments, config) as fan:
        return ask_all(command, jobs, work, fan, console)

"""Runs one query on each selected device, for several commands."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from knnkit.commands import _config, _output, _selection
from knnkit.commands._console import Console
from knnkit.config.parse import Config
from knnkit.fleet.device.connect import Job
from knnkit.fleet.jobs.query import Kind, Question, ask_device
from knnkit.fleet.report import FleetReport
from knnkit.fleet.rollout.executor import Work
from knnkit.fleet.rollout.rollout import ask_all
from knnkit.fleet.targets import Target


def ask_fleet(
    arguments: argparse.Namespace,
    kind: Kind,
    agent_arguments: tuple[str, ...] = (),
    *,
    inputs: Mapping[str, bytes] | None = None,
    **shared: Any,
) -> FleetReport:
    """Runs a query on every selected device, and returns the report.

    `inputs` maps the name of a device to the standard input of its query; other devices are then not asked. `shared`
    are other fields of every `Question`.
    """
    _output.check_report_paths(arguments)
    config = _config.load_config(arguments)
    targets = _selection.select_targets(arguments, config)
    nonce, holder, pace = _selection.nonce(), _selection.holder(), _selection.pace_of(arguments, config)
    named = _selection.named_keys(arguments, config)
    models = frozenset(build.model.name for build in config.builds()) if config else frozenset()
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
    """Runs the job of each device, shows the progress on stderr, and returns the report."""
    with Console(total=len(jobs)) as console, _selection.open_fan(arguments, config) as fan:
        return ask_all(command, jobs, work, fan, console)

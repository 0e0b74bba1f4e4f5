"""What `status`, `parity`, `rollback`, `bench`, `logs` and `doctor` share: one question to each selected device."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace

from knnkit.commands import _config, _output, _selection
from knnkit.commands._console import Console
from knnkit.fleet.jobs.query import Kind, Question, ask_device
from knnkit.fleet.report import FleetReport
from knnkit.fleet.rollout.rollout import ask_all


@dataclass(frozen=True)
class Shared:
    """What every device is given: standard input, and what its certificate must cover."""

    input: bytes = b""
    rows: int | None = None
    digest: str | None = None


def ask_fleet(
    arguments: argparse.Namespace,
    kind: Kind,
    agent_arguments: tuple[str, ...] = (),
    shared: Shared | None = None,
    *,
    inputs: Mapping[str, bytes] | None = None,
) -> FleetReport:
    """Asks every selected device, or those that have one of `inputs` (device -> standard input); returns the report."""
    shared = shared or Shared()
    _output.check_report_paths(arguments)
    config = _config.load_config(arguments)
    targets = _selection.select_targets(arguments, config)
    nonce, holder, pace = _selection.nonce(), _selection.holder(), _selection.pace_of(arguments, config)
    named = _selection.named_keys(arguments, config)
    models = frozenset(build.model.name for build in config.builds()) if config else frozenset()
    if inputs is not None:
        targets = tuple(target for target in targets if target.name in inputs)
    questions = [
        Question(
            target,
            kind,
            holder,
            nonce,
            agent_arguments,
            (inputs or {}).get(target.name, shared.input),
            shared.rows,
            shared.digest,
            pace,
            named=named,
            models=models,
        )
        for target in targets
    ]
    with Console(len(targets)) as console, _selection.open_fan(arguments, config) as fan:
        report = ask_all(kind, questions, ask_device, fan, console)
    releases = {device.release.digest: device.release for device in report.devices if device.release}
    return replace(report, nonce=nonce, holder=holder, releases=tuple(releases.values()))

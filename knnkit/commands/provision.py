"""`knnkit provision`: installs the agent and keys, or removes them."""

from __future__ import annotations

import argparse

from device_agent.shared.protocol import json_codec
from knnkit.commands import _config, _options, _output, _query, _selection
from knnkit.errors import UsageError
from knnkit.fleet.jobs.provision import ProvisionJob, provision_device
from knnkit.fleet.report import DeviceReport
from knnkit.provision import Provisioned
from knnkit.render.sanitize import size
from knnkit.render.terminal import Table


def run(arguments: argparse.Namespace) -> int:
    """Provisions the selected devices, and prints a line for each; returns the exit code."""
    _output.check_report_paths(arguments)
    config = _config.load_config(arguments)
    targets = _selection.select_targets(arguments, config)
    if arguments.remove and not (arguments.target or arguments.on):
        raise UsageError("--remove needs the devices by name", hint="--target DEVICE, or --on TAG")
    if arguments.remove:
        _options.refuse(arguments, "cannot be combined with --remove", "key", "runtime", "offline", "wheels")
    keys = {} if arguments.remove else _selection.trusted_keys(arguments, config)
    pace, nonce = _selection.pace_of(arguments, config), _selection.nonce()
    how = {"offline": arguments.offline, "wheels": arguments.wheels, "remove": arguments.remove, "nonce": nonce}
    how["pictures"] = config is not None and any(
        build.model.input is not None and build.model.input.image is not None for build in config.builds()
    )
    jobs = [ProvisionJob(target, tuple(keys.items()), **how, pace=pace) for target in targets]
    report = _query.run_jobs(arguments, config, "provision", jobs, provision_device)
    heads = ("device", "outcome", "agent", "runtime", "python", "machine", "sent", "says")
    return _output.finish(arguments, report, table=Table(heads, tuple(map(_row, report.devices))))


def _row(device: DeviceReport) -> tuple[str, ...]:
    said = [device.said] if device.message else list(device.warnings)
    says = "; ".join(said)
    if not device.good or '"removed"' in device.details:
        done = "removed" if device.details == json_codec.dumps({"removed": True}) else "nothing there"
        return (device.name, done if device.good else device.outcome.value, *["-"] * 5, says)
    found = device.answer(Provisioned)
    outcome = "provisioned" if found.changed else "unchanged"
    return (device.name, outcome, found.agent, found.runtime, found.python, found.machine, size(found.sent), says)

"""Compares a device's release with a new one (dry run).

The device answers the golden rows of the new release with the one that it runs, and changes nothing.
"""

from __future__ import annotations

from pathlib import Path

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.protocol.reports import Compared, Running
from device_agent.shared.release import model_file
from device_agent.shared.safe_files import read_small
from knnkit.errors import KnnkitError
from knnkit.fleet.device.agent_client import ask
from knnkit.fleet.device.probe import Facts
from knnkit.fleet.jobs.job import DeviceJob
from knnkit.transport.base import Transport


def compare(job: DeviceJob, transport: Transport, facts: Facts) -> Compared | None:
    """Compares the device's release with the new release; None if it has none, or if its agent is too old."""
    if facts.agent is None or facts.agent.answering in (None, job.package.digest):
        return None
    from device_agent.shared.golden import changes  # numpy is for a dry run that compares
    from device_agent.shared.golden.golden_set import Golden

    directory = Path(job.package.directory)
    try:
        info = model_file.read_info(directory / constants.MODEL_FILE)
        data = read_small(directory / constants.GOLDEN_FILE, constants.MAX_GOLDEN)
        golden = Golden.from_bytes(data)
        running = ask(transport, facts.agent_argv, ["compare"], Running, timeout=job.pace.command, input=data)
    except (KnnkitError, ModelUnusable, OSError):
        return None
    return changes.compare(running, info, golden, golden.label)

"""Plans a device's deploy for `--dry-run`; changes nothing.

Where the deploy would replace a release, the device answers the golden rows of the new one with it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from device_agent.shared.golden import changes
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants, json_codec
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.protocol.reports import Compared, Running
from device_agent.shared.release import model_file
from device_agent.shared.safe_files import read_small
from knnkit.errors import KnnkitError
from knnkit.fleet.decide.plan import DevicePlan, plan_device
from knnkit.fleet.device.agent_client import ask
from knnkit.fleet.device.connect import Pause, just_sleep
from knnkit.fleet.device.one_shot import visit
from knnkit.fleet.device.probe import Facts
from knnkit.fleet.device.recorder import Listener, Recorder, nobody
from knnkit.fleet.jobs.job import DeviceJob
from knnkit.fleet.report import DeviceReport, FleetReport, Outcome
from knnkit.transport.base import Transport


def plan_job(job: DeviceJob, listen: Listener = nobody, pause: Pause = just_sleep) -> DeviceReport:
    """Probes a device and plans its deploy; the plan is in the report's `details`."""

    def plan_it(transport: Transport, facts: Facts, recorder: Recorder) -> DeviceReport:
        plan = plan_device(job.target, facts, job.package, job.options)
        if any(step.action == "activate" for step in plan.steps):
            plan = replace(plan, compared=_compare(job, transport, facts))
        refusal = plan.refusal
        return recorder.end(
            Outcome.ANSWERED if refusal is None else Outcome.FAILED,
            exit_code=refusal.exit_code if refusal else 0,
            message=refusal.message if refusal else "",
            hint=refusal.hint if refusal else "",
            reason=refusal.reason if refusal else "",
            details=json_codec.dumps(plan),
            warnings=plan.warnings,
        )

    return visit(job, plan_it, listen, pause)


def _compare(job: DeviceJob, transport: Transport, facts: Facts) -> Compared | None:
    """Returns the device's release beside the new one; None where it has none, or its agent cannot compare."""
    if facts.agent is None or facts.agent.answering in (None, job.package.digest):
        return None
    directory = Path(job.package.directory)
    try:
        info = model_file.read_info(directory / constants.MODEL_FILE)
        data = read_small(directory / constants.GOLDEN_FILE, constants.MAX_GOLDEN)
        golden = Golden.from_bytes(data)
        running = ask(transport, facts, ["compare"], Running, timeout=job.pace.command, input=data)
    except (KnnkitError, ModelUnusable, OSError):
        return None
    return changes.compare(running, info, golden, golden.label)


def plans_of(report: FleetReport) -> list[DevicePlan]:
    """Returns the plans of the devices that could be reached."""
    return [device.answer(DevicePlan) for device in report.devices if device.details]

"""Plans a device's deploy for `--dry-run`; changes nothing."""

from __future__ import annotations

from device_agent.shared.protocol import json_codec
from knnkit.fleet.decide.plan import DevicePlan, plan_device
from knnkit.fleet.device.connect import Pause, just_sleep
from knnkit.fleet.device.one_shot import visit
from knnkit.fleet.device.probe import Facts
from knnkit.fleet.device.recorder import Listener, Recorder, nobody
from knnkit.fleet.jobs.job import DeviceJob
from knnkit.fleet.report import DeviceReport, FleetReport, Outcome
from knnkit.transport.base import Transport


def plan_job(job: DeviceJob, listen: Listener = nobody, pause: Pause = just_sleep) -> DeviceReport:
    """Probes a device and plans its deploy; the plan is in the report's `details`."""

    def plan_it(_: Transport, facts: Facts, recorder: Recorder) -> DeviceReport:
        plan = plan_device(job.target, facts, job.package, job.options)
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


def plans_of(report: FleetReport) -> list[DevicePlan]:
    """Returns the plans of the devices that could be reached."""
    return [device.answer(DevicePlan) for device in report.devices if device.details]

"""Provisions one device, or removes knnkit from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from device_agent.shared.protocol import json_codec
from knnkit.errors import DeviceFailed
from knnkit.fleet.device.connect import Job, Pause, just_sleep
from knnkit.fleet.device.one_shot import visit
from knnkit.fleet.device.probe import Facts
from knnkit.fleet.device.recorder import Listener, Recorder, nobody
from knnkit.fleet.jobs.check import trial
from knnkit.fleet.jobs.job import DeviceJob
from knnkit.fleet.report import DeviceReport, Outcome
from knnkit.provision import Provisioned, provision, remove
from knnkit.transport.base import Transport

NO_KEY = "the device trusts no signing key yet: give one with --key, or nothing can be deployed to it"


@dataclass(frozen=True)
class ProvisionJob(Job):
    """The job of provisioning one device; `keys` maps fingerprints to PEM texts."""

    keys: tuple[tuple[str, bytes], ...] = ()
    offline: bool = False
    wheels: str | None = None
    remove: bool = False
    pictures: bool = False
    nonce: str = ""  # for the certificate of the present release in the new environment


def provision_device(job: ProvisionJob, listen: Listener = nobody, pause: Pause = just_sleep) -> DeviceReport:
    """Provisions one device, or removes knnkit from it; returns a report, also if the device fails.

    The report's `details` are JSON: what was installed (a `Provisioned`), or `{"removed": true}`.
    """
    return visit(job, partial(_remove if job.remove else _provision, job), listen, pause, full=True)


def _provision(job: ProvisionJob, transport: Transport, facts: Facts, recorder: Recorder) -> DeviceReport:
    target = job.target
    if facts.noexec:
        said, hint = facts.noexec
        raise DeviceFailed(f"{target.name}: {said}", reason="noexec", hint=hint)
    recorder.warn(*filter(None, [facts.fleeting]))
    done = install(job, transport, facts, recorder, keys=dict(job.keys), pictures=job.pictures)
    trusts = bool(job.keys) or bool(facts.agent and facts.agent.trusted)
    recorder.warn(*([] if trusts else [NO_KEY]))
    revoked = facts.agent.revoked if facts.agent else ()
    recorder.warn(*(f"the device still refuses {key}, which was revoked" for key in dict(job.keys) if key in revoked))
    recorder.know(sent_bytes=done.sent, details=json_codec.dumps(done))
    return recorder.end(Outcome.ANSWERED if done.changed else Outcome.UNCHANGED)


def install(
    job: ProvisionJob | DeviceJob,
    transport: Transport,
    facts: Facts,
    recorder: Recorder,
    *,
    keys: Mapping[str, bytes],
    pictures: bool,
) -> Provisioned:
    """Installs the agent on one device; the release that runs there must pass its check in the new environment.

    `keys` (fingerprint -> PEM) are keys that the device shall trust; `pictures`: whether it must decode PNG and JPEG.
    """
    prove = trial(job.target, transport, facts, recorder, job.nonce, timeout=job.pace.command)
    with recorder.step("provision") as progress:
        done = provision(
            transport,
            facts,
            root=facts.root,
            keys=keys,
            offline=job.offline,
            wheels_dir=Path(job.wheels) if job.wheels else None,
            runtime=job.target.runtime,
            pictures=pictures,
            prove=prove,
            progress=progress,
        )
    recorder.warn(*done.notes)
    return done


def _remove(job: ProvisionJob, transport: Transport, facts: Facts, recorder: Recorder) -> DeviceReport:
    with recorder.step("remove"):
        removed = remove(transport, facts, root=facts.root, warn=recorder.warn)
    recorder.know(details=json_codec.dumps({"removed": removed}))
    return recorder.end(Outcome.ANSWERED if removed else Outcome.UNCHANGED)

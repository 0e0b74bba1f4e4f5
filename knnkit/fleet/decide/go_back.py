"""Which devices of a failed rollout go back; no I/O.

Only devices that committed the release in this run go back, each to the release that it ran before. The host sends the
digest of the release to leave. If another host has changed the device since, the device stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.documents import ReleaseRef
from knnkit.fleet.report import DeviceReport, Outcome, named_apart


def committed(done: Iterable[DeviceReport]) -> tuple[DeviceReport, ...]:
    """Returns those devices of `done` that committed the release in this run."""
    return tuple(report for report in done if report.outcome is Outcome.COMMITTED)


def gone_back(before: DeviceReport, answer: DeviceReport | None, exit_code: int) -> DeviceReport:
    """Returns the new report of a device whose release should be rolled back.

    `before` is its report of the deploy, `answer` that of the rollback (None: it was not asked). A device that went
    back gets `exit_code`, that of the failed run, in its report.
    """
    if answer is None and before.previous:
        return _stays(before, "the run was interrupted before this device was asked")
    if answer is None:
        return _stays(
            before, "the device ran no release before", "correct the release, then knnkit deploy --target HOST"
        )
    before = replace(
        before,
        seconds=before.seconds + answer.seconds,
        steps=before.steps + answer.steps,
        connections=before.connections + answer.connections,
        warnings=tuple(dict.fromkeys(before.warnings + answer.warnings)),
    )
    if answer.outcome not in (Outcome.COMMITTED, Outcome.UNCHANGED) or answer.release is None:
        return _stays(before, answer.said, answer.hint)
    back = answer.outcome is Outcome.COMMITTED or answer.release == before.previous
    said = "rolled back to" if back else "another host has replaced the release since; the device runs"
    return replace(
        before,
        outcome=Outcome.ROLLED_BACK,
        exit_code=exit_code,
        reason="rollout-rolled-back",
        message=f"{before.name}: {said} {named_apart(answer.release, before.release if back else None)}",
        release=answer.release,
        previous=answer.previous,
        certificate=None,
    )


def _stays(before: DeviceReport, why: str, hint: str = "") -> DeviceReport:
    return replace(
        before,
        exit_code=constants.EXIT_FAILED,
        reason="not-rolled-back",
        message=f"{before.name}: still on {_named(before.release)}, not rolled back: {why}",
        hint=hint or "knnkit rollback --target HOST",
    )


def _named(release: ReleaseRef | None) -> str:
    return f"{release.name} {release.version}" if release else "the release"

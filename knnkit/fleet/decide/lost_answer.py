"""Decides a switch's outcome if the device's answer was lost.

Also if the host rejected this answer. The host then runs `rollback --own`, and the device's reply decides: only the
device knows whether it switched, and whether another host has changed it since. Never uses a timeout. Without a reply,
the report says so.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from device_agent.shared.protocol.reports import TakenBack
from knnkit.errors import DeviceFailed, DeviceLocked, KnnkitError, ParityFailed, Unreachable
from knnkit.fleet.report import Outcome


class Stage(enum.Enum):
    """Last known step of a switch; the value begins the sentence "… the device returns to the previous release"."""

    ASKED = "if the release was activated, "
    ACTIVATED = "the release was activated and not confirmed: "
    CONFIRMING = "the release was activated; unless the confirmation arrived, "


@dataclass(frozen=True)
class Aftermath:
    """Outcome of a device. `error`: why it does not run the release (None: it does); `more`: text after the error."""

    outcome: Outcome | None  # None: by the class of the error
    error: KnnkitError | None
    more: str = ""


def judge(error: KnnkitError, stage: Stage, found: TakenBack, digest: str, seconds: float) -> Aftermath:
    """Returns the outcome of a device, from `found`: its reply to `rollback --own`.

    `error` ended its switch to the release `digest` at the step `stage`; the device waits `seconds` for a confirmation.
    """
    became = found.became if found.became and _is(found.became.release, digest) else None
    if _is(found.committed, digest):
        return _running(error, became is not None and became.what == "confirmed")
    if became and became.what == "confirmed":
        instead = found.committed.version if found.committed else "nothing"
        return Aftermath(Outcome.ROLLED_BACK, error, f"the release was confirmed, and {instead} has replaced it since")
    if became or stage is not Stage.ASKED:
        why = became.why if became and not found.taken and _is_silence(error) else ""
        return Aftermath(Outcome.ROLLED_BACK, error, f"the device went back: {why}" if why else "")
    if found.pending and _is_silence(error):
        who = found.lock.holder if found.lock else "somebody else"
        said = f"this run switched nothing; {who} activated {found.pending.version}, which waits for its confirmation"
        return Aftermath(Outcome.LOCKED, DeviceLocked(f"{error}; {said}", reason="locked", hint="wait, then run again"))
    if isinstance(error, Unreachable):  # the lost command may still be running there
        return unknown(error, stage, seconds)
    return Aftermath(None, error)


def unknown(error: KnnkitError, stage: Stage, seconds: float) -> Aftermath:
    """Returns the outcome of a device that does not reply after `error` ended its switch at the step `stage`.

    Without a confirmation, it returns to its previous release within `seconds`.
    """
    if isinstance(error, Unreachable):
        error = Unreachable(str(error), reason=error.reason, hint="run it again when the device can be reached")
    return Aftermath(None, error, f"{stage.value}the device returns to the previous release within {seconds:g} s")


def _running(error: KnnkitError, own: bool) -> Aftermath:
    """Returns the outcome of a device that runs the new release although `error` ended the switch.

    `own`: whether this run committed the release, not another host.
    """
    if isinstance(error, ParityFailed):
        return Aftermath(Outcome.FAILED, error, "the release could not be reverted: another host has confirmed it")
    said = "the device says that the release was confirmed" if own else "another host has committed the release"
    return Aftermath(Outcome.COMMITTED if own else Outcome.UNCHANGED, None, f"{error}; {said}")


def _is_silence(error: KnnkitError) -> bool:
    return isinstance(error, Unreachable | DeviceFailed)


def _is(release: object, digest: str) -> bool:
    return getattr(release, "digest", None) == digest

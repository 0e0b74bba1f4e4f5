"""Decides the outcome after a lost or rejected answer. Pure.

The host then runs `rollback --own`, and the device's reply decides: only the device knows whether it switched, and
whether another host has changed it since. Never uses a timeout. Without a reply, the report says so.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from device_agent.shared.protocol.reports import TakenBack
from knnkit.errors import DeviceFailed, DeviceLocked, KnnkitError, ParityFailed, Unreachable
from knnkit.fleet.report import Outcome


class Stage(enum.Enum):
    """How far a switch got, as far as the host knows; the value begins the message if the device does not reply."""

    ASKED = "if it was activated, "
    ACTIVATED = "it was activated and not confirmed: "
    CONFIRMING = "it was activated; unless the confirmation arrived, "


@dataclass(frozen=True)
class Aftermath:
    """A device's outcome: `error` says why it is not on the release (None: it is); `more` adds to the message."""

    outcome: Outcome | None  # None: by the class of the error
    error: KnnkitError | None
    more: str = ""


def judge(error: KnnkitError, stage: Stage, found: TakenBack, digest: str, seconds: float) -> Aftermath:
    """Returns the outcome of a device from `found`, its reply to `rollback --own`.

    `error` ended the switch to the release `digest` at `stage`. The device waits `seconds` for a confirmation.
    """
    became = found.became if found.became and _is(found.became.release, digest) else None
    if _is(found.committed, digest):
        return _running(error, became is not None and became.what == "confirmed")
    if became and became.what == "confirmed":
        instead = found.committed.version if found.committed else "nothing"
        return Aftermath(Outcome.ROLLED_BACK, error, f"it was confirmed, and {instead} has taken its place since")
    if became or stage is not Stage.ASKED:
        why = became.why if became and not found.taken and _is_silence(error) else ""
        return Aftermath(Outcome.ROLLED_BACK, error, f"the device went back: {why}" if why else "")
    if found.pending and _is_silence(error):
        who = found.lock.holder if found.lock else "somebody else"
        said = f"nothing of this run was switched; {who} began the activation of {found.pending.version} that waits"
        return Aftermath(Outcome.LOCKED, DeviceLocked(f"{error}; {said}", reason="locked", hint="wait, then run again"))
    if isinstance(error, Unreachable):  # the lost command may still be running there
        return unknown(error, stage, seconds)
    return Aftermath(None, error)


def unknown(error: KnnkitError, stage: Stage, seconds: float) -> Aftermath:
    """Returns the outcome of a device without a reply; the arguments are those of `judge`."""
    if isinstance(error, Unreachable):
        error = Unreachable(str(error), reason=error.reason, hint="run the command again when it can be reached")
    return Aftermath(None, error, f"{stage.value}it returns to the previous release within {seconds:g} s")


def _running(error: KnnkitError, own: bool) -> Aftermath:
    """Returns the outcome of a device that has the release, by this run or another."""
    if isinstance(error, ParityFailed):
        return Aftermath(Outcome.FAILED, error, "it could not be reverted: another host has confirmed it")
    said = "the device says that it was confirmed" if own else "another host has committed the release"
    return Aftermath(Outcome.COMMITTED if own else Outcome.UNCHANGED, None, f"{error}; {said}")


def _is_silence(error: KnnkitError) -> bool:
    return isinstance(error, Unreachable | DeviceFailed)


def _is(release: object, digest: str) -> bool:
    return getattr(release, "digest", None) == digest

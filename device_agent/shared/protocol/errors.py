"""What can go wrong on a device, and the exit code of each.

AgentError              2  bad arguments or bad input
├── BadInput            2  a row, a file or a format that cannot be classified
├── DeviceUnfit         1  no runtime, no disk, no rights: `doctor` names what mends it
├── ActivationFailed    1  the release was tried and given up; the previous one answers
├── Refused             4  a trust rule said no (device_agent.trust)
├── GateFailed          4  parity, accuracy or latency is outside the release's gates
├── ModelUnusable       4  the `.tflite` cannot be loaded, or is not a knnkit model
└── Locked              5  another process holds the store

Interrupted           130  somebody sent a signal; of the host's command line, too

`reason` is a stable word for programs (and for the host); the message is for people; `hint` is the next thing to do.
"""

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from device_agent.shared.protocol.reports import Certificate


class ReportedError(Exception):
    """The base of every error that a command line reports; `exit_code` is what the process exits with."""

    exit_code = 2
    default_reason = ""

    def __init__(self, message: str, *, reason: str | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.reason = reason or self.default_reason
        self.hint = hint
        if hint and sys.version_info >= (3, 11):
            self.add_note(f"try: {hint}")  # shown below a traceback


class Interrupted(ReportedError):
    """Somebody pressed Ctrl-C, or told the process to end."""

    exit_code = 130
    default_reason = "interrupted"


class AgentError(ReportedError):
    """The base of every error of the agent."""

    default_reason = "bad-arguments"


class BadInput(AgentError):
    """Input that cannot be classified: the message names the file, the line and the column."""

    default_reason = "bad-input"


class DeviceUnfit(AgentError):
    """The board lacks something that is needed."""

    exit_code = 1
    default_reason = "device-unfit"


class ActivationFailed(AgentError):
    """An activation was given up; the release before it answers."""

    exit_code = 1
    default_reason = "activation-failed"


class Refused(AgentError):
    """A trust rule refused; nothing was changed."""

    exit_code = 4
    default_reason = "refused"


class GateFailed(AgentError):
    """The release does not keep what it promises on this device."""

    exit_code = 4
    default_reason = "gate-failed"
    certificate: Certificate | None = None


class ModelUnusable(AgentError):
    """The file is not a model that this device can run."""

    exit_code = 4
    default_reason = "model-unusable"


class Locked(AgentError):
    """Somebody else is changing the store: the message says who, since when and why."""

    exit_code = 5
    default_reason = "locked"


_DISK = {
    errno.ENOSPC: ("disk-full", "make room on the device: df -h, then try again"),
    errno.EDQUOT: ("disk-full", "make room on the device: df -h, then try again"),
    errno.EROFS: ("read-only", "the file system is read-only (a worn card?): mount | grep ro, dmesg | tail"),
    errno.EIO: ("disk-error", "the disk fails: dmesg | tail, then replace it"),
    errno.EACCES: ("no-permission", "run as the owner of the root directory, or correct it: chown -R, chmod -R u+rwX"),
    errno.EPERM: ("no-permission", "run as the owner of the root directory, or correct it: chown -R, chmod -R u+rwX"),
}


def from_os_error(error: OSError) -> DeviceUnfit:
    """Returns what the operating system refused as an error of this tree, with a stable reason."""
    reason, hint = _DISK.get(error.errno or 0, ("os-error", "python -m device_agent doctor"))
    where = f"{error.filename}: " if error.filename else ""
    return DeviceUnfit(f"{where}{error.strerror or error}", reason=reason, hint=hint)

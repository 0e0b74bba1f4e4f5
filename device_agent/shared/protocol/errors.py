"""Errors of the agent, with their exit codes.

AgentError              2  bad arguments or bad input
├── BadInput            2  a row, a file or a format that cannot be classified
├── DeviceUnfit         1  no runtime, disk space or permission: `doctor` prints the command that repairs it
├── ActivationFailed    1  an activation, its confirmation or a rollback failed
├── Refused             4  a trust rule refused the release or order (device_agent.shared.trust)
├── GateFailed          4  parity, accuracy, latency or another figure misses its gate
├── ModelUnusable       4  the `.tflite` cannot be loaded, or is not a knnkit model
└── Locked              5  another process holds the store's lock, or an activation is pending
Interrupted           130  Ctrl-C or another signal; also used by the host's command line

`reason` is a stable word for programs (and for the host); the message is for people; `hint` is the next command to
type.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from device_agent.shared.protocol.constants import plain

if TYPE_CHECKING:
    from device_agent.shared.protocol.reports import Certificate


class ReportedError(Exception):
    """Base class of every error that a command line reports; the process exits with `exit_code`."""

    exit_code = 2
    default_reason = ""

    def __init__(self, message: str, *, reason: str | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.reason = reason or self.default_reason
        self.hint = hint
        if hint and sys.version_info >= (3, 11):
            self.add_note(f"try: {hint}")  # shown below a traceback


class Interrupted(ReportedError):
    """The process received Ctrl-C or a signal to end."""

    exit_code = 130
    default_reason = "interrupted"


class AgentError(ReportedError):
    """Base class of every error of the agent."""

    default_reason = "bad-arguments"


class BadInput(AgentError):
    """Input that cannot be classified: the message names the file, the line and the column."""

    default_reason = "bad-input"


@contextlib.contextmanager
def named(name: object, hint: str = "") -> Iterator[None]:
    """Puts `name` before the message of a BadInput from the `with` block; gives the error `hint` if it has none."""
    try:
        yield
    except BadInput as error:
        raise BadInput(f"{plain(str(name))}: {error}", reason=error.reason, hint=error.hint or hint) from None


class DeviceUnfit(AgentError):
    """The board lacks something that the agent needs: a runtime, disk space or a permission."""

    exit_code = 1
    default_reason = "device-unfit"


class ActivationFailed(AgentError):
    """An activation, its confirmation or a rollback failed."""

    exit_code = 1
    default_reason = "activation-failed"


class Refused(AgentError):
    """A trust rule refused a release or an order, or the release does not allow taught rows; nothing was changed."""

    exit_code = 4
    default_reason = "refused"


class GateFailed(AgentError):
    """The release misses one of its gates on this device, such as parity, accuracy or latency."""

    exit_code = 4
    default_reason = "gate-failed"
    certificate: Certificate | None = None


class ModelUnusable(AgentError):
    """The file is not a model that this device can run."""

    exit_code = 4
    default_reason = "model-unusable"


class Locked(AgentError):
    """Another process is changing the store, or an activation waits for its confirmation; the message says which."""

    exit_code = 5
    default_reason = "locked"

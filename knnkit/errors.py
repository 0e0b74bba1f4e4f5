"""What can go wrong on the host, and the exit code of each.

KnnkitError               2
├── UsageError            2  the command line
├── ConfigError           2  deploy.yaml: file, line, suggestion
├── DataError             2  training data: file, line, column
├── BuildError            2  the model cannot be built as asked
├── SigningKeyError       2  a signing key: missing, unreadable, too open, wrong passphrase
├── MissingDependency     2  a package of an extra is not installed
├── Unreachable           3  no connection: address, port, authentication, host key, deadline
│   └── HostKeyError      3  unknown or changed host key
├── DeviceFailed          1  the device said no, or said nothing sensible
├── VerificationFailed    4  a signature, digest or rule of a release
├── ParityFailed          4  a device answers otherwise than the reference, or under the floor
├── DeviceLocked          5  somebody else is deploying to it
└── NothingToDo           0  what was asked for is the case already

A message says what was wrong and where; `hint` says what to type next. Only `console.program` makes exit codes of
them.
"""

from __future__ import annotations

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import ReportedError


class KnnkitError(ReportedError):
    """The base of every error that knnkit raises on purpose."""


class UsageError(KnnkitError):
    """The command line asks for something that does not exist or does not fit."""


class ConfigError(KnnkitError):
    """deploy.yaml is wrong; the message carries file, line and the closest known key."""


class DataError(KnnkitError):
    """Training data that no model can be built from; the message carries file, line and column."""


class BuildError(KnnkitError):
    """The model cannot be built as asked, or the target cannot run it."""


class SigningKeyError(KnnkitError):
    """A signing or verification key is missing, unreadable, too open, or its passphrase is wrong."""


class MissingDependency(KnnkitError):
    """A package that only some commands need is not installed; the hint is the pip command."""


class Unreachable(KnnkitError):
    """No working connection to a device: name, port, authentication or deadline."""

    exit_code = constants.EXIT_UNREACHABLE


class HostKeyError(Unreachable):
    """The device's host key is unknown, or is not the one that is known."""


class DeviceFailed(KnnkitError):
    """A device could not do what was asked, or its answer does not keep the contract."""

    exit_code = constants.EXIT_FAILED


class VerificationFailed(KnnkitError):
    """A release does not verify."""

    exit_code = constants.EXIT_REFUSED


class ParityFailed(KnnkitError):
    """A device's answers are not the host's, or are under the release's floor."""

    exit_code = constants.EXIT_REFUSED


class DeviceLocked(KnnkitError):
    """Another host is changing the device."""

    exit_code = constants.EXIT_LOCKED


class NothingToDo(KnnkitError):
    """What was asked for is the case already: told, and no failure."""

    exit_code = constants.EXIT_OK


def from_os_error(error: OSError) -> KnnkitError:
    """Returns what the operating system refused, and where, as an error of this tree."""
    where = f"{error.filename}: " if error.filename else ""
    return UsageError(f"{where}{error.strerror or error}", reason="os-error")

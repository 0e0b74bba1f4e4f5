"""Errors of the host, with their exit codes.

KnnkitError               2
├── UsageError            2  the command line
├── ConfigError           2  deploy.yaml: file, line, suggestion
├── DataError             2  training data: file, line, column
├── BuildError            2  the model cannot be built as configured
├── SigningKeyError       2  a signing key: missing, unreadable, readable by others, wrong passphrase
├── MissingDependency     2  a package of an extra is not installed
├── Unreachable           3  no connection: address, port, authentication, host key, deadline
│   └── HostKeyError      3  unknown or changed host key
├── DeviceFailed          1  the device refused, or its answer is malformed
├── VerificationFailed    4  a signature, digest or rule of a release
├── ParityFailed          4  a device's answers differ from the reference, or its accuracy is too low
├── DeviceLocked          5  another host is deploying to it
└── NothingToDo           0  the requested state is already there

A message says what was wrong and where; `hint` says what to type next. Only `console.program` turns them into exit
codes.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from device_agent.shared.os_errors import explain
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import AgentError, ReportedError

#: `KnnkitError.key` of an error about a file that deploy.yaml names.
FILE = "file"


def extra(name: str) -> str:
    """Returns the command that installs an extra of knnkit; knnkit is not on a package index."""
    return f"in the clone of knnkit: pip install '.[{name}]'"


class KnnkitError(ReportedError):
    """The base of every error that knnkit raises on purpose.

    Attributes:
        key: path of the wrong key in deploy.yaml, such as `data/features`. FILE: the wrong key is the one whose value
            is the file in the message. "": it is the first word of the message, if that is a key.
        flags: another text for `hint`, which names flags of the command line, not keys of deploy.yaml; "": none.
    """

    def __init__(
        self, message: str, *, reason: str | None = None, hint: str = "", key: str = "", flags: str = ""
    ) -> None:
        super().__init__(message, reason=reason, hint=hint)
        self.key, self.flags = key, flags


class UsageError(KnnkitError):
    """The command line is wrong: a name does not exist, options exclude each other, or a file cannot be used."""


class ConfigError(KnnkitError):
    """deploy.yaml is wrong; the message has file, line and the closest known key."""


class DataError(KnnkitError):
    """Training data is invalid; the message has file, line and column."""


class BuildError(KnnkitError):
    """The model cannot be built as configured, or the target cannot run it."""


class SigningKeyError(KnnkitError):
    """A signing or verification key is missing, unreadable, readable by others, or its passphrase is wrong."""


class MissingDependency(KnnkitError):
    """A package that only some commands need is not installed; the hint is the pip command."""


class Unreachable(KnnkitError):
    """A device cannot be connected to, or does not answer in time."""

    exit_code = constants.EXIT_UNREACHABLE


class HostKeyError(Unreachable):
    """The device's host key is unknown, or differs from the known one."""


class DeviceFailed(KnnkitError):
    """A command failed on a device, or its answer is malformed."""

    exit_code = constants.EXIT_FAILED


class VerificationFailed(KnnkitError):
    """A release is not valid: a signature, a digest or a rule of releases is wrong."""

    exit_code = constants.EXIT_REFUSED


class ParityFailed(KnnkitError):
    """A device's answers differ from the host's, or its accuracy is below the release's limit."""

    exit_code = constants.EXIT_REFUSED


class DeviceLocked(KnnkitError):
    """Another host is changing the device."""

    exit_code = constants.EXIT_LOCKED


class NothingToDo(KnnkitError):
    """The requested state is already there: the message is printed, and the exit code is 0."""

    exit_code = constants.EXIT_OK


@contextlib.contextmanager
def needs(said: str, name: str = "build") -> Iterator[None]:
    """Turns an ImportError in the block into a MissingDependency with the message `said`; `name`: extra to install."""
    try:
        yield
    except ImportError:
        raise MissingDependency(said, hint=extra(name)) from None


@contextlib.contextmanager
def raised_as(kind: type[KnnkitError], where: object = "", hint: str = "") -> Iterator[None]:
    """Turns an error of device_agent in the block into one of the class `kind`; `where`, if given, begins its message.

    An error without a hint gets `hint`.
    """
    try:
        yield
    except AgentError as error:
        said = f"{where}: {error}" if where else str(error)
        raise kind(said, reason=error.reason, hint=error.hint or hint) from None


@contextlib.contextmanager
def flags_for(*keys: str) -> Iterator[None]:
    """Makes the hint of a DataError in the block name flags of the command line, not keys of deploy.yaml.

    `keys`: the keys of `data` for which the command has a flag; errors about other keys are unchanged.
    """
    try:
        yield
    except DataError as error:
        if error.flags and (not error.key or error.key.split("/")[1] in keys):
            error.hint = error.flags
        raise


def names_path(said: str, path: str) -> bool:
    """Whether the message `said` has `path` as a whole path, not as a part of a longer one."""
    return re.search(rf"(?<![\w./~-]){re.escape(path)}(?![\w/-]|\.\w)", said) is not None


def unwritten(said: str, error: OSError, kind: type[KnnkitError] = UsageError, hint: str = "") -> KnnkitError:
    """Returns an error of the class `kind`, with the message `said` and the cause `error`.

    Its hint is a known remedy for this cause, or else `hint`.
    """
    reason, _, remedy = explain(error)
    return kind(f"{said}: {error.strerror or error}", reason=reason, hint=remedy or hint)


def from_os_error(error: OSError) -> KnnkitError:
    """Converts an error of the operating system to a UsageError, which names the file if `error` does."""
    reason, said, hint = explain(error)
    return UsageError(said, reason=reason, hint=hint)

"""Compares versions of agents, runtimes and protocols; no I/O."""

from __future__ import annotations

import re
from time import gmtime, strftime
from typing import Literal

from device_agent.shared.protocol import constants

_VERSION = r"(\d{1,9}(?:\.\d{1,9}){0,4})(?:[-+._]?[A-Za-z][A-Za-z0-9.+_-]{0,60})?"
#: ai-edge-litert restarted its version numbers: every release has at least the operators of this TensorFlow Lite.
_LITERT_IS_AT_LEAST = (2, 17)


def parse(text: str) -> tuple[int, ...] | None:
    """Returns the numbers of a version, without zeros at the end: (2, 14) for `2.14.0rc1`; None for any other text."""
    match = re.fullmatch(_VERSION, text, re.ASCII)
    if match is None:
        return None
    numbers = [int(part) for part in match[1].split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def is_newer(text: str, than: str) -> bool:
    """Whether version `text` is newer than `than`; text that is not a version counts as oldest."""
    return (parse(text) or ()) > (parse(than) or ())


def to_upgrade(protocol: int, oldest: int) -> Literal["agent", "host"] | None:
    """Returns which of agent and host is too old to speak with the other; None if they share a protocol.

    The agent speaks the protocols from `oldest` to `protocol`, the host those in `constants`.
    """
    if protocol < constants.OLDEST_PROTOCOL:
        return "agent"
    return "host" if oldest > constants.PROTOCOL else None


def runtime(text: str) -> tuple[int, ...] | None:
    """Returns the TensorFlow Lite version of a runtime: (2, 14) for `tflite_runtime 2.14.0` or `2.14`; None if unknown.

    The versions of `ai_edge_litert` began again at 1.0, so each counts as at least (2, 17). NumPy runs every model, so
    it counts as newer than all others.
    """
    name, _, number = text.rpartition(" ")
    if name == constants.NUMPY:
        return (10**9,)
    parsed = parse(number)
    if parsed is not None and name == "ai_edge_litert":
        return max(parsed, _LITERT_IS_AT_LEAST)
    return parsed


def utc(seconds: int) -> str:
    """Returns a time in seconds since 1970 as `2026-01-31T12:00:00Z`; beyond the calendar, as a number of seconds."""
    try:
        return strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(seconds))
    except (ValueError, OverflowError, OSError):
        return f"{seconds} seconds after 1970"

"""Compares the versions of agents, runtimes and protocols. Knows numbers and dots, no more; does no I/O."""

from __future__ import annotations

import re
from time import gmtime, strftime
from typing import Literal

from device_agent.shared.protocol import constants

_VERSION = r"(\d{1,9}(?:\.\d{1,9}){0,4})(?:[-+._]?[A-Za-z][A-Za-z0-9.+_-]{0,60})?"
#: ai-edge-litert counts anew: each of its releases has at least the operations of this TensorFlow Lite.
_LITERT_IS_AT_LEAST = (2, 17)


def parse(text: str) -> tuple[int, ...] | None:
    """Returns `2.14.0rc1` as (2, 14) with trailing zeros and suffix cut off, or None if it is no version."""
    match = re.fullmatch(_VERSION, text, re.ASCII)
    if match is None:
        return None
    numbers = [int(part) for part in match[1].split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def is_newer(text: str, than: str) -> bool:
    """Whether one version is newer than another; what is no version is not."""
    return (parse(text) or ()) > (parse(than) or ())


def to_upgrade(protocol: int, oldest: int) -> Literal["agent", "host"] | None:
    """Returns which side is too old for the other; None where they understand each other.

    Args:
        protocol: the agent's `PROTOCOL`.
        oldest: its `OLDEST_PROTOCOL`.
    """
    if protocol < constants.OLDEST_PROTOCOL:
        return "agent"
    return "host" if oldest > constants.PROTOCOL else None


def runtime(text: str) -> tuple[int, ...] | None:
    """Returns `tflite_runtime 2.14.0`, `ai_edge_litert 2.3.0` or a bare version as a TensorFlow Lite version."""
    name, _, number = text.rpartition(" ")
    parsed = parse(number)
    if parsed is not None and name == "ai_edge_litert":
        return max(parsed, _LITERT_IS_AT_LEAST)
    return parsed


def utc(seconds: int) -> str:
    """Returns `2026-01-31T12:00:00Z`; a number that no calendar reaches as it is."""
    try:
        return strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(seconds))
    except (ValueError, OverflowError, OSError):
        return f"{seconds} seconds after 1970"

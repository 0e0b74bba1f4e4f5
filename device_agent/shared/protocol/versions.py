"""Versions of agents and runtimes, and dates as text. Reads no clock."""

from __future__ import annotations

import re
from time import gmtime, strftime

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

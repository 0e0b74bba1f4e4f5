"""Seconds since 1970 as people read them. Reads no clock."""

from __future__ import annotations

import time


def utc(seconds: int) -> str:
    """Returns `2026-01-31T12:00:00Z`; a number that no calendar reaches as it is."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    except (ValueError, OverflowError, OSError):
        return f"{seconds} seconds after 1970"

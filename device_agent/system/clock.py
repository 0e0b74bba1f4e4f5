"""Boot id, uptime and date of the board.

Deadlines count seconds of CLOCK_BOOTTIME within one boot, because a board's date is often wrong and jumps when NTP
answers. Never waits.
"""

from __future__ import annotations

import time
from pathlib import Path

from device_agent.shared.protocol.record import record

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@record
class Moment:
    """A point in time: `uptime` in seconds since the boot with the id `boot`, `wall` in seconds since 1970."""

    boot: str
    uptime: float
    wall: int


def now() -> Moment:
    """Returns the present moment; `boot` is "" if the kernel's boot id cannot be read (no /proc)."""
    return Moment(_boot_id(), uptime(), int(time.time()))


def uptime() -> float:
    """Returns the seconds since the kernel started, including time in suspend."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""

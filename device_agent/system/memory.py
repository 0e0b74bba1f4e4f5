"""Decides whether a model's weights may be packed in memory.

XNNPACK's packing keeps a copy of the weights for each graph. Reads sizes only; loads no model."""

from __future__ import annotations

from pathlib import Path

#: Weights up to this size in bytes are packed on every board, for streams, too.
SMALL = 32 << 20
#: Graphs of a model: one for a single row, one for a batch.
_COPIES = 2


def may_pack(weights: int) -> bool:
    """Whether packing `weights` bytes leaves half of the free memory free; True if free memory is unknown."""
    available = available_bytes()
    return weights <= SMALL or available is None or _COPIES * weights <= available // 2


def available_bytes() -> int | None:
    """Returns the free memory in bytes (MemAvailable); None if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(found.split()[1]) * 1024
    except (OSError, StopIteration, ValueError, IndexError):
        return None

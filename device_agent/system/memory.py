"""How much memory a model may take: XNNPACK holds a copy of the weights for each graph. Reads sizes, loads nothing."""

from __future__ import annotations

from pathlib import Path

#: Weights up to this size in bytes are packed on any board, and for a stream, too.
SMALL = 32 << 20
#: One for a row, one for a batch.
_COPIES = 2


def may_pack(weights: int) -> bool:
    """Whether packing so many bytes of weights leaves half of the free memory free; True where that is not known."""
    available = available_bytes()
    return weights <= SMALL or available is None or _COPIES * weights <= available // 2


def available_bytes() -> int | None:
    """Returns the memory that processes can still have, None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(found.split()[1]) * 1024
    except (OSError, StopIteration, ValueError, IndexError):
        return None

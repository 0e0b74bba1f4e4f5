"""How much memory a model may take: XNNPACK holds a copy of the weights for each graph. Reads sizes, loads nothing."""

from __future__ import annotations

from pathlib import Path

#: Models up to this size in bytes are packed on any board, and for a stream, too.
SMALL = 32 << 20
_COPIES = 2  # one for each signature


def may_pack(path: str) -> bool:
    """Whether packing the model at `path` leaves half of the free memory free; True where that is not known."""
    size = Path(path).stat().st_size
    available = available_bytes()
    return size <= SMALL or available is None or _COPIES * size <= available // 2


def may_pack_for_stream(path: str) -> bool:
    """Whether to pack a model that answers single rows: only a small one, where it costs nothing to speak of."""
    return Path(path).stat().st_size <= SMALL


def available_bytes() -> int | None:
    """Returns the memory that processes can still have, None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(found.split()[1]) * 1024
    except (OSError, StopIteration, ValueError, IndexError):
        return None

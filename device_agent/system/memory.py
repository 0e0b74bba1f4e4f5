"""How much memory a model may use.

XNNPACK (the CPU kernels of TFLite) holds a copy of the weights for each graph. A control group (a container, a service
with MemoryMax) may allow less than the system has; both limits count. Reads sizes, loads nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

#: Weights up to this size in bytes are packed on every board, for streams, too.
SMALL = 32 << 20
#: Weights up to this size in bytes are packed when a model is loaded, in some 10 ms; larger ones after the first rows.
AT_ONCE = 4 << 20
#: Graphs of a model: one for a single row, one for a batch.
_COPIES = 2
_GROUPS = Path("/sys/fs/cgroup")
#: Version of control groups -> files with limit and usage; line of memory.stat with the part that can be freed at once.
_FILES = {
    2: ("memory.max", "memory.current", "inactive_file"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def may_pack(weights: int) -> bool:
    """Whether XNNPACK may copy `weights` bytes for each graph: at most `SMALL`, or half the free memory stays free."""
    if weights <= SMALL:
        return True
    available = available_bytes()
    return available is None or _COPIES * weights <= available // 2


def available_bytes() -> int | None:
    """Returns the bytes of memory that processes can still allocate; None if the system does not report it."""
    system = _field(Path("/proc/meminfo"), "MemAvailable:")
    free = [system * 1024] if system is not None else []
    for version, group in _groups():
        limit, usage, cache = _FILES[version]
        most, used = _number(group / limit), _number(group / usage)
        if most is not None and used is not None:
            free.append(max(0, most - used + (_field(group / "memory.stat", cache) or 0)))
    return min(free, default=None)


def oom_kills() -> int | None:
    """Returns a number that grows when the kernel kills a process for lack of memory; None if it does not count them.

    It is the sum of the counts of this system and of our control groups.
    """
    found = [_field(Path("/proc/vmstat"), "oom_kill")]
    for version, group in _groups():
        found.append(_field(group / ("memory.events" if version == 2 else "memory.oom_control"), "oom_kill"))
    known = [number for number in found if number is not None]
    return sum(known) if known else None


def _groups() -> Iterator[tuple[int, Path]]:
    """Yields version and folder of our memory control groups, and of the groups that contain them.

    Some folders may not exist: in a container, the kernel may report the path on the host.
    """
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        version = 2 if number == "0" else 1
        if version == 1 and "memory" not in names.split(","):
            continue
        top = _GROUPS if version == 2 else _GROUPS / "memory"
        inside = Path(path.lstrip("/"))
        yield from ((version, top / each) for each in (inside, *inside.parents) if ".." not in each.parts)


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None  # `max`: no limit


def _field(path: Path, name: str) -> int | None:
    words = next((line.split() for line in _text(path).splitlines() if line.split()[:1] == [name]), [])
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""

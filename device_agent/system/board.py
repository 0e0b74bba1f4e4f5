"""Facts about the board, from /proc and /sys.

Processor, memory, governor, temperature and disk. A fact that the board does not report is None, 0 or "unknown", never
an error. Changes nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from device_agent import __version__
from device_agent.shared.protocol.constants import RUNTIMES
from device_agent.shared.protocol.documents import DeviceInfo

_CPU_KEYS = ("model name", "Model", "Hardware", "cpu model", "Processor")


def device_info() -> DeviceInfo:
    """Returns the board's name, architecture, processor, cores and memory, and the agent's version."""
    system = os.uname()
    return DeviceInfo(system.nodename, system.machine, cpu(), cores(), memory_bytes(), __version__)


def cpu() -> str:
    """Returns the name of the board, which ARM boards report, else that of the processor, else the architecture."""
    text = _read("/proc/cpuinfo")
    entries: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        entries.setdefault(key.strip(), value.strip())
    board = _read("/proc/device-tree/model").rstrip("\0 \n")
    return board or next((entries[key] for key in _CPU_KEYS if entries.get(key)), os.uname().machine)


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def memory_bytes() -> int:
    """Returns the board's memory in bytes, 0 if unknown."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def governor() -> str | None:
    """Returns the frequency governor of the first core; None if unknown.

    `powersave` makes measured times useless where `has_ondemand`. Elsewhere, as with the drivers intel_pstate and
    amd-pstate, it raises the frequency when there is work.
    """
    return _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None


def has_ondemand() -> bool:
    """Whether the governor `ondemand` can be chosen for the first core."""
    return "ondemand" in _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_available_governors").split()


def temperature() -> float | None:
    """Returns the temperature of the first thermal zone in degrees Celsius; None if unknown."""
    with contextlib.suppress(ValueError):
        return int(_read("/sys/class/thermal/thermal_zone0/temp")) / 1000.0
    return None


def disk_free(path: Path) -> int:
    """Returns the free bytes on the disk of `path`, or of its nearest existing parent; 0 if unknown."""
    for candidate in (path, *path.parents):
        with contextlib.suppress(OSError):
            disk = os.statvfs(candidate)
            return disk.f_bavail * disk.f_frsize
    return 0


def resident_bytes() -> int:
    """Returns the memory that this process uses at present, in bytes."""
    fields = _read("/proc/self/statm").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if len(fields) > 1 else 0


def peak_bytes() -> int:
    """Returns the peak memory use of this process, in bytes."""
    import resource

    # The kernel updates its maximum late: present use may be some pages above it.
    return max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, resident_bytes())


def runtime_version() -> str | None:
    """Returns the first installed runtime (NumPy last) and its version, such as `tflite_runtime 2.14.0`; or None."""
    from importlib import util

    for module, package in RUNTIMES.items():
        spec = util.find_spec(module)
        if spec:
            return f"{module} {_version_beside(spec.submodule_search_locations, module) or _version(package)}"
    return None


def _version_beside(places: Iterable[str] | None, module: str) -> str | None:
    """Returns the version in the name of the `.dist-info` folder beside `places`, the folders of `module`.

    Returns None unless there is exactly one such folder. Takes 40 ms less than `importlib.metadata`.
    """
    found = [path for place in places or () for path in Path(place).parent.glob(f"{module}-*.dist-info")]
    return found[0].stem.removeprefix(f"{module}-") if len(found) == 1 else None


def _version(package: str) -> str:
    from importlib import metadata

    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return "unknown"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""

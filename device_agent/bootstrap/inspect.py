"""`state`: reports what is on a board; changes nothing."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import struct
import sys
from pathlib import Path
from typing import Any

from device_agent.bootstrap.environments import current, environments, linked, tidy
from device_agent.bootstrap.examine import damage
from device_agent.bootstrap.files import listed, sha256
from device_agent.bootstrap.paths import TRUST, existing, resolved


def state(request: dict[str, Any]) -> dict[str, Any]:
    """Returns facts by name: Python, architecture, C library, disk, environments and keys under the request's `root`.

    With `probe` (code that tests an environment), also tests the one in use.
    """
    root = resolved(request["root"])
    nearest = existing(root)
    disk = os.statvfs(nearest)
    used = current(root)
    bits = struct.calcsize("P") * 8
    return {
        "root": str(root),
        "python": list(sys.version_info[:3]),
        "executable": os.path.realpath(sys.executable),
        "machine": os.uname().machine,
        "bits": bits,
        "glibc": glibc(),
        "venv": importlib.util.find_spec("venv") is not None,
        "pip": importlib.util.find_spec("pip") is not None,
        # Only boards without wheels use the distribution's packages, and this is the slowest question.
        "system": {name: system_version(name) for name in ("numpy", "cryptography")} if bare_of_wheels(bits) else {},
        "read_only": bool(disk.f_flag & os.ST_RDONLY),
        "writable": os.access(nearest, os.W_OK | os.X_OK),
        "nearest": str(nearest),
        "disk_free": disk.f_bavail * disk.f_frsize,
        "current": used,
        "linked": linked(root),
        "environments": environments(root),
        "damage": damage(root, used, request["probe"]) if used and request.get("probe") else "",
        "tidy": tidy(root),
        "trusted": trusted(root),
    }


def bare_of_wheels(bits: int) -> bool:
    """Whether package indexes lack wheels for this board: 32 `bits`, not x86-64 or ARM64, or no GNU C library."""
    return bits == 32 or os.uname().machine not in ("x86_64", "aarch64") or not glibc()


def glibc() -> str:
    """Returns the version of the GNU C library; "" with any other C library."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        return version if name == "glibc" else ""
    return ""


def system_version(name: str) -> str | None:
    """Returns the version of a package that the board's own Python has; None if it is not installed."""
    with contextlib.suppress(ImportError):
        from importlib import metadata

        return metadata.version(name)
    return None


def trusted(root: Path) -> dict[str, str]:
    """Returns file name -> SHA-256 for every file in the trust folder."""
    return {path.name: sha256(path) for path in listed(root / TRUST) if path.is_file()}

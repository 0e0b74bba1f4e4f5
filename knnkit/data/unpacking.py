"""Looks at a stranger's archive before it is unpacked: whether what it holds fits this machine. Unpacks nothing."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from pathlib import Path

from device_agent.shared.release import zip_limits

#: Members of an archive, and bytes of its directory, at most.
_MAX_MEMBERS, _MAX_DIRECTORY = 65_535, 16 * 1024 * 1024
#: All that numpy, zipfile and skops raise on a broken archive, and on one that no memory holds.
BROKEN = (
    OSError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,  # encrypted, an unknown method, nested without end
    ArithmeticError,
    MemoryError,
    SyntaxError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)


def members_that_fit(file: Path, **limits: int) -> list[str]:
    """Returns the names of an archive's members; packed, they can be a thousandth of what they are.

    Args:
        file: the archive.
        limits: bytes that a member may have (`schema_json` for schema.json).

    Raises:
        ValueError: there are too many, or unpacked they do not fit into the memory of this machine.
    """
    with file.open("rb") as opened:
        zip_limits.require_small(opened, entries=_MAX_MEMBERS, directory=_MAX_DIRECTORY)
        with zipfile.ZipFile(opened) as members:
            entries = members.infolist()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > memory:
        raise ValueError(f"unpacked it has {unpacked:,} bytes; this machine has a memory of {memory:,}")
    for entry in entries:
        limit = limits.get(entry.filename.replace(".", "_"), unpacked)
        if entry.file_size > limit:
            raise ValueError(f"{entry.filename} has {entry.file_size:,} bytes; at most {limit:,} are read")
    return [entry.filename for entry in entries]

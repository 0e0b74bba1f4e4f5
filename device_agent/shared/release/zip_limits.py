"""Limits the members and directory of an untrusted zip archive.

`zipfile` reads the whole directory and makes an object of each entry before a caller can check anything; a hostile file
can have a directory as large as itself, or a thousand members over the same bytes. This module reads the end of the
archive, then its directory if that is small. Never opens the archive, and does not trust the numbers in it.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from typing import IO

#: Every exception that zipfile raises for a broken archive.
BROKEN = (
    *(OSError, KeyError, ValueError, EOFError, RuntimeError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
#: Default limits: entries of an archive (a model has three), and bytes of its directory.
MAX_ENTRIES, MAX_DIRECTORY = 64, 64 * 1024

_END, _END_64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
#: Fixed bytes of a directory entry, and the lengths in it of the name, the extra field and the comment that follow.
_ENTRY, _LENGTHS = 46, struct.Struct("<3H")


def require_small(file: IO[bytes], *, entries: int = MAX_ENTRIES, directory: int = MAX_DIRECTORY) -> None:
    """Checks the limits of a zip archive; leaves `file` at its start.

    Raises:
        ValueError: `file` does not end with a zip archive, or the archive has a comment, more than `entries` members,
            more members than it states, or a directory of more than `directory` bytes.
    """
    size = file.seek(0, os.SEEK_END)
    try:
        count, length, end = _claims(file, size)
        if count > entries:
            raise ValueError(f"the archive inside has {count:,} members; at most {entries:,} are read")
        if length > directory:
            raise ValueError(f"the archive inside has a directory of {length:,} bytes; at most {directory:,} are read")
        if _has_more(_read(file, end - length, length), count):
            raise ValueError(f"the archive inside has more members than the {count:,} that it states")
    finally:
        file.seek(0)


def _claims(file: IO[bytes], size: int) -> tuple[int, int, int]:
    """Returns what a zip archive states: number of members, bytes of its directory, and where the directory ends."""
    place = size - _END.size
    end = _read(file, place, _END.size)
    if len(end) < _END.size or not end.startswith(b"PK\5\6") or end[-2:] != b"\0\0":
        raise ValueError("the file does not end with a zip archive")
    _, _, _, _, count, length, _, _ = _END.unpack(end)
    locator = _read(file, place - _LOCATOR.size, _LOCATOR.size)
    if not locator.startswith(b"PK\6\7"):
        return count, length, place
    return _claims_64(file, place - _LOCATOR.size - _END_64.size, _LOCATOR.unpack(locator)[2])


def _claims_64(file: IO[bytes], place: int, named: int) -> tuple[int, int, int]:
    """Returns what a zip64 archive states: number of members, bytes of its directory, and where the directory ends.

    Its zip64 end record must be at `place`; the archive states that it is at `named`. Raises ValueError if both places
    hold such a record, because some versions of Python read the one and some the other.
    """
    end = _read(file, place, _END_64.size)
    if len(end) < _END_64.size or not end.startswith(b"PK\6\6"):
        raise ValueError("the end of the zip archive inside is damaged")
    _, rest, _, _, _, _, _, count, length, _ = _END_64.unpack(end)
    if rest != _END_64.size - 12:
        raise ValueError("the end of the zip archive inside is damaged")
    if named != place and _read(file, named, 4) == b"PK\6\6":
        raise ValueError("the zip archive inside has two zip64 end records")
    return count, length, place


def _has_more(data: bytes, count: int) -> bool:
    """Whether the directory in `data` has more than `count` entries, whatever number the archive states."""
    place = 0
    for _ in range(count + 1):
        if data[place : place + 4] != b"PK\1\2" or len(data) < place + _ENTRY:
            return False
        place += _ENTRY + sum(_LENGTHS.unpack_from(data, place + 28))
    return True


def _read(file: IO[bytes], place: int, size: int) -> bytes:
    if place < 0:
        return b""
    file.seek(place)
    return file.read(size)

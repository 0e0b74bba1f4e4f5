"""Looks at the end of a zip archive before anybody opens it: how many members it has, and how large a directory.

`zipfile` reads the whole directory into memory, and makes an object of each of its entries, before anything can be
asked; a stranger's file may say that the directory is as large as the file, or lay a thousand members over the same
bytes. Here the end is read, and the directory where it is small. Never opens the archive, nor believes what it claims.
"""

from __future__ import annotations

import os
import struct
from typing import IO

#: Entries of an archive, and bytes of its directory, unless the caller says otherwise: a model has a handful.
MAX_ENTRIES, MAX_DIRECTORY = 64, 64 * 1024

_END, _END_64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
#: An entry of the directory, and what it says of the name, the extra field and the comment behind it.
_ENTRY, _LENGTHS = 46, struct.Struct("<3H")


def require_small(file: IO[bytes], *, entries: int = MAX_ENTRIES, directory: int = MAX_DIRECTORY) -> None:
    """Leaves `file` at its start.

    Raises:
        ValueError: it does not end as a zip archive ends (a comment behind it is one more thing to be misread), or has
            more than `entries` members or than it claims, or a directory of more than `directory` bytes.
    """
    size = file.seek(0, os.SEEK_END)
    try:
        count, length, end = _claims(file, size)
        if count > entries:
            raise ValueError(f"its archive has {count:,} members; at most {entries:,} are read")
        if length > directory:
            raise ValueError(f"its archive has a directory of {length:,} bytes; at most {directory:,} are read")
        if _has_more(_read(file, end - length, length), count):
            raise ValueError(f"its archive has more members than the {count:,} that it claims")
    finally:
        file.seek(0)


def _claims(file: IO[bytes], size: int) -> tuple[int, int, int]:
    """Returns how many members, how long a directory, and where it ends."""
    place = size - _END.size
    end = _read(file, place, _END.size)
    if len(end) < _END.size or not end.startswith(b"PK\5\6") or end[-2:] != b"\0\0":
        raise ValueError("it does not end with a zip archive")
    _, _, _, _, count, length, _, _ = _END.unpack(end)
    locator = _read(file, place - _LOCATOR.size, _LOCATOR.size)
    if not locator.startswith(b"PK\6\7"):
        return count, length, place
    return _claims_64(file, place - _LOCATOR.size - _END_64.size, _LOCATOR.unpack(locator)[2])


def _claims_64(file: IO[bytes], place: int, named: int) -> tuple[int, int, int]:
    """Some Pythons read the record in front of the locator, others the one that it names: they must be the same."""
    end = _read(file, place, _END_64.size)
    if len(end) < _END_64.size or not end.startswith(b"PK\6\6"):
        raise ValueError("the end of its zip archive is damaged")
    _, rest, _, _, _, _, _, count, length, _ = _END_64.unpack(end)
    if rest != _END_64.size - 12:
        raise ValueError("the end of its zip archive is damaged")
    if named != place and _read(file, named, 4) == b"PK\6\6":
        raise ValueError("its zip archive has two ends in 64 bits")
    return count, length, place


def _has_more(data: bytes, count: int) -> bool:
    """Whether a directory has more than `count` entries: `zipfile` makes an object of each, whatever was claimed."""
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

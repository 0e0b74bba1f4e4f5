"""Looks at the end of a zip archive before anybody opens it: how many members it claims, and how large a directory.

`zipfile` reads the whole directory into memory, and makes an object of each of its entries, before anything can be
asked; a stranger's file may say that the directory is as large as the file, or lay a thousand members over the same
bytes. Here a few bytes are read. Never opens the archive.
"""

from __future__ import annotations

import os
import struct
from typing import IO

#: Entries of an archive, and bytes of its directory, unless the caller says otherwise: a model has a handful.
MAX_ENTRIES, MAX_DIRECTORY = 64, 64 * 1024

_END, _END_64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q")
_LOCATOR_SIZE = 20


def require_small(file: IO[bytes], *, entries: int = MAX_ENTRIES, directory: int = MAX_DIRECTORY) -> None:
    """Leaves `file` at its start.

    Raises:
        ValueError: it does not end as a zip archive ends (a comment behind it is one more thing to be misread), or has
            more than `entries` members, or a directory of more than `directory` bytes.
    """
    size = file.seek(0, os.SEEK_END)
    try:
        count, length = _claims(file, size)
    finally:
        file.seek(0)
    if count > entries:
        raise ValueError(f"its archive has {count:,} members; at most {entries:,} are read")
    if length > directory:
        raise ValueError(f"its archive has a directory of {length:,} bytes; at most {directory:,} are read")


def _claims(file: IO[bytes], size: int) -> tuple[int, int]:
    end = _read(file, size - _END.size, _END.size)
    if len(end) < _END.size or not end.startswith(b"PK\5\6") or end[-2:] != b"\0\0":
        raise ValueError("it does not end with a zip archive")
    _, _, _, _, count, length, _, _ = _END.unpack(end)
    place = size - _END.size - _LOCATOR_SIZE
    if _read(file, place, 4) != b"PK\6\7":
        return count, length
    end = _read(file, place - _END_64.size, _END_64.size)
    if len(end) < _END_64.size or not end.startswith(b"PK\6\6"):
        raise ValueError("the end of its zip archive is damaged")
    return _END_64.unpack(end)[7], _END_64.unpack(end)[8]


def _read(file: IO[bytes], place: int, size: int) -> bytes:
    if place < 0:
        return b""
    file.seek(place)
    return file.read(size)

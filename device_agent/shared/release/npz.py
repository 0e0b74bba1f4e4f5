"""Reads an untrusted .npz: no pickles, limited size, no I/O."""

from __future__ import annotations

import io
import struct
import tokenize
import zipfile
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.release import zip_limits

#: Most bytes of all arrays after decompression; compressed, they can take a thousandth of it.
MAX_UNPACKED = 1 << 30

#: Every exception that NumPy and zipfile raise for a broken archive, MemoryError for an absurd shape among them.
_BROKEN = (
    OSError,
    KeyError,
    ValueError,
    TypeError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
    MemoryError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)


def read_arrays(data: bytes, *, most: int | None = None) -> dict[str, NDArray[Any]]:
    """Returns the arrays of an .npz by name; all of them together have at most `most` (None: MAX_UNPACKED) bytes.

    Raises:
        ValueError: the data is damaged, too large, or contains something other than arrays.
    """
    try:
        zip_limits.require_small(io.BytesIO(data))
        with zipfile.ZipFile(io.BytesIO(data)) as members:
            unpacked = sum(entry.file_size for entry in members.infolist())
            names = members.namelist()
        if len(set(names)) < len(names):
            raise ValueError("two arrays have the same name")
        limit = MAX_UNPACKED if most is None else most
        if unpacked > limit:
            raise ValueError(f"unpacked, the arrays have {unpacked:,} bytes; at most {limit:,} are allowed")
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except _BROKEN as error:
        raise ValueError(str(error) or type(error).__name__) from None
    strange = next((name for name, array in arrays.items() if not isinstance(array, np.ndarray)), None)
    if strange is not None:  # NumPy returns the bytes of a member that is not an array
        raise ValueError(f"{strange} is not an array")
    return arrays

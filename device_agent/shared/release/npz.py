"""Reads an untrusted .npz: no pickles, limited size."""

from __future__ import annotations

import contextlib
import io
import tokenize
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.release import zip_limits
from device_agent.shared.release.model_file import read_member

#: Most bytes of an .npz inside a model, and of all arrays of an .npz: decompression can multiply the bytes by 1000.
_MAX_PACKED, MAX_UNPACKED = 256 << 20, 1 << 30
#: Every exception that NumPy and zipfile raise for a broken archive, MemoryError for an absurd shape among them.
_BROKEN = (*zip_limits.BROKEN, TypeError, MemoryError, SyntaxError, tokenize.TokenError)


class Arrays(dict[str, NDArray[Any]]):
    """Arrays by name; looking up a missing name raises ValueError."""

    def __missing__(self, name: str) -> NDArray[Any]:
        """Raises ValueError with the missing name and those that exist."""
        raise ValueError(f"there is no array {name}, only {', '.join(sorted(self)) or 'an empty archive'}")


def require_form(name: str, array: NDArray[Any], ndim: int, *types: type[np.generic]) -> None:
    """Checks that the array `name` has `ndim` dimensions and one of the NumPy `types`, such as np.floating.

    Raises:
        ValueError: the array has another form; the message states both forms.
    """
    if array.ndim != ndim or not any(np.issubdtype(array.dtype, kind) for kind in types):
        expected = " or ".join(kind.__name__ for kind in types)
        found = f"array {name} has type {array.dtype} and shape {array.shape}"
        raise ValueError(f"{found}; expected type {expected} and {ndim} dimensions")


@contextlib.contextmanager
def arrays_inside(model: str | Path, name: str) -> Iterator[Arrays]:
    """Yields the arrays of the .npz file `name` inside a model file.

    Raises:
        ModelUnusable: the model has no such file, it is damaged, or the `with` block raises LookupError, ValueError,
            TypeError, OverflowError or OSError, because the arrays do not fit the model.
    """
    data = read_member(model, name, _MAX_PACKED)
    try:
        yield read_arrays(data)
    except (LookupError, ValueError, TypeError, OverflowError, OSError) as error:
        raise ModelUnusable(f"{name} inside {model} is damaged: {error}", hint="knnkit build --force") from None


def read_arrays(data: bytes) -> Arrays:
    """Returns the arrays of an .npz by name; all of them together have at most `MAX_UNPACKED` bytes.

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
        if unpacked > MAX_UNPACKED:
            raise ValueError(f"unpacked, the arrays have {unpacked:,} bytes; at most {MAX_UNPACKED:,} are allowed")
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = Arrays({name: file[name] for name in file.files})
    except _BROKEN as error:
        raise ValueError(str(error) or type(error).__name__) from None
    strange = next((name for name, array in arrays.items() if not isinstance(array, np.ndarray)), None)
    if strange is not None:  # NumPy returns the bytes of a member that is not an array
        raise ValueError(f"{strange} is not an array")
    return arrays

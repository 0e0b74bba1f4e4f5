"""Reads what knnkit put inside a model file: knn.json, the labels, the exact tables. Never loads a TFLite runtime.

The files lie in a zip archive behind the model's flatbuffer, as TFLite Metadata has it.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

from device_agent import codec, contract
from device_agent.errors import ModelUnusable


def read_info(source: str | Path | IO[bytes]) -> contract.KnnInfo:
    """Returns the knn.json inside a model file; loads no runtime.

    Raises:
        ModelUnusable: it is not a knnkit model.
    """
    try:
        return codec.loads(contract.KnnInfo, read_member(source, contract.KNN_FILE))
    except codec.MalformedDocument as error:
        raise ModelUnusable(f"{contract.KNN_FILE} inside the model is damaged: {error}") from None


def read_member(source: str | Path | IO[bytes], name: str, limit: int = codec.MAX_DOCUMENT) -> bytes:
    """Returns one associated file of a model: knn.json, the labels, or the exact tables.

    Raises:
        ModelUnusable: there is no such member, it is over `limit` bytes, or the file cannot be read.
    """
    where = source if isinstance(source, str | Path) else getattr(source, "name", "the model")
    try:
        with zipfile.ZipFile(source) as archive:
            return _read_stored(archive, name, limit)
    except ModelUnusable as error:
        raise ModelUnusable(f"{where}: {error}", hint=_HINT) from None
    except _BROKEN as error:
        raise ModelUnusable(f"{where} is not a knnkit model: {error}", hint=_HINT) from None


_HINT = "is it a model that `knnkit build` made?"
#: All that zipfile raises on a broken archive.
_BROKEN = (
    OSError,
    KeyError,
    ValueError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)


def _read_stored(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """A packed member could grow without end as it is read; TFLite Metadata has none."""
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ModelUnusable(f"{name} inside it is compressed")
    if entry.file_size > limit:
        raise ModelUnusable(f"{name} inside it has {entry.file_size:,} bytes; at most {limit:,} are read")
    return archive.read(entry)

"""Associated files of a model: a zip archive behind it.

TFLite Metadata stores them uncompressed. The date is fixed: the same files give the same bytes. Loads no TensorFlow.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

_EPOCH = (1980, 1, 1, 0, 0, 0)


def archive(files: Mapping[str, bytes]) -> bytes:
    """Returns a zip archive of `files`, which maps names to contents."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as members:
        for name, data in files.items():
            members.writestr(zipfile.ZipInfo(name, _EPOCH), data)
    return buffer.getvalue()


def split(data: bytes) -> tuple[memoryview, dict[str, bytes]]:
    """Splits a model file into its model (not copied) and its associated files: (model, name -> content)."""
    with zipfile.ZipFile(io.BytesIO(data)) as members:
        start = min(entry.header_offset for entry in members.infolist())
        return memoryview(data)[:start], {name: members.read(name) for name in members.namelist()}


def add(data: bytes, files: Mapping[str, bytes]) -> tuple[memoryview, bytes]:
    """Adds associated files (name -> content) to the model file `data`; returns (model, archive), without a copy."""
    model, present = split(data)
    return model, archive({**present, **files})

"""Takes a model file apart, and puts it together with other files inside."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

from knnkit.model.built import archive


def split(data: bytes) -> tuple[bytes, dict[str, bytes]]:
    """Splits a model file into its model and its associated files: (model, name -> content)."""
    with zipfile.ZipFile(io.BytesIO(data)) as members:
        start = min(entry.header_offset for entry in members.infolist())
        return data[:start], {name: members.read(name) for name in members.namelist()}


def add(data: bytes, files: Mapping[str, bytes]) -> bytes:
    """Returns the model file `data` with more associated files (name -> content)."""
    model, present = split(data)
    return model + archive({**present, **files})

"""A finished model file, in parts."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from device_agent.shared.protocol import model_info
from knnkit.model.reference.classifier import Reference

_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class BuiltModel:
    """A finished model file, and the float64 classifier that computes its golden set."""

    graph: Sequence[Any]  # the file without the files inside it, as bytes in parts; most are views of the training rows
    files: Mapping[str, bytes]  # the files inside it, name -> content
    info: model_info.KnnInfo  # content of the file's knn.json
    reference: Reference  # the float64 classifier over the model's training rows
    warnings: tuple[str, ...]  # messages for the user

    def parts(self, more: Mapping[str, bytes] | None = None) -> list[Any]:
        """Returns the bytes of model.tflite in parts, without a copy, with `more` files (name -> content) inside."""
        return [*self.graph, archive({**self.files, **(more or {})})]

    @property
    def data(self) -> bytes:
        """The bytes of model.tflite, joined: a copy."""
        return b"".join(self.parts())


def archive(files: Mapping[str, bytes]) -> bytes:
    """Returns an uncompressed zip archive of `files`, name -> content, with a fixed date (TFLite Metadata)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as members:
        for name, data in files.items():
            members.writestr(zipfile.ZipInfo(name, _EPOCH), data)
    return buffer.getvalue()

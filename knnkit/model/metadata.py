"""What a model file says of itself: TFLite Metadata, the label file, knn.json and the exact tables.

The flatbuffer gets a new head and keeps its body byte for byte, so that every weight stays aligned; the files follow
in a STORED zip of fixed date. The same model gives the same bytes. Never changes what the graph computes.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np

from device_agent import codec, contract
from knnkit.errors import BuildError
from knnkit.model.tfknn import TfKNN

_EPOCH = (1980, 1, 1, 0, 0, 0)


def label_file(classes: tuple[Any, ...]) -> bytes:
    """Returns the label file: class i on line i, UTF-8."""
    return "".join(f"{label}\n" for label in classes).encode()


def pack(flatbuffer: bytes, model: TfKNN, info: contract.KnnInfo) -> bytes:
    """Returns the complete model file: `flatbuffer` with the associated files behind it."""
    archive = io.BytesIO()
    members = {
        contract.LABELS_FILE: label_file(info.classes),
        contract.KNN_FILE: codec.dump_file(info),
        contract.EXACT_FILE: _exact_tables(flatbuffer, model),
    }
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for name, data in members.items():
            file.writestr(zipfile.ZipInfo(name, _EPOCH), data)
    return flatbuffer + archive.getvalue()


@dataclass(frozen=True)
class Block:
    """Rows of the training matrix in the file: byte offset and row count."""

    offset: int
    rows: int


def find_table(flatbuffer: bytes, model: TfKNN) -> list[Block]:
    """Returns where the enrolled rows lie in the flatbuffer.

    Raises:
        BuildError: they are not there as they were enrolled; the converter changed them.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    wanted = np.ascontiguousarray(model.enrolled).tobytes()
    root = schema.Model.GetRootAs(flatbuffer, 0)
    for number in range(root.BuffersLength()):
        buffer = root.Buffers(number)
        if buffer.DataLength() == len(wanted) and buffer.DataAsNumpy().tobytes() == wanted:
            table = buffer._tab
            return [Block(int(table.Vector(table.Offset(4))), len(model.enrolled))]
    raise BuildError("the converter changed the training matrix; this TensorFlow is not supported")


def _exact_tables(flatbuffer: bytes, model: TfKNN) -> bytes:
    space = model.space
    blocks = find_table(flatbuffer, model)
    arrays: dict[str, Any] = {
        "centre": space.centre,
        "scale": space.scale,
        "zero": np.float64(space.zero),
        "classes": model.codes,
        "block_offsets": np.array([block.offset for block in blocks], dtype=np.int64),
        "block_rows": np.array([block.rows for block in blocks], dtype=np.int64),
        "steps": np.array([step.kind for step in space.steps], dtype="U9"),
    }
    for number, step in enumerate(space.steps):
        arrays |= {f"step{number}_a": step.a, f"step{number}_b": step.b}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()

"""Lays out a `.tflite`: buffers aligned, training rows once.

TensorFlow's converter re-packs its result in Python, which ignores the schema's `force_align`. Here the structure of
the model is packed without its buffers; the buffers follow it, each aligned to 16 bytes. The blocks of a large training
matrix lie inside the one table that the exact ranking gathers from; the length of each block is in the last bytes of
the gap before it. The same model gives the same bytes. Knows nothing of neighbours.
Formats: https://flatbuffers.dev/internals/ and tensorflow/lite/schema/schema.fbs.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

IDENTIFIER = b"TFL3"
ALIGNMENT = 16
_BUFFERS_FIELD = 4  # of the table Model
_MODEL_FIELDS = 8
_VERSION_FIELD = 0
_GRAPHS_FIELD = 2
_SIGNATURE_FIELD = 7  # of the table Tensor: its shape, with open lengths


@dataclass(frozen=True)
class Window:
    """A buffer that is part of `SharedBytes`: offset of its first byte there (`start`), number of bytes (`length`)."""

    start: int
    length: int


class Pieces:
    """The content of a buffer as a list of arrays, which need not be joined; `len` is the number of bytes.

    Attributes:
        parts: the content, in order.
        source: the object from which the content was made, such as a table of training rows.
    """

    def __init__(self, parts: list[NDArray[np.uint8]], source: Any) -> None:
        self.parts, self.source = parts, source

    def __len__(self) -> int:
        return sum(map(len, self.parts))


@dataclass(frozen=True)
class SharedBytes:
    """Bytes of a table that several buffers share.

    `parts` are the bytes in order; `windows` maps the number of a buffer to its range of bytes (window). Where a
    window starts inside the table, a part starts, too; the part before it ends with at least four spare bytes, for the
    window's length.
    """

    parts: list[NDArray[np.uint8]]
    windows: dict[int, Window]


@dataclass(frozen=True)
class Laid:
    """A finished flatbuffer: its bytes in order (`parts`, not joined, to avoid a copy of large buffers).

    `tables` has the file offset of each `SharedBytes`, `places` that of each buffer's bytes (0 for an empty buffer).
    """

    parts: list[Any]
    tables: tuple[int, ...]
    places: tuple[int, ...]

    @property
    def data(self) -> bytes:
        """The bytes of the flatbuffer, joined."""
        return b"".join(self.parts)


def unpack(data: bytes) -> Any:
    """Returns a model as TensorFlow's object tree (`ModelT`), with buffers as NumPy arrays.

    Raises:
        ValueError: `data` is not a TFLite model.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    if data[4:8] != IDENTIFIER:
        raise ValueError("not a TFLite model")
    return schema.ModelT.InitFromPackedBuf(data, 0)


def input_shape(data: bytes) -> tuple[int, ...]:
    """Returns the shape of a model's first input, -1 for an open length, without TensorFlow; () if damaged."""
    try:
        graph = _target(data, _vector(data, _target(data, 0), _GRAPHS_FIELD)[0])
        tensors, inputs = _vector(data, graph, 0), _vector(data, graph, 1)
        tensor = _target(data, tensors[_u32(data, inputs[0])])
        places = _vector(data, tensor, _SIGNATURE_FIELD) or _vector(data, tensor, 0)
        return tuple(int(struct.unpack_from("<i", data, place)[0]) for place in places)
    except (IndexError, struct.error):
        return ()


def add_metadata(model: Any, name: str, content: bytes) -> None:
    """Adds to a model (TensorFlow's `ModelT`) a metadata entry `name`, and a buffer with its content."""
    from tensorflow.lite.python import schema_py_generated as schema

    entry, buffer = schema.MetadataT(), schema.BufferT()
    entry.name, entry.buffer = name, len(model.buffers)
    buffer.data = np.frombuffer(content, np.uint8)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]


def lay_out(model: Any, tables: Sequence[SharedBytes]) -> Laid:
    """Returns the flatbuffer of a model; the bytes of each table are in it once.

    Args:
        model: the model as TensorFlow's objects (`ModelT`), with its buffers as NumPy arrays or `Pieces`.
        tables: bytes that several buffers of the model share; no buffer is in two tables.
    """
    inside = {number for table in tables for number in table.windows}
    contents = [[] if number in inside else _parts(buffer.data) for number, buffer in enumerate(model.buffers)]
    body = _structure(model)
    size = len(_head(body, len(contents), [0] * len(contents), 0))
    places, starts, position = [0] * len(contents), [], size + len(body)
    parts: list[Any] = [body]
    for number, content in enumerate(contents):
        if length := sum(map(len, content)):
            places[number] = _aligned(position + 4)
            parts += [bytes(places[number] - position - 4), struct.pack("<I", length), *content]
            position = places[number] + length
    for table in tables:
        starts.append(_aligned(position + 4))
        parts.append(bytes(starts[-1] - position))
        position = starts[-1]
        lengths = {position + window.start: window.length for window in table.windows.values()}
        for number, window in table.windows.items():
            places[number] = position + window.start
        for part in table.parts:
            if position in lengths:
                parts[-1] = bytes(parts[-1])[:-4] + struct.pack("<I", lengths[position])
            parts.append(part)
            position += len(part)
    return Laid([_head(body, len(contents), places, size), *parts], tuple(starts), tuple(places))


def _parts(content: Any) -> list[NDArray[np.uint8]]:
    if content is None:
        return []
    return content.parts if isinstance(content, Pieces) else [np.asarray(content, np.uint8)]


def _structure(model: Any) -> bytes:
    """Returns the packed model without the contents of its buffers, padded to a multiple of ALIGNMENT bytes."""
    kept = [(buffer, buffer.data) for buffer in model.buffers]
    try:
        for buffer, _ in kept:
            buffer.data = None
        import flatbuffers  # comes with TensorFlow, which a deployment of a finished release does without

        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), IDENTIFIER)
        packed = bytes(builder.Output())
    finally:
        for buffer, data in kept:
            buffer.data = data
    return packed + bytes(-len(packed) % ALIGNMENT)


def _head(body: bytes, count: int, places: Sequence[int], size: int) -> bytes:
    """Returns the beginning of the file: a root table with `count` buffers. `body` follows it, at byte `size`.

    The root's other fields point into `body`. `places` has the byte in the file at which the content of each buffer
    begins; 0: the buffer is empty.
    """
    root = _u32(body, 0)
    fields = [number for number in range(_MODEL_FIELDS) if _field(body, root, number) or number == _BUFFERS_FIELD]
    offsets = {number: 4 + 4 * rank for rank, number in enumerate(fields)}
    vtable = struct.pack("<HH", 4 + 2 * _MODEL_FIELDS, 4 + 4 * len(fields))
    vtable += struct.pack(f"<{_MODEL_FIELDS}H", *(offsets.get(number, 0) for number in range(_MODEL_FIELDS)))
    at_vtable, at_model = 8, 8 + len(vtable)
    at_vector = at_model + 4 + 4 * len(fields)
    at_buffer_vtable = at_vector + 4 + 4 * count
    at_buffers = at_buffer_vtable + 12
    out = bytearray(_aligned(at_buffers + 8 * count))
    struct.pack_into("<I4s", out, 0, at_model, IDENTIFIER)
    out[at_vtable:at_model] = vtable
    struct.pack_into("<i", out, at_model, at_model - at_vtable)
    for number, offset in offsets.items():
        place = at_model + offset
        if number == _BUFFERS_FIELD:
            value = at_vector - place
        elif number == _VERSION_FIELD:
            value = _u32(body, _field(body, root, number))
        else:
            value = size + _target(body, _field(body, root, number)) - place
        struct.pack_into("<I", out, place, max(0, value))
    struct.pack_into("<I", out, at_vector, count)
    # Buffer: a vtable with the one field `data`, and one without, for empty buffers.
    struct.pack_into("<HHHxxHH", out, at_buffer_vtable, 6, 8, 4, 4, 8)
    for number in range(count):
        table, entry = at_buffers + 8 * number, at_vector + 4 + 4 * number
        struct.pack_into("<I", out, entry, table - entry)
        struct.pack_into("<i", out, table, table - at_buffer_vtable - (0 if places[number] else 8))
        if places[number]:
            struct.pack_into("<I", out, table + 4, places[number] - 4 - (table + 4))
    return bytes(out)


def _field(data: bytes, table: int, number: int) -> int:
    """Returns the offset of field `number` of the table at byte `table` of `data`; 0: absent, so it has its default."""
    vtable = table - int(struct.unpack_from("<i", data, table)[0])
    place = 4 + 2 * number
    if place >= struct.unpack_from("<H", data, vtable)[0]:
        return 0
    offset: int = struct.unpack_from("<H", data, vtable + place)[0]
    return table + offset if offset else 0


def _vector(data: bytes, table: int, number: int) -> range:
    """Returns the offsets of the elements of field `number`, a vector of numbers or tables; an empty range: none."""
    if not (field := _field(data, table, number)):
        return range(0)
    start = _target(data, field)
    return range(start + 4, start + 4 + 4 * _u32(data, start), 4)


def _target(data: bytes, place: int) -> int:
    return place + _u32(data, place)


def _u32(data: bytes, place: int) -> int:
    found: int = struct.unpack_from("<I", data, place)[0]
    return found


def _aligned(position: int) -> int:
    return position + -position % ALIGNMENT

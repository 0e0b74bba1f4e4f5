"""Writes TFLite Metadata and associated files into a model.

The files are the labels, knn.json, the exact float64 tables and the origins of the rows. The metadata is a buffer of
the model; the files follow in an uncompressed zip with a fixed date. The same model gives the same bytes. Never changes
what the graph computes.
Schema: tflite-support, tensorflow_lite_support/metadata/metadata_schema.fbs.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import flatbuffers
import numpy as np

from device_agent import __version__
from device_agent.shared.protocol import constants, json_codec, model_info
from knnkit.model.graph.row_blocks import StoredRows
from knnkit.model.graph.tfknn import KnnModule
from knnkit.model.tflite import flatbuffer
from knnkit.model.tflite.op_versions import unknown_converter

_METADATA_NAME = "TFLITE_METADATA"
_METADATA_IDENTIFIER = b"M001"
_MIN_PARSER_VERSION = "1.0.0"
# AssociatedFileType and ContentProperties of the schema.
_DESCRIPTIONS, _TENSOR_AXIS_LABELS = 1, 2
_FEATURE_PROPERTIES = 1

_OUTPUT_DESCRIPTIONS = {
    constants.OUTPUT_LABEL: "class index; -1 where the row is unknown",
    constants.OUTPUT_PROBABILITIES: "share of the neighbours' votes that each class has",
    constants.OUTPUT_INDICES: "training rows of the neighbours, by (distance, index)",
    constants.OUTPUT_DISTANCES: "distances of the neighbours, in the model's metric",
    constants.OUTPUT_CERTAIN: "whether float32 rounding cannot have changed neighbours or label",
    constants.CANDIDATES: "training rows that were ranked",
    constants.BEYOND: "lower bound on the squared distance (manhattan: distance) of all other rows in model space",
}


def pack(tree: Any, model: KnnModule, info: model_info.KnnInfo, rows: bytes) -> tuple[list[Any], dict[str, bytes]]:
    """Returns the converted model with its metadata, as bytes in parts, and the associated files, name -> content.

    Args:
        tree: the converted model as TensorFlow's objects (`ModelT`).
        model: the module that was converted.
        info: content of knn.json.
        rows: content of rows.npz.

    Raises:
        BuildError: this TensorFlow is not supported: its converter changed the training rows or the order of graphs.
    """
    flatbuffer.add_metadata(tree, _METADATA_NAME, _describe(tree, info, model))
    laid = flatbuffer.lay_out(tree, [_find(tree, stored, model) for stored in model.search.stored()])
    members = {
        constants.LABELS_FILE: "".join(f"{label}\n" for label in info.classes).encode(),
        constants.KNN_FILE: json_codec.dump_file(info),
        constants.EXACT_FILE: _exact_tables(_blocks(tree, laid, model), model),
        constants.ROWS_FILE: rows,
    }
    if model.search.groups is not None:
        members[constants.GROUPS_FILE] = _npz(model.search.groups.to_arrays())
    return laid.parts, members


# --- the training rows, once --------------------------------------------------------------------------------------
def _find(tree: Any, stored: StoredRows, model: KnnModule) -> flatbuffer.SharedBytes:
    """Returns the bytes of `stored`, and which buffers of the model `tree` are this table or a block of it."""
    tables = [stored, *(stored.blocks() if stored.layout.gap else [])]
    asked = {(table.at * table.row_bytes, sum(map(len, table.parts))) for table in tables}
    windows = {}
    for number, buffer in enumerate(tree.buffers):
        if isinstance(buffer.data, flatbuffer.Pieces):
            table = buffer.data.source
            if (table.rows if table.whole is None else table.whole) is stored.rows:
                windows[number] = flatbuffer.Window(table.at * table.row_bytes, len(buffer.data))
        elif model.search.products is None and _is_content(buffer.data, stored):
            windows[number] = flatbuffer.Window(0, len(buffer.data))
    if {(window.start, window.length) for window in windows.values()} != asked and not model.search.by_columns:
        raise unknown_converter("changed the training matrix")
    return flatbuffer.SharedBytes(stored.parts, windows)


def _is_content(content: Any, table: StoredRows) -> bool:
    return content is not None and len(content) == table.rows.nbytes and np.array_equal(content, table.parts[0])


def _blocks(tree: Any, laid: flatbuffer.Laid, model: KnnModule) -> list[tuple[int, int]]:
    """Returns (offset in the file in bytes, number of rows) of each block of training rows of a converted model."""
    row_bytes, count = 4 * model.enrolled.shape[1], len(model.enrolled)
    if model.search.projection is None:
        return [(laid.tables[0] + start * row_bytes, rows) for start, rows in model.search.layout.blocks(count)]
    for place, buffer in zip(laid.places, tree.buffers):
        if isinstance(buffer.data, flatbuffer.Pieces) and buffer.data.source.rows is model.enrolled:
            return [(place, count)]
    raise unknown_converter("changed the training matrix")


def _exact_tables(blocks: list[tuple[int, int]], model: KnnModule) -> bytes:
    space = model.space
    arrays: dict[str, Any] = {
        "centre": space.centre,
        "scale": space.scale,
        "zero": np.float64(space.zero),
        "tied": np.float64(space.tied),
        "classes": model.codes,
        "block_offsets": np.array([place for place, _ in blocks], dtype=np.int64),
        "block_rows": np.array([rows for _, rows in blocks], dtype=np.int64),
        "steps": np.array([step.kind for step in space.steps], dtype="U9"),
    }
    if model.targets is not None:
        arrays["targets"] = model.targets
    for number, step in enumerate(space.steps):
        arrays |= {f"step{number}_a": step.a, f"step{number}_b": step.b}
    return _npz(arrays)


def _npz(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


# --- TFLite Metadata ----------------------------------------------------------------------------------------------
def _describe(tree: Any, info: model_info.KnnInfo, model: KnnModule) -> bytes:
    build = flatbuffers.Builder(1024)
    measured = (
        "as they were measured"
        if info.origin is None
        else f"from which the origin in {constants.KNN_FILE} was subtracted in float64"
    )
    inputs = [_tensor(build, constants.INPUT_ROWS, f"{info.n_features} features, {measured}", False)]
    outputs = [
        _tensor(build, name, _OUTPUT_DESCRIPTIONS[name], name == constants.OUTPUT_PROBABILITIES)
        for name in _output_order(tree)
    ]
    graph = _table(build, 10, {0: constants.SIGNATURE_ONE, 2: inputs, 3: outputs})
    files = [
        _associated(build, constants.LABELS_FILE, "one class a line", _TENSOR_AXIS_LABELS),
        _associated(build, constants.KNN_FILE, "the classifier: k, metric, features, classes", _DESCRIPTIONS),
        _associated(build, constants.EXACT_FILE, "float64 tables for rows that float32 leaves in doubt", _DESCRIPTIONS),
        _associated(build, constants.ROWS_FILE, "where the training rows come from: row, id, file", _DESCRIPTIONS),
    ]
    if info.groups is not None:
        files.append(_associated(build, constants.GROUPS_FILE, "groups of near training rows", _DESCRIPTIONS))
    maps = [step for step in model.space.steps if step.kind != "cosine"]
    imported = info.scale == "none" and (maps or not np.all(model.space.scale == 1.0))
    scale = "the maps of a Pipeline folded in" if imported else f"scale {info.scale}"
    kind = "regression" if info.targets and not info.targets.classes else "classifier"
    summary = f"k-nearest-neighbours {kind}: {info.how}, {scale}, {info.n_train} training rows"
    root = _table(
        build, 8, {0: info.name, 1: summary, 2: f"knnkit {__version__}", 3: [graph], 6: files, 7: _MIN_PARSER_VERSION}
    )
    build.Finish(root, _METADATA_IDENTIFIER)
    return bytes(build.Output())


def _output_order(tree: Any) -> list[str]:
    """Returns the names of the outputs of the first graph, in its order; BuildError if that is not `classify`."""
    for signature in tree.signatureDefs:
        if _text(signature.signatureKey) == constants.SIGNATURE_ONE and signature.subgraphIndex == 0:
            names = {each.tensorIndex: _text(each.name) for each in signature.outputs}
            outputs, tensors = tree.subgraphs[0].outputs, tree.subgraphs[0].tensors
            return [names.get(int(each)) or _text(tensors[int(each)].name) for each in outputs]
    raise unknown_converter("put another graph first")


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()


def _tensor(build: Any, name: str, description: str, labelled: bool) -> int:
    properties = _table(build, 0, {})
    content = _table(build, 3, {0: _byte(_FEATURE_PROPERTIES), 1: properties})
    files = [_associated(build, constants.LABELS_FILE, "one class a line", _TENSOR_AXIS_LABELS)] if labelled else None
    return _table(build, 7, {0: name, 1: description, 3: content, 6: files})


def _associated(build: Any, name: str, description: str, kind: int) -> int:
    return _table(build, 5, {0: name, 1: description, 2: _byte(kind)})


def _byte(value: int) -> Callable[[Any, int], None]:
    return lambda build, slot: build.PrependInt8Slot(slot, value, 0)


def _table(build: Any, slots: int, fields: dict[int, Any]) -> int:
    """Writes a flatbuffer table with `slots` slots, and returns its offset.

    `fields`: slot -> text, offset, list of offsets, or a function that writes a byte; None: the slot stays empty.
    """
    ready = {slot: _refer(build, value) for slot, value in fields.items() if value is not None}
    build.StartObject(slots)
    for slot, value in ready.items():
        if callable(value):
            value(build, slot)
        else:
            build.PrependUOffsetTRelativeSlot(slot, value, 0)
    return int(build.EndObject())


def _refer(build: Any, value: str | Sequence[int] | int | Callable[[Any, int], None]) -> Any:
    if isinstance(value, str):
        return build.CreateString(value)
    if isinstance(value, list):
        build.StartVector(4, len(value), 4)
        for offset in reversed(value):
            build.PrependUOffsetTRelative(offset)
        return build.EndVector()
    return value

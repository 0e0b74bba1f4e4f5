"""TfKNN to TFLite: signatures of fixed shape over the same weights, for one row and for a batch.

The converter knows eight-bit weights only by guessing at their steps itself: here the table of the quantized search is
put in place of the float32 numbers that it was converted with.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from device_agent.shared.protocol import constants
from knnkit.errors import BuildError
from knnkit.model.graph.candidates import QuantizedProducts
from knnkit.model.graph.tfknn import TfKNN
from knnkit.model.tflite import flatbuffer

#: Version of FULLY_CONNECTED that takes float32 rows and int8 weights, and divides a row's whole range into steps
#: (tensorflow/lite/tools/versioning/op_version.cc).
_ASYMMETRIC = 9
#: What the modules are called that AutoGraph makes (tensorflow/python/autograph/pyct/loader.py).
_AUTOGRAPH = "__autograph_generated_file"


def batch_rows(model: TfKNN, search: str) -> int:
    """Returns how many rows the batch signature of a search takes.

    64, fewer where its temporary tensors would take over 32 MB. A larger one is no faster (its scores leave the cache
    before TOPK_V2 reads them), and wastes more when part-filled.
    """
    width = model.enrolled.shape[1]
    ranked = max(32, 2 * model.search.candidates(search))
    per_row = 4 * (len(model.enrolled) * (width if model.metric == "manhattan" else 1) + ranked * width)
    fitting = (32 << 20) // per_row
    return int(max(2, min(64, 1 << max(0, fitting.bit_length() - 1))))


def convert(model: TfKNN) -> Any:
    """Returns the model tree (as `flatfile.unpack`) of `model`, float32, fixed shapes.

    Signatures: `classify` for one row, `classify_batch`, and the two of each other search that the model has.

    Raises:
        BuildError: the converter changed what is looked for; this TensorFlow is not supported.
    """
    signatures = {}
    for search in model.search.ways:
        batch = batch_rows(model, search)
        for name, rows in ((constants.SIGNATURE_ONE, 1), (constants.SIGNATURE_BATCH, batch)):
            shape = tf.TensorSpec((rows, model.n_features), tf.float32, name=constants.INPUT_ROWS)

            def answer(rows: Any, search: str = search) -> dict[str, Any]:
                return model.answer(rows, search)

            function = tf.function(answer, input_signature=[shape], autograph=False).get_concrete_function()
            signatures[constants.signature(name, search)] = function
    with tempfile.TemporaryDirectory() as folder:
        with _swept():
            tf.saved_model.save(model, folder, signatures=signatures)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(signatures))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        tree = flatbuffer.unpack(bytes(converter.convert()))
    if model.search.quantized:
        put_eight_bits(tree, model.search.quantized)
    return tree


@contextlib.contextmanager
def _swept() -> Iterator[None]:
    """Removes the modules that AutoGraph writes where temporary files lie: it does so itself when Python ends in order,
    which an interrupted build does not."""
    before = set(sys.modules)
    try:
        yield
    finally:
        for name in set(sys.modules) - before:
            if name.startswith(_AUTOGRAPH) and (file := sys.modules[name].__file__):
                Path(file).unlink(missing_ok=True)


def put_eight_bits(tree: Any, products: QuantizedProducts) -> None:
    """Gives the products with the quantized table their eight bits: FULLY_CONNECTED of float32 with int8 weights."""
    from tensorflow.lite.python import schema_py_generated as schema

    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = _ASYMMETRIC
    tree.operatorCodes.append(code)
    pieces = products.eight_bits()
    parts, found = {flatbuffer.digest(wide): eight for wide, eight in pieces}, set()
    lengths = {wide.nbytes for wide, _ in pieces}
    for operator, tensors in ((each, graph.tensors) for graph in tree.subgraphs for each in graph.operators):
        entry = tree.operatorCodes[operator.opcodeIndex]
        if max(entry.builtinCode, entry.deprecatedBuiltinCode) != code.builtinCode:
            continue
        weights = tensors[operator.inputs[1]]
        data = tree.buffers[weights.buffer].data
        if data is None or len(data) not in lengths or (wide := _digest(data)) not in parts:
            continue
        weights.type, weights.quantization = schema.TensorType.INT8, schema.QuantizationParametersT()
        weights.quantization.scale = np.array([products.quantized.step], np.float32)
        weights.quantization.zeroPoint = np.array([0], np.int64)
        weights.buffer = _add_buffer(tree, parts[wide])
        operator.opcodeIndex = len(tree.operatorCodes) - 1
        operator.builtinOptions.asymmetricQuantizeInputs = True
        found.add(wide)
    if found != set(parts):
        raise BuildError("the converter changed the quantized rows; this TensorFlow is not supported")
    for buffer in tree.buffers:
        if buffer.data is not None and len(buffer.data) in lengths and _digest(buffer.data) in parts:
            buffer.data = None


def _digest(data: Any) -> bytes:
    return flatbuffer.digest(np.asarray(data, np.uint8))


def _add_buffer(tree: Any, content: Any) -> int:
    from tensorflow.lite.python import schema_py_generated as schema

    tree.buffers.append(schema.BufferT())
    tree.buffers[-1].data = np.ascontiguousarray(content).reshape(-1).view(np.uint8)
    return len(tree.buffers) - 1

"""Converts the TensorFlow module to TFLite graphs.

One signature of fixed shape for one row and one for a batch, over the same weights. The converter quantizes only with
steps that it guesses, so the int8 search is converted with float32 weights, and its table replaces them afterwards.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from device_agent.shared.protocol import constants
from knnkit.errors import BuildError
from knnkit.model.graph.candidates import QuantizedProducts, Take
from knnkit.model.graph.tfknn import KnnModule
from knnkit.model.tflite import flatbuffer

#: Version of FULLY_CONNECTED that takes float32 rows and int8 weights, and divides a row's whole range into steps
#: (tensorflow/lite/tools/versioning/op_version.cc).
_ASYMMETRIC = 9
#: Name prefix of modules that AutoGraph generates (tensorflow/python/autograph/pyct/loader.py).
_AUTOGRAPH = "__autograph_generated_file"


def convert(model: KnnModule) -> Any:
    """Returns the model tree of `model` (see `flatbuffer.unpack`), with float32 inputs of fixed shapes.

    Signatures: `classify` for one row, `classify_batch`, and the same two for each other search of the model.

    Raises:
        BuildError: the converter changed the int8 rows; this TensorFlow is not supported.
    """
    signatures, weights = {}, {}
    for search in model.search.ways:
        for name, rows in ((constants.SIGNATURE_ONE, 1), (constants.SIGNATURE_BATCH, model.batch_rows(search))):
            key = constants.signature(name, search)
            signatures[key], weights[key] = _trace(model, search, rows)
    with tempfile.TemporaryDirectory() as folder:
        with _without_autograph_files():
            root = model if model.search.products is None else tf.Module()
            tf.saved_model.save(root, folder, signatures=signatures)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(signatures))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        tree = flatbuffer.unpack(bytes(converter.convert()))
    _put_weights(tree, weights)
    if model.search.quantized:
        put_eight_bits(tree, model.search.quantized)
    return tree


def _trace(model: KnnModule, search: str, rows: int) -> tuple[Any, dict[str, NDArray[Any]]]:
    """Returns the graph of a search for so many rows, and the values of its inputs after the first, by their name.

    The converter copies weights many times. So those of products are inputs, which `_put_weights` makes constant.
    """
    queries = tf.TensorSpec((rows, model.n_features), tf.float32, name=constants.INPUT_ROWS)
    asked: dict[str, NDArray[Any]] = {}

    def trace(take: Take, inputs: list[Any]) -> Any:
        def answer(queries: Any, *weights: Any) -> dict[str, Any]:
            given.update(zip(asked, weights))
            with model.search.using(take):
                return model.answer(queries, search)

        return tf.function(answer, input_signature=[queries, *inputs], autograph=False).get_concrete_function()

    def note(name: str, values: NDArray[Any]) -> Any:
        asked[name] = values
        return tf.compat.v1.placeholder(tf.float32, values.shape)

    given: dict[str, Any] = {}
    trace(note, [])
    inputs = [tf.TensorSpec(values.shape, tf.float32, name=name) for name, values in asked.items()]
    return trace(lambda name, _: given[name], inputs), asked


def _put_weights(tree: Any, weights: Mapping[str, Mapping[str, NDArray[Any]]]) -> None:
    """Turns inputs of the model tree into constants; `weights` has their values by signature and name."""
    buffers: dict[str, int] = {}
    for signature in tree.signatureDefs:
        values = weights[signature.signatureKey.decode()]
        graph = tree.subgraphs[signature.subgraphIndex]
        for entry in signature.inputs:
            name = entry.name.decode()
            if name in values:
                if name not in buffers:
                    buffers[name] = _add_buffer(tree, values[name])
                graph.tensors[entry.tensorIndex].buffer = buffers[name]
        signature.inputs = [entry for entry in signature.inputs if entry.name.decode() not in values]
        graph.inputs = np.array([entry.tensorIndex for entry in signature.inputs], np.int32)


@contextlib.contextmanager
def _without_autograph_files() -> Iterator[None]:
    """Removes AutoGraph's temporary modules, which it leaves behind when a build is interrupted."""
    before = set(sys.modules)
    try:
        yield
    finally:
        for name in set(sys.modules) - before:
            if name.startswith(_AUTOGRAPH) and (file := sys.modules[name].__file__):
                Path(file).unlink(missing_ok=True)


def put_eight_bits(tree: Any, products: QuantizedProducts) -> None:
    """Turns the products with the float32 table into hybrid ones: FULLY_CONNECTED of float32 rows with int8 weights.

    Raises:
        BuildError: the converter changed the table.
    """
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

"""Converts the TensorFlow module to TFLite graphs.

Each search has one signature of fixed shape for one row and one for a batch, with shared weights. The converter never
sees the training rows: it would copy them several times, and quantize them only with steps that it guesses.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from device_agent.shared.protocol import constants
from knnkit.model.graph.candidates import BIAS
from knnkit.model.graph.row_blocks import StoredRows
from knnkit.model.graph.tfknn import KnnModule
from knnkit.model.tflite import flatbuffer
from knnkit.model.tflite.load_tensorflow import give_back
from knnkit.model.tflite.op_versions import unknown_converter

#: Version of FULLY_CONNECTED that takes float32 rows and int8 weights, and divides a row's whole range into steps
#: (tensorflow/lite/tools/versioning/op_version.cc).
_ASYMMETRIC = 9
_UNLISTED = (constants.CANDIDATES, constants.BEYOND)


def convert(model: KnnModule) -> Any:
    """Returns the converted model as TensorFlow's objects (`ModelT`), with float32 inputs of fixed shapes.

    Its entry points, which TFLite calls signatures: `classify` for one row and `classify_batch`, and two like these for
    each other search of the model.

    Raises:
        BuildError: this TensorFlow is not supported: its converter changed the int8 rows, or the products of rows.
    """
    ways = {
        constants.signature(name, search): (search, rows)
        for search in model.search.ways
        for name, rows in ((constants.SIGNATURE_ONE, 1), (constants.SIGNATURE_BATCH, model.batch_rows(search)))
    }
    tree = convert_traced(in_one_graph({key: partial(trace, model, *way) for key, way in ways.items()}))
    _unlist(tree)
    give_back()
    return tree


def _unlist(tree: Any) -> None:
    """Removes outputs `CANDIDATES` (ranked rows) and `BEYOND` (distance bound) of a model; tensors keep these names."""
    for signature in tree.signatureDefs:
        tensors = tree.subgraphs[signature.subgraphIndex].tensors
        for entry in signature.outputs:
            if entry.name.decode() in _UNLISTED:
                tensors[entry.tensorIndex].name = entry.name
        signature.outputs = [entry for entry in signature.outputs if entry.name.decode() not in _UNLISTED]


@dataclass(frozen=True)
class Traced:
    """A search as part of a TensorFlow graph."""

    queries: Any  # the tensor of the raw rows to search for
    weights: dict[str, StoredRows]  # the values of the other inputs, by name
    inputs: dict[str, Any]  # the tensors of the weights, by name
    outputs: dict[str, Any]  # output name -> tensor


def in_one_graph(makers: Mapping[str, Callable[[], Traced]]) -> dict[str, Traced]:
    """Calls these functions in one new graph, each in the name scope of its key; returns what each added, by key."""
    traced: dict[str, Traced] = {}

    def add() -> None:
        for key, make in makers.items():
            with tf.name_scope(key):  # the converter sorts operations by name
                traced[key] = make()

    # In a tf.Graph without a function, `==` of two tensors would compare Python objects.
    tf.function(add, autograph=False).get_concrete_function()
    return traced


def convert_traced(traced: Mapping[str, Traced]) -> Any:
    """Converts searches of one graph to a model (`ModelT`), whose entry points (signatures) have the names of the keys.

    Raises:
        BuildError: this TensorFlow is not supported: its converter changed the int8 rows, or the products of rows.
    """
    from tensorflow.lite.python import convert as converter

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "saved_model.pb").write_bytes(_saved_model(traced))
        # Called by tf.lite.TFLiteConverter, after it has loaded the model twice; that takes longer than this call.
        data = converter.convert_saved_model(
            saved_model_dir=folder,
            saved_model_version=1,
            saved_model_tags={tf.saved_model.SERVING},
            saved_model_exported_names=list(traced),
            target_ops={tf.lite.OpsSet.TFLITE_BUILTINS},
        )
    tree = flatbuffer.unpack(bytes(data))
    _shorten(tree)
    _put_weights(tree, {key: each.weights for key, each in traced.items()})
    return tree


def _saved_model(traced: Mapping[str, Traced]) -> bytes:
    """Returns a saved_model.pb with these searches and no variables (tensorflow/core/protobuf/saved_model.proto)."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    graph = saved.meta_graphs.add()
    graph.meta_info_def.tags.append(tf.saved_model.SERVING)
    graph.graph_def.CopyFrom(next(iter(traced.values())).queries.graph.as_graph_def())
    for key, search in traced.items():
        signature = graph.signature_def[key]
        signature.method_name = "tensorflow/serving/predict"
        named = {constants.INPUT_ROWS: search.queries, **search.inputs}
        for ends, tensors in ((signature.inputs, named), (signature.outputs, search.outputs)):
            for name, tensor in tensors.items():
                ends[name].name, ends[name].dtype = tensor.name, tensor.dtype.as_datatype_enum
                ends[name].tensor_shape.CopyFrom(tensor.shape.as_proto())
    return bytes(saved.SerializeToString())


def _shorten(tree: Any) -> None:
    """Keeps equal constants of a model (`ModelT`) in one buffer, and removes name scopes from names of tensors."""
    first: dict[bytes, int] = {}
    shared: dict[int, int] = {}
    for signature in tree.signatureDefs:
        for tensor in tree.subgraphs[signature.subgraphIndex].tensors:
            tensor.name = tensor.name.replace(signature.signatureKey + b"/", b"")
            data = tree.buffers[tensor.buffer].data
            if data is not None:
                shared[tensor.buffer] = first.setdefault(bytes(data), tensor.buffer)
            tensor.buffer = shared.get(tensor.buffer, tensor.buffer)
    for number, other in shared.items():
        if number != other:
            tree.buffers[number].data = None


def trace(model: KnnModule, search: str, rows: int) -> Traced:
    """Adds `search` for `rows` queries to the default graph; its weights are inputs there, not constants."""
    weights: dict[str, StoredRows] = {}
    inputs: dict[str, Any] = {}

    def take(name: str, values: StoredRows) -> Any:
        if name not in weights:
            weights[name] = values
            inputs[name] = tf.compat.v1.placeholder(values.number_type, values.shape)
        return inputs[name]

    queries = tf.compat.v1.placeholder(tf.float32, (rows, model.n_features), constants.INPUT_ROWS)
    with model.search.using(take):
        return Traced(queries, weights, inputs, model.answer(queries, search, listed=rows == 1))


def _put_weights(tree: Any, weights: Mapping[str, Mapping[str, StoredRows]]) -> None:
    """Replaces inputs of a model (`ModelT`) by constants; `weights`: entry point (signature) -> input name -> value."""
    from tensorflow.lite.python import schema_py_generated as schema

    buffers: dict[str, int] = {}
    for signature in tree.signatureDefs:
        values = weights[signature.signatureKey.decode()]
        graph = tree.subgraphs[signature.subgraphIndex]
        for entry in signature.inputs:
            name = entry.name.decode()
            if name in values:
                if name not in buffers:
                    buffers[name] = len(tree.buffers)
                    tree.buffers.append(schema.BufferT())
                    tree.buffers[-1].data = flatbuffer.Pieces(values[name].parts, values[name])
                tensor = graph.tensors[entry.tensorIndex]
                tensor.buffer, tensor.name = buffers[name], None
                if (step := values[name].step) is not None:
                    _put_eight_bits(tree, graph, entry.tensorIndex, step)
                if name.endswith(BIAS):
                    _put_bias(tree, graph, entry.tensorIndex)
        signature.inputs = [entry for entry in signature.inputs if entry.name.decode() not in values]
        graph.inputs = np.array([entry.tensorIndex for entry in signature.inputs], np.int32)


def _put_eight_bits(tree: Any, graph: Any, place: int, step: float) -> None:
    """Makes tensor number `place` int8 multiples of `step`.

    Each FULLY_CONNECTED that uses the tensor becomes hybrid: float32 rows, int8 weights.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    tensor = graph.tensors[place]
    tensor.type, tensor.quantization = schema.TensorType.INT8, schema.QuantizationParametersT()
    tensor.quantization.scale, tensor.quantization.zeroPoint = np.array([step], np.float32), np.array([0], np.int64)
    products = [operator for operator in graph.operators if place in operator.inputs]
    for operator in products:
        if _kind(tree, operator) != schema.BuiltinOperator.FULLY_CONNECTED or operator.inputs[1] != place:
            raise unknown_converter("changed the quantized rows")
        operator.opcodeIndex = _hybrid_code(tree)
        operator.builtinOptions.asymmetricQuantizeInputs = True
    if not products:
        raise unknown_converter("left out the quantized rows")


def _put_bias(tree: Any, graph: Any, place: int) -> None:
    """Makes tensor number `place` the bias of the FULLY_CONNECTED to whose output it is added."""
    from tensorflow.lite.python import schema_py_generated as schema

    adds = [each for each in graph.operators if place in each.inputs]
    products = [each for each in graph.operators if adds and adds[0].inputs[0] in each.outputs]
    known = [schema.BuiltinOperator.ADD, schema.BuiltinOperator.FULLY_CONNECTED]
    if [_kind(tree, each) for each in adds + products] != known:
        raise unknown_converter("changed the products of rows")
    products[0].inputs, products[0].outputs = np.array([*products[0].inputs[:2], place], np.int32), adds[0].outputs
    graph.operators.remove(adds[0])
    graph.tensors[int(adds[0].inputs[0])] = schema.TensorT()  # unused from now on


def _kind(tree: Any, operator: Any) -> int:
    """Returns the number of an operator's operation in the schema's `BuiltinOperator`."""
    entry = tree.operatorCodes[operator.opcodeIndex]
    return int(max(entry.builtinCode, entry.deprecatedBuiltinCode))


def _hybrid_code(tree: Any) -> int:
    """Returns the index in `tree.operatorCodes` of FULLY_CONNECTED for float32 rows and int8 weights; may add it."""
    from tensorflow.lite.python import schema_py_generated as schema

    for number, code in enumerate(tree.operatorCodes):
        if code.builtinCode == schema.BuiltinOperator.FULLY_CONNECTED and code.version == _ASYMMETRIC:
            return number
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = _ASYMMETRIC
    tree.operatorCodes.append(code)
    return len(tree.operatorCodes) - 1

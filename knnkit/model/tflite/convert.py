"""Converts the TensorFlow module to TFLite graphs.

Each search has one signature of fixed shape for one row and one for a batch, with shared weights. The converter never
sees the training rows: it would copy them several times, and quantize them only with steps that it guesses.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from device_agent.shared.protocol import constants
from knnkit.errors import BuildError
from knnkit.model.graph.candidates import BIAS, Take
from knnkit.model.graph.row_blocks import StoredRows
from knnkit.model.graph.tfknn import KnnModule
from knnkit.model.tflite import flatbuffer

#: Version of FULLY_CONNECTED that takes float32 rows and int8 weights, and divides a row's whole range into steps
#: (tensorflow/lite/tools/versioning/op_version.cc).
_ASYMMETRIC = 9
#: Name prefix of modules that AutoGraph generates (tensorflow/python/autograph/pyct/loader.py).
_AUTOGRAPH = "__autograph_generated_file"
_UNLISTED = (constants.CANDIDATES, constants.BEYOND)


def convert(model: KnnModule) -> Any:
    """Returns the model tree of `model` (see `flatbuffer.unpack`), with float32 inputs of fixed shapes.

    Its signatures: `classify` for one row and `classify_batch`, and these two for each other search of the model.

    Raises:
        BuildError: the converter changed the int8 rows; this TensorFlow is not supported.
    """
    traced = {}
    for search in model.search.ways:
        for name, rows in ((constants.SIGNATURE_ONE, 1), (constants.SIGNATURE_BATCH, model.batch_rows(search))):
            traced[constants.signature(name, search)] = trace(model, search, rows)
    tree = convert_traced(traced, model if model.search.products is None else tf.Module())
    _unlist(tree)
    _give_back()
    return tree


def _give_back() -> None:
    """Returns memory that the conversion freed to the system; glibc would keep much of it for later use."""
    if sys.platform == "linux":
        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)


def _unlist(tree: Any) -> None:
    """Removes ranked rows and distance bound (`CANDIDATES`, `BEYOND`) from all signatures; tensors keep these names."""
    for signature in tree.signatureDefs:
        tensors = tree.subgraphs[signature.subgraphIndex].tensors
        for entry in signature.outputs:
            if entry.name.decode() in _UNLISTED:
                tensors[entry.tensorIndex].name = entry.name
        signature.outputs = [entry for entry in signature.outputs if entry.name.decode() not in _UNLISTED]


#: A function of queries and weights, and the weights by the names of its inputs.
Traced = tuple[Any, dict[str, StoredRows]]


def convert_traced(traced: Mapping[str, Traced], root: Any) -> Any:
    """Converts traced functions, by the names of their signatures, to a model tree; `root` owns their variables.

    Raises:
        BuildError: the converter changed the int8 rows; this TensorFlow is not supported.
    """
    with tempfile.TemporaryDirectory() as folder:
        with _without_autograph_files():
            tf.saved_model.save(root, folder, signatures={key: function for key, (function, _) in traced.items()})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(traced))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        tree = flatbuffer.unpack(bytes(converter.convert()))
    _put_weights(tree, {key: weights for key, (_, weights) in traced.items()})
    return tree


def trace(model: KnnModule, search: str, rows: int) -> Traced:
    """Returns the graph of `search` for `rows` queries, and its weights by name, which are inputs after the queries."""
    queries = tf.TensorSpec((rows, model.n_features), tf.float32, name=constants.INPUT_ROWS)
    asked: dict[str, StoredRows] = {}

    def traced(take: Take, inputs: list[Any]) -> Any:
        def answer(queries: Any, *weights: Any) -> dict[str, Any]:
            given.update(zip(asked, weights))
            with model.search.using(take):
                return model.answer(queries, search, listed=rows == 1)

        return tf.function(answer, input_signature=[queries, *inputs], autograph=False).get_concrete_function()

    def note(name: str, values: StoredRows) -> Any:
        asked[name] = values
        return tf.compat.v1.placeholder(values.number_type, values.shape)

    given: dict[str, Any] = {}
    traced(note, [])
    inputs = [tf.TensorSpec(values.shape, values.number_type, name=name) for name, values in asked.items()]
    return traced(lambda name, _: given[name], inputs), asked


def _put_weights(tree: Any, weights: Mapping[str, Mapping[str, StoredRows]]) -> None:
    """Replaces inputs of the model tree by constants; `weights` maps signature -> input name -> value."""
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
    """Makes tensor number `place` int8, and each FULLY_CONNECTED that uses it hybrid: float32 rows, int8 weights.

    `step` is the size of a quantization step.

    Raises:
        BuildError: another operation uses the tensor, or none does.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    tensor = graph.tensors[place]
    tensor.type, tensor.quantization = schema.TensorType.INT8, schema.QuantizationParametersT()
    tensor.quantization.scale, tensor.quantization.zeroPoint = np.array([step], np.float32), np.array([0], np.int64)
    products = [operator for operator in graph.operators if place in operator.inputs]
    for operator in products:
        if _kind(tree, operator) != schema.BuiltinOperator.FULLY_CONNECTED or operator.inputs[1] != place:
            raise BuildError("the converter changed the quantized rows; this TensorFlow is not supported")
        operator.opcodeIndex = _hybrid_code(tree)
        operator.builtinOptions.asymmetricQuantizeInputs = True
    if not products:
        raise BuildError("the converter left out the quantized rows; this TensorFlow is not supported")


def _put_bias(tree: Any, graph: Any, place: int) -> None:
    """Makes tensor number `place` the bias of the FULLY_CONNECTED to whose output it is added.

    Raises:
        BuildError: the tensor is not added to such an output.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    adds = [each for each in graph.operators if place in each.inputs]
    products = [each for each in graph.operators if adds and adds[0].inputs[0] in each.outputs]
    known = [schema.BuiltinOperator.ADD, schema.BuiltinOperator.FULLY_CONNECTED]
    if [_kind(tree, each) for each in adds + products] != known:
        raise BuildError("the converter changed the products of rows; this TensorFlow is not supported")
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


@contextlib.contextmanager
def _without_autograph_files() -> Iterator[None]:
    """On exit, removes the temporary files that AutoGraph leaves behind when a build is interrupted."""
    before = set(sys.modules)
    try:
        yield
    finally:
        for name in set(sys.modules) - before:
            if name.startswith(_AUTOGRAPH) and (file := sys.modules[name].__file__):
                Path(file).unlink(missing_ok=True)

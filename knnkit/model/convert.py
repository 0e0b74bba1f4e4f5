"""TfKNN to TFLite: two signatures of fixed shape over one weight buffer, and the runtime that they need."""

from __future__ import annotations

import tempfile

import tensorflow as tf

from device_agent import contract
from knnkit.model.tfknn import TfKNN


def batch_rows(model: TfKNN) -> int:
    """Returns how many rows the batch signature takes: 64, fewer where its temporary tensors would take over 32 MB.

    A larger one is no faster (its scores leave the cache before TOPK_V2 reads them), and wastes more when part-filled.
    """
    width = model.enrolled.shape[1]
    ranked = max(32, 2 * model.search.candidates)
    per_row = 4 * (len(model.enrolled) * (width if model.metric == "manhattan" else 1) + ranked * width)
    fitting = (32 << 20) // per_row
    return int(max(2, min(64, 1 << max(0, fitting.bit_length() - 1))))


def convert(model: TfKNN) -> bytes:
    """Returns the flatbuffer of `model`: signatures `classify` (1 row) and `classify_batch`, float32, fixed shapes."""
    signatures = {}
    for name, rows in ((contract.SIGNATURE_ONE, 1), (contract.SIGNATURE_BATCH, batch_rows(model))):
        shape = tf.TensorSpec((rows, model.n_features), tf.float32, name=contract.INPUT_ROWS)
        signatures[name] = tf.function(model.answer, input_signature=[shape]).get_concrete_function()
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(model, folder, signatures=signatures)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(signatures))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        return bytes(converter.convert())

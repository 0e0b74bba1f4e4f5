"""Stages to test with: small `.tflite` files, written by TensorFlow.

`python -m support.releases` writes them before it builds; nothing else imports TensorFlow for them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def write_all(folder: Path) -> None:
    """Writes windows.tflite ([1, 16] float32 -> 16) and mixer.tflite ([1, 7, 16] uint8 -> 40 of int8)."""
    import tensorflow as tf

    rng = np.random.default_rng(5)
    first, second = (rng.normal(size=shape).astype("f4") / 4 for shape in ((16, 16), (112, 40)))

    @tf.function(input_signature=[tf.TensorSpec([1, 16], tf.float32)])
    def windows(x: Any) -> Any:
        return tf.nn.leaky_relu(tf.matmul(x / 16.0, first), 0.5)

    @tf.function(input_signature=[tf.TensorSpec([1, 7, 16], tf.float32)])
    def mixer(x: Any) -> Any:
        return tf.matmul(tf.reshape(x, [1, 112]), second)

    (folder / "windows.tflite").write_bytes(_converter(windows).convert())
    quantised = _converter(mixer)
    quantised.optimizations = [tf.lite.Optimize.DEFAULT]
    quantised.representative_dataset = lambda: ([rng.uniform(-1.5, 2, (1, 7, 16)).astype("f4")] for _ in range(50))
    quantised.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    quantised._experimental_disable_per_channel_quantization_for_dense_layers = True  # runtime 2.14 has no newer one
    quantised.inference_input_type, quantised.inference_output_type = tf.uint8, tf.int8
    (folder / "mixer.tflite").write_bytes(quantised.convert())


def _converter(function: Any) -> Any:
    import tensorflow as tf

    return tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])

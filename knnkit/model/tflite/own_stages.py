"""Writes the stages that a build makes itself.

`write_features` computes the features of windows, `knnkit.model.reference.window_features` in float32: amplitudes are
products with cosines and sines, because every runtime has the operators for these. `write_pixels` makes a row of a
picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from knnkit.model.reference.window_features import SPECTRUM, Feature, bands_of, waves
from knnkit.model.tflite.load_tensorflow import load_tensorflow, needs_build_extra


def write_pixels(height: int, width: int, channels: int) -> bytes:
    """Returns a `.tflite` that maps a (1, height, width, channels) picture to a (1, n) row of all its numbers.

    Raises:
        MissingDependency: TensorFlow is not installed.
    """
    shape, size = (1, height, width, channels), height * width * channels
    return _written("picture", shape, lambda tf, picture: tf.reshape(picture, (1, size)))


def write_features(rows: int, columns: int, features: Sequence[Feature]) -> bytes:
    """Returns a `.tflite` that maps the (1, rows * columns) numbers of a window to the (1, f) features.

    Raises:
        MissingDependency: TensorFlow is not installed.
    """

    def run(tf: Any, window: Any) -> Any:
        samples = tf.transpose(tf.reshape(window, (rows, columns)))
        middle = samples - tf.reduce_mean(samples, axis=1, keepdims=True)
        parts = [tf.reshape(_one(tf, samples, middle, *feature), (1, -1)) for feature in features]
        return tf.concat(parts, axis=1)

    return _written("window", (1, rows * columns), run)


@needs_build_extra()
def _written(name: str, shape: tuple[int, ...], run: Callable[[Any, Any], Any]) -> bytes:
    """Returns `run` as a `.tflite`: a function of the TensorFlow module and of the float32 tensor `name`."""
    load_tensorflow()
    import tensorflow as tf

    given, module = [tf.TensorSpec(shape, tf.float32, name)], tf.Module()
    function = tf.function(lambda tensor: run(tf, tensor), input_signature=given, autograph=False)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], module)
    return bytes(converter.convert())


def _one(tf: Any, samples: Any, middle: Any, name: str, bands: int) -> Any:
    if name == SPECTRUM:
        rows = int(samples.shape[1])
        parts = [tf.square(tf.matmul(middle, tf.constant(each, tf.float32))) for each in waves(rows)]
        return tf.matmul(tf.sqrt(parts[0] + parts[1]), tf.constant(bands_of(rows, bands), tf.float32))
    if name == "zero_crossings":
        signs = tf.cast(samples >= 0.0, tf.float32)
        return tf.reduce_sum(tf.abs(signs[:, 1:] - signs[:, :-1]), axis=1)
    if name in ("std", "rms"):
        return tf.sqrt(tf.reduce_mean(tf.square(middle if name == "std" else samples), axis=1))
    return getattr(tf, f"reduce_{name}")(samples, axis=1)

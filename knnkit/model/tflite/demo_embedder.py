"""Trains a small network for `knnkit demo --picture`.

Trains a classifier of pictures and removes its last layer; the rest is an embedder.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knnkit.model.tflite.load_tensorflow import load_tensorflow


def train_embedder(pictures: NDArray[np.float32], codes: NDArray[np.int64]) -> bytes:
    """Returns a `.tflite` that maps a picture to 16 numbers.

    Trains it with `pictures`, (n, height, width, 1) values from 0 to 1, and their (n,) class indices `codes`.
    """
    load_tensorflow()
    import tensorflow as tf

    keras: Any = tf.keras
    keras.utils.set_random_seed(0)  # of the initial weights and of the order of pictures
    shape = pictures.shape[1:]
    entrance = keras.Input(shape)
    found = keras.layers.Conv2D(16, 3, activation="relu")(entrance)
    row = keras.layers.Dense(16)(keras.layers.Flatten()(found))
    names = keras.layers.Dense(int(codes.max()) + 1)(keras.layers.ReLU()(row))
    model = keras.Model(entrance, names)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(pictures, codes, epochs=8, verbose=0)
    embedder = keras.Model(entrance, row)
    function = tf.function(lambda x: embedder(x), input_signature=[tf.TensorSpec((1, *shape), tf.float32)])
    # With the model as a second argument, the weights would stay variables, which a stage cannot have.
    logging.getLogger("absl").setLevel(logging.ERROR)  # it asks for that argument
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    return bytes(converter.convert())

"""The graph of features is the float64 definition, within its bound."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from knnkit.config.input_models import KNOWN
from knnkit.model.reference import window_features
from knnkit.model.reference.window_features import SPECTRUM
from knnkit.model.tflite.load_tensorflow import load_tensorflow
from knnkit.model.tflite.own_stages import write_features


@pytest.mark.parametrize(("rows", "columns", "bands"), [(2, 1, 1), (7, 3, 3), (32, 3, 8), (128, 6, 64)])
def test_features_of_the_graph_are_those_of_the_definition(rows: int, columns: int, bands: int) -> None:
    load_tensorflow()
    import tensorflow as tf

    features = [*((name, 0) for name in KNOWN), (SPECTRUM, bands)]
    data = write_features(rows, columns, features)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the interpreter is deprecated, but comes with TensorFlow
        interpreter = tf.lite.Interpreter(model_content=data)
    interpreter.allocate_tensors()
    assert interpreter.get_input_details()[0]["name"].partition(":")[0].endswith("window")
    rng = np.random.default_rng(rows)
    shape = (rows, columns)
    kinds = [rng.normal(size=shape), rng.normal(1000.0, 0.01, shape), np.full(shape, 9.81), np.zeros(shape)]
    kinds += [rng.normal(size=shape) * 1e6, np.sin(np.arange(rows))[:, None] + np.zeros(shape)]
    windows = np.array(kinds, np.float32).astype(np.float64)
    expected, limits = window_features.compute(windows, features), window_features.bound(windows)
    assert expected.shape[1] == len(window_features.names([f"c{number}" for number in range(columns)], features))
    for window, row, limit in zip(windows, expected, limits):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], window.reshape(1, -1).astype(np.float32))
        interpreter.invoke()
        found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
        assert np.abs(found - row).max() <= limit
    crossings = expected[0, 5 * columns : 6 * columns]
    signs = windows[0] >= 0.0
    assert crossings.tolist() == (signs[1:] != signs[:-1]).sum(axis=0).tolist()


def test_an_amplitude_is_that_of_the_wave() -> None:
    window = 3.0 * np.sin(2.0 * np.pi * 5 * np.arange(64) / 64)[None, :, None] + 7.0
    found = window_features.compute(window, [(SPECTRUM, 32)])[0]
    assert found.argmax() == 4
    assert found[4] == pytest.approx(3.0)

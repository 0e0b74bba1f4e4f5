"""Stages and sounds to test with.

`python -m support.releases` writes them before it builds; nothing else imports TensorFlow for them.
"""

from __future__ import annotations

import wave
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


#: Labels of the tones, and their pitches in Hz.
PITCHES = {"low": 300, "middle": 900, "high": 2500}


def write_tones(folder: Path) -> None:
    """Writes folder/PITCH/TAKE-N.wav: noisy tones of PITCHES at two rates, in ten takes."""
    rng = np.random.default_rng(6)
    for label, pitch in PITCHES.items():
        (folder / label).mkdir(parents=True)
        for number in range(40):
            rate = (8_000, 11_025)[number % 2]
            sound = tone(pitch * rng.uniform(0.9, 1.1), rate, rng)
            write_wav(folder / label / f"take{number % 10}-{number}.wav", sound, rate)


def tone(pitch: float, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Returns an eighth of a second of a noisy tone, from -1 to 1."""
    time = np.arange(rate // 8) / rate
    return np.asarray(0.6 * np.sin(2 * np.pi * (pitch * time + rng.uniform())) + rng.normal(0, 0.03, len(time)))


def write_wav(path: Path, sound: np.ndarray, rate: int) -> None:
    """Writes PCM of 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, len(sound), "NONE", ""))
        file.writeframes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())


def _converter(function: Any) -> Any:
    import tensorflow as tf

    return tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])

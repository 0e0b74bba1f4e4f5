"""Releases with networks before the search, for boards: spoken words and small pictures, and files they never saw.

Needs espeak-ng and pyopen-wakeword. One child process builds both, since it loads TensorFlow.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from support.releases import CREATED, ROOT, Releases

WORDS = ("yes", "no", "stop", "left")
#: Accents and voices of espeak-ng; the last voice is never trained on.
ACCENTS, VOICES = ("en-us", "en-gb", "en-gb-scotland", "en-029"), ("m1", "m3", "f2", "m5")
STRANGER = "hippopotamus"
DEPLOY = {
    "words": """
        model:
          name: words
          data: {files: 'words/training/{word}/{voice}-*.wav', label: word}
          split: {group: voice}
          input:
            audio: {rate: 16000, seconds: 1.5}
            stages:
              - {file: melspectrogram.tflite, multiply: 0.1, add: 2.0}
              - {file: embedding_model.tflite, frames: 76, hop: 8}
            pool: [mean, max]
          k: 3
          reject: 0.95
          golden: {rows: 10}
        release: {version: 1.0.0}
        """,
    "pictures": """
        model:
          name: pictures
          data: {files: ['pictures/training/{digit}/*.png', 'pictures/training/{digit}/*.jpg'], label: digit}
          input: {image: {size: [16, 16], channels: 1}, stages: [strokes.tflite]}
          k: 3
          golden: {rows: 30}
        release: {version: 1.0.0}
        """,
}


@dataclass(frozen=True)
class BoardInputs:
    """The folder with `NAME/release` and `NAME/unseen/LABEL/FILE` of `words` and `pictures`."""

    folder: Path

    def release(self, name: str) -> Path:
        return self.folder / name / "release"

    def unseen(self, name: str) -> Path:
        return self.folder / name / "unseen"


def make(folder: Path, releases: Releases) -> BoardInputs:
    """Speaks, draws, and builds the releases, which the key of `releases` signs."""
    _speak(folder / "words")
    _draw(folder / "pictures")
    env = os.environ | {"SOURCE_DATE_EPOCH": str(CREATED), "TF_CPP_MIN_LOG_LEVEL": "2"}
    command = [sys.executable, "-c", _PROGRAM, str(ROOT), str(folder), str(releases.private_key)]
    subprocess.run(command, env=env, check=True, timeout=600)
    return BoardInputs(folder)


def _speak(folder: Path) -> None:
    for accent in ACCENTS:
        for voice in VOICES:
            part = "unseen" if voice == VOICES[-1] else "training"
            for word in (*WORDS, *([STRANGER] if part == "unseen" else [])):
                path = folder / part / (word if word in WORDS else "unknown") / f"{voice}-{accent}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                command = ["espeak-ng", "-v", f"{accent}+{voice}", "-w", str(path), word]
                subprocess.run(command, check=True, capture_output=True)


def _draw(folder: Path) -> None:
    """Writes handwritten digits as PNG and JPEG files of two sizes."""
    from PIL import Image
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    for number in range(400):
        part = "training" if number % 8 else "unseen"
        path = folder / part / str(digits[number]) / f"{number}.{'png' if number % 3 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = Image.fromarray((images[number].reshape(8, 8) * 15.9).astype(np.uint8))
        pixels.resize((16, 16) if number % 2 else (40, 40)).save(path, quality=95)


def write_strokes(path: Path) -> None:
    """Writes a network of convolutions on 16x16 pixels."""
    import tensorflow as tf

    rng = np.random.default_rng(2)
    first, second = (tf.constant(rng.normal(size=shape) / 6, tf.float32) for shape in ((5, 5, 1, 12), (4, 4, 12, 16)))

    @tf.function(input_signature=[tf.TensorSpec([1, 16, 16, 1], tf.float32)])
    def strokes(x: Any) -> Any:
        x = tf.nn.relu(tf.nn.conv2d(x - 0.5, first, 2, "SAME"))
        return tf.reshape(tf.nn.relu(tf.nn.conv2d(x, second, 2, "SAME")), (1, 256))

    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([strokes.get_concrete_function()]).convert())


def networks() -> Path:
    """Returns the folder of the wake-word networks of pyopen-wakeword."""
    found = importlib.util.find_spec("pyopen_wakeword")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "models"


_PROGRAM = """
import shutil, sys, textwrap
from pathlib import Path
root, folder, key = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
sys.path[:0] = [root, root + "/tests"]
from knnkit.config import parse
from knnkit.release.build import build_release
from knnkit.release.signing import FileSigner
from support import board_inputs
for name in ("melspectrogram.tflite", "embedding_model.tflite"):
    shutil.copy(board_inputs.networks() / name, folder / name)
board_inputs.write_strokes(folder / "strokes.tflite")
for name, text in board_inputs.DEPLOY.items():
    build = parse.parse(textwrap.dedent(text), base=folder).builds()[0]
    build_release(build, FileSigner.load(Path(key)), out=folder / name / "release")
"""

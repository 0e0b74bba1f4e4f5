"""Stages on the host: a bad file is named, and a network that slides gives the outputs of windows in one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_agent.shared.protocol.input_info import Input, Stage
from device_agent.shared.protocol.record import replace
from knnkit.errors import BuildError
from knnkit.model.embedding import embed, read_stages


@pytest.mark.parametrize("data", [b"", b"hello", b"PK" + bytes(99), bytes(range(256)) * 9], ids=len)
def test_a_file_of_another_kind_is_refused_by_its_path(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mine.tflite"
    path.write_bytes(data)
    with pytest.raises(BuildError, match=r"mine\.tflite: it is not a \.tflite file") as found:
        read_stages(Input((Stage("", ""),)), [path])
    assert found.value.hint


def test_a_damaged_stage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(40))
    input, files = read_stages(Input((Stage("", ""),)), [path])
    with pytest.raises(BuildError, match=r"stage-1.tflite cannot be loaded|TensorFlow crashed") as found:
        embed(input, files, [np.zeros(3, np.float32)])
    assert "deploy.yaml" in found.value.hint


def network(padding: str) -> bytes:
    """Returns a small network of convolutions on 20 frames of 4 numbers, which moves by 2 frames."""
    import tensorflow as tf

    rng, middle = np.random.default_rng(1), {"VALID": (8, 2), "SAME": (10, 4)}[padding]
    first, second = (tf.constant(rng.normal(size=shape), tf.float32) for shape in ((5, 3, 1, 8), (*middle, 8, 6)))

    @tf.function(input_signature=[tf.TensorSpec([1, 20, 4, 1], tf.float32)])
    def run(x: Any) -> Any:
        return tf.nn.conv2d(tf.nn.leaky_relu(tf.nn.conv2d(x, first, (1, 2, 1, 1), padding)), second, 1, "VALID")

    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([run.get_concrete_function()]).convert())


@pytest.mark.parametrize(("padding", "hop", "slides"), [("VALID", 2, True), ("VALID", 4, False), ("SAME", 2, False)])
def test_a_network_that_slides_is_found_by_its_outputs(padding: str, hop: int, slides: bool, tmp_path: Path) -> None:
    """The first inputs run on windows, later ones once as a whole; both give the outputs of windows."""
    (tmp_path / "net.tflite").write_bytes(network(padding))
    stage = Stage("", "", frames=20, hop=hop, multiply=2.0, add=-1.0)
    input, files = read_stages(Input((stage,), pool=("mean",)), [tmp_path / "net.tflite"])
    values = [np.random.default_rng(seed).normal(size=(40 + seed, 4)).astype(np.float32) for seed in range(12)]
    found = embed(input, files, values)
    assert found.input.stages[0].slides is slides
    windows = [each[start : start + 20] for each in values for start in range(0, len(each) - 19, hop)]
    alone = iter(embed(replace(input, pool=()), files, windows).rows)
    expected = [np.mean([next(alone) for _ in range(0, len(each) - 19, hop)], axis=0) for each in values]
    assert found.rows == pytest.approx(np.reshape(expected, found.rows.shape), rel=1e-4, abs=1e-4)

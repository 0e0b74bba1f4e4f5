"""Stages on the host: a bad file is named, and a network that slides gives the outputs of windows in few runs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_agent.shared.embedding.stage import StageRunner, rounded
from device_agent.shared.protocol.constants import MAX_STAGES
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.input_info import Input, Stage
from knnkit.errors import BuildError
from knnkit.model.embedding import embed, read_stages
from knnkit.model.tflite.flatbuffer import IDENTIFIER
from knnkit.model.tflite.load_tensorflow import open_interpreter
from knnkit.model.tflite.run_stages import BuildRunner

Make = Callable[..., StageRunner]


@pytest.mark.parametrize("data", [b"", b"hello", b"PK" + bytes(99), bytes(range(256)) * 9], ids=len)
def test_a_file_of_another_kind_is_refused_by_its_path(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mine.tflite"
    path.write_bytes(data)
    with pytest.raises(BuildError, match=r"mine\.tflite: it is not a \.tflite file") as found:
        read_stages(Input((Stage("", ""),)), [path])
    assert found.value.hint


@pytest.mark.parametrize("first", [None, b"first"])
def test_more_stages_than_a_release_holds_are_refused(first: bytes | None, tmp_path: Path) -> None:
    (tmp_path / "mine.tflite").write_bytes(bytes(4) + IDENTIFIER)
    for count in range(1, MAX_STAGES + 2):
        given = Input((Stage("", ""),) * count), [tmp_path / "mine.tflite"] * count, first
        if count + (first is not None) <= MAX_STAGES:
            assert len(read_stages(*given)[1]) == len(read_stages(*given)[0].stages) == count + (first is not None)
        else:
            with pytest.raises(BuildError, match=f"input has {count} stages"):
                read_stages(*given)


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


@pytest.fixture
def runner(tmp_path: Path) -> Make:
    """Makes the runner of a build, which finds out what saves work."""

    def make(data: bytes, **stage: Any) -> StageRunner:
        path = tmp_path / "net.tflite"
        path.write_bytes(data)
        return BuildRunner(Stage("net.tflite", "", **stage), partial(open_interpreter, model_path=str(path)))

    return make


@pytest.mark.parametrize(("padding", "hop", "slides"), [("VALID", 2, True), ("VALID", 4, False), ("SAME", 2, False)])
def test_a_network_that_slides_is_found_by_its_outputs(padding: str, hop: int, slides: bool, runner: Make) -> None:
    """The first inputs run on windows, later ones on many at once; both give the outputs of windows."""
    data = network(padding)
    tried, alone = (runner(data, frames=20, hop=hop, multiply=2.0, add=-1.0) for _ in range(2))
    values = [np.random.default_rng(seed).normal(size=(40 + seed, 4)).astype(np.float32) for seed in range(12)]
    found = [tried.run(each) for each in values]
    assert tried.stage.slides is slides
    for each, outputs in zip(values, found, strict=True):
        windows = [alone.run(each[start : start + 20]) for start in range(0, len(each) - 19, hop)]
        assert outputs == pytest.approx(np.concatenate(windows), rel=1e-4, abs=1e-4)


def spectrum(kind: str) -> bytes:
    """Returns a small network on a sound of any length: 3 numbers for each 6 samples, 4 samples after the last."""
    import tensorflow as tf

    weights = tf.constant(np.random.default_rng(2).normal(size=(6, 1, 3)), tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([1, None], tf.float32)])
    def run(x: Any) -> Any:
        found = tf.abs(tf.nn.conv1d(x[..., None], weights, 4, "SAME" if kind == "padded" else "VALID"))
        if kind == "loudest":
            return tf.maximum(found, tf.reduce_max(found) / 4.0)
        return found / tf.reduce_mean(found) if kind == "mean" else found

    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([run.get_concrete_function()]).convert())


@pytest.mark.parametrize(("kind", "step"), [("plain", 4), ("loudest", 4), ("mean", 0), ("padded", 0)])
def test_zeros_fill_a_sound_only_where_they_change_no_output(kind: str, step: int, runner: Make) -> None:
    data = spectrum(kind)
    tried, same = runner(data), runner(data)
    sounds = [np.random.default_rng(seed).normal(size=50 + 7 * seed).astype(np.float32) for seed in range(12)]
    found = [tried.run(sound) for sound in sounds]
    assert (tried.stage.step, tried.stage.reach) == (step, 6 if step else 0)
    for sound, outputs in zip(sounds, found, strict=True):
        assert outputs == pytest.approx(runner(data).run(sound), rel=1e-4)
        same.run(sounds[0])
    assert same.stage.step == 0


def test_a_sound_that_is_too_short_is_refused(runner: Make) -> None:
    with pytest.raises(BadInput, match=r"net.tflite takes at least 6 numbers, and gets 5"):
        runner(spectrum("plain"), reach=6, step=4).run(np.zeros(5, np.float32))


def test_threads_that_slide_give_the_outputs_of_windows(tmp_path: Path) -> None:
    """Whatever the lengths of the inputs, the number of windows of a run, and the shapes that are ready."""
    (tmp_path / "net.tflite").write_bytes(network("VALID"))
    opened = []

    def load() -> Any:
        opened.append(open_interpreter(model_path=str(tmp_path / "net.tflite")))
        return opened[-1]

    runner = StageRunner(Stage("net", "", frames=20, hop=2), load)
    rng = np.random.default_rng(3)
    values = [rng.normal(size=(int(size), 4)).astype(np.float32) for size in rng.integers(20, 600, 20)]
    expected = [runner.run(each) for each in values]
    for most in (1, 5, 16, 256):
        with ThreadPoolExecutor(4) as pool:
            for found, once in zip(pool.map(partial(runner.slide, most=most), values), expected, strict=True):
                assert found == pytest.approx(once, rel=1e-4, abs=1e-4)
    assert len(opened) <= 16 + 4


def test_a_rounded_number_is_little_larger_and_one_of_few() -> None:
    found = [rounded(count) for count in range(1, 257)]
    assert all(count <= each <= count * 1.125 + 1 for count, each in enumerate(found, 1))
    assert found[:16] == [*range(1, 17)]
    assert len(set(found)) <= 48

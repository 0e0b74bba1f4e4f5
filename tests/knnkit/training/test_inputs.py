"""The stages of deploy.yaml: messages name the user's files, and a command embeds the same inputs once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from support import stages
from support.releases import Releases

from device_agent.shared.embedding.decode import from_json
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.input_info import Audio, Image, Input
from device_agent.shared.protocol.model_info import Gates
from knnkit.config import parse
from knnkit.data.dataset import dataset
from knnkit.data.raw_files import list_files
from knnkit.errors import BuildError, DataError
from knnkit.training import inputs, source
from knnkit.training.inputs import Embedder, embedder_of
from knnkit.training.rows import load_rows


def embedder(folder: Path, input: str) -> Embedder:
    text = f"model: {{name: m, data: {{sklearn: digits}}, input: {input}}}"
    made = embedder_of(parse.parse(text, base=folder).builds()[0].model.input)
    assert made is not None
    return made


def rows(width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(5, width)).astype(np.float32)


@pytest.mark.parametrize("input", ["{stages: [windows.tflite]}", "{stages: [{file: windows.tflite, frames: 16}]}"])
def test_a_row_that_does_not_fit_names_the_user_s_file(input: str, releases: Releases) -> None:
    made = embedder(releases.folder, input)
    with pytest.raises(BuildError, match=r"windows.tflite takes") as found:
        made.apply(dataset(rows(15), ["a"] * 5))
    assert "stage-1" not in str(found.value) + found.value.hint


def test_the_same_inputs_are_embedded_once(releases: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    made, asked = embedder(releases.folder, "{stages: [windows.tflite]}"), []
    embed = inputs.embed
    monkeypatch.setattr(inputs, "embed", lambda *given: asked.append(given) or embed(*given))
    first, _ = made.apply(dataset(rows(16), ["a"] * 5))
    again, _ = embedder(releases.folder, "{stages: [windows.tflite]}").apply(dataset(rows(16), ["b"] * 5))
    assert (again.rows == first.rows).all()
    assert len(asked) == 1
    other, _ = made.apply(dataset(rows(16, seed=1), ["a"] * 5))
    assert (other.rows != first.rows).any()
    assert len(asked) == 2


def test_a_sound_of_another_length_keeps_its_hint(releases: Releases) -> None:
    made = embedder(releases.folder, "{audio: {rate: 16000}, stages: [windows.tflite]}")
    with pytest.raises(BuildError, match=r"row 0: the sound is too short: it has 0\.00093. s") as found:
        made.apply(dataset(rows(15).clip(-1, 1), ["a"] * 5))
    assert "seconds: 0.001 under audio: in deploy.yaml" in found.value.hint


def test_a_picture_of_another_size_gets_the_size_of_the_stage(tmp_path: Path) -> None:
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([1, 4, 6, 3], tf.float32)])
    def mean(x: Any) -> Any:
        return tf.reduce_mean(x, (1, 2))

    converter = tf.lite.TFLiteConverter.from_concrete_functions([mean.get_concrete_function()])
    (tmp_path / "mean.tflite").write_bytes(converter.convert())
    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a" / "1.npy", np.zeros((9, 9, 3), np.uint8))
    listed = list_files([tmp_path / "*" / "*.npy"], "label", None, None)
    for wrong in ("size: [5, 6]", "size: [4, 6], channels: 1", "size: [2, 2], channels: 3", "size: [6, 4]"):
        with pytest.raises(BuildError, match=r"mean.tflite takes pictures of 4x6x3 numbers, but `image` ") as found:
            embedder(tmp_path, f"{{image: {{{wrong}}}, stages: [mean.tflite]}}")
        assert found.value.hint == "size: [4, 6], channels: 3 under image: in deploy.yaml"
    right = found.value.hint.partition(" under")[0]
    made, _ = embedder(tmp_path, f"{{image: {{{right}}}, stages: [mean.tflite]}}").apply_to_files(listed)
    assert made.rows.shape == (1, 3)


@pytest.mark.parametrize(
    ("shape", "outputs", "said", "hint"),
    [
        ([1, 3, 4, 6], 1, "mean.tflite takes the channels before height and width", "Permute((3, 1, 2))"),
        ([1, 3, 9, 9], 1, "mean.tflite takes the channels before height and width", "onnx2tf"),
        ([1, 4, 6, 3], 2, "mean.tflite has 2 outputs, but a stage has one input and one output", "tf.keras.Model("),
        ([None, None, None, 3], 1, "takes ?x?x?x3 numbers, but the input has 72", "batch_size=1"),
    ],
)
def test_a_network_that_would_read_pictures_otherwise_is_refused(
    shape: list[Any], outputs: int, said: str, hint: str, tmp_path: Path
) -> None:
    """Its numbers would be those of another picture, or of another layer, and every board would agree with the host."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32)])
    def mean(x: Any) -> Any:
        return {str(number): tf.reduce_mean(x, (1, 2)) * float(number + 1) for number in range(outputs)}

    converter = tf.lite.TFLiteConverter.from_concrete_functions([mean.get_concrete_function()])
    (tmp_path / "mean.tflite").write_bytes(converter.convert())
    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a" / "1.npy", np.zeros((4, 6, 3), np.uint8))
    listed, asked = list_files([tmp_path / "*" / "*.npy"], "label", None, None), "{image: {size: [4, 6]}, stages: "
    with pytest.raises(BuildError) as found:
        embedder(tmp_path, f"{asked}[mean.tflite]}}").apply_to_files(listed)
    assert said in str(found.value)
    assert hint in found.value.hint


def test_samples_that_float32_does_not_tell_apart_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages compute in float32: a small wave far from 0 would have the features of noise."""
    monkeypatch.setattr(inputs.own_stages, "write_features", lambda *_: b"stage")
    monkeypatch.setattr(Embedder, "apply", lambda self, rows: (rows, self))
    asked = "{window: {columns: [p, q], rows: 20}, features: [std]}"
    text = f"model: {{name: m, data: {{files: '*.csv', label: kind}}, test: 0, input: {asked}}}"
    for far, named in ((1e7, [True, False]), (0.0, [])):
        waves = (f"{far + np.sin(at / 9):.5f},{np.cos(at / 7):.5f},a\n" for at in range(200))
        (tmp_path / "one.csv").write_text(f"p,q,kind\n{''.join(waves)}")
        found = load_rows(parse.parse(text, base=tmp_path).builds()[0]).warnings
        assert [f"the column {name!r} in steps" in each for each in found for name in "pq"] == named
        assert all("subtract a number near its values" in each for each in found)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_small_picture_without_stages_is_its_pixels(channels: int, tmp_path: Path) -> None:
    """The agent answers the golden pictures with these pixels, too: `build` compares both."""
    random = np.random.default_rng(0)
    for label, light in (("dark", 0), ("light", 128)):
        (tmp_path / label).mkdir()
        for number in range(12):
            pixels = random.integers(light, light + 128, (4, 5, 3)).astype(np.uint8)
            Pillow.fromarray(pixels).save(tmp_path / label / f"{number}.png")
    how = f"{{image: {{size: [4, 5], channels: {channels}, normalise: {{mean: 0, std: 1}}}}}}"
    text = f"model: {{name: m, data: {{files: '*/*.png'}}, input: {how}, k: 1, test: 0.5}}"
    material = source.load(parse.parse(text, base=tmp_path).builds()[0])
    assert material.training.ids is not None
    for name, row in zip(material.training.ids, material.training.rows):
        pixels = np.asarray(Pillow.open(tmp_path / name)).astype(np.float32)
        grey = (pixels * np.array([0.299, 0.587, 0.114], np.float32)).sum(axis=2)
        assert np.allclose(row, (pixels if channels == 3 else grey).reshape(-1), rtol=1e-6)
    made = material.build(Gates(accuracy=1.0))
    assert made.verdict.failures == ()
    assert [*made.stages] == [constants.STAGE_FILES[0]]


def build(folder: Path, data: str) -> Any:
    text = f"{{audio: {{rate: 16000, seconds: 0.001}}, stages: ['{folder}/windows.tflite']}}"
    return parse.parse(f"model: {{name: m, data: {data}, input: {text}}}", base=folder).builds()[0]


@pytest.mark.filterwarnings("ignore:Statistics for quantized")
def test_sounds_are_named_that_are_short_or_junk_or_not_read(tmp_path: Path) -> None:
    stages.write_all(tmp_path)
    for number, length in enumerate((16, 12, 16, 3)):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        stages.write_wav(tmp_path / "ab"[number % 2] / f"{number}.wav", np.full(length, 0.1), 16_000)
    found = load_rows(build(tmp_path, "{files: '*/*.wav'}"))
    assert len(found.warnings) == 1
    assert "2 of 4 sounds are shorter than `seconds: 0.001`" in found.warnings[0]
    assert "b/1.wav" in found.warnings[0]
    table = tmp_path / "clips.csv"
    table.write_text("file,label\na/0.wav,a\nb/1.wav,b\n")
    with pytest.raises(DataError, match="'file' names files") as caught:
        load_rows(build(tmp_path, "{file: clips.csv}"))
    assert caught.value.hint.startswith("path: file in")
    assert len(load_rows(build(tmp_path, "{file: clips.csv, path: file}")).rows.rows) == 2
    junk = tmp_path / "a" / "zz.wav"
    for content in (b"RIFF....JUNK", b"junk"):
        junk.write_bytes(content * 9)
        with pytest.raises(DataError) as caught:
            load_rows(build(tmp_path, "{files: '*/*.wav'}"))
        assert caught.value.hint.endswith(f"rm {junk}")


def test_golden_sounds_of_many_lengths_fit_a_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one was taken for the length of all."""
    monkeypatch.setattr(inputs, "GOLDEN_BYTES", 12 * 20_000)
    (tmp_path / "a").mkdir()
    for number in range(10):
        np.save(tmp_path / "a" / f"{number}.npy", np.ones(10_000 if number else 16, np.int16))
    raw = list_files([tmp_path / "*" / "*.npy"], "label", None, None)
    made = Embedder(Input(audio=Audio(8_000)), {}, dict(zip(raw.names, raw.paths)))
    assert made.most_golden(raw.dataset()) == 13


def test_some_golden_pictures_are_resized_by_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    for number in range(4):
        np.save(tmp_path / "a" / f"{number}.npy", np.full((90, 70, 3), 9 + number, np.uint8))
    raw = list_files([tmp_path / "*" / "*.npy"], "label", None, None)
    made = Embedder(Input(image=Image((12, 10), 3)), {}, dict(zip(raw.names, raw.paths)))
    monkeypatch.setattr(inputs, "GOLDEN_BYTES", 4 * 45_000)
    found = [from_json(json.loads(line)["input"], made.input) for line in made.lines(raw.dataset()).splitlines()]
    assert [len(pixels) for pixels in found] == [90, 90, 12, 12]

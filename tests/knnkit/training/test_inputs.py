"""The stages of deploy.yaml: messages name the user's files, and a command embeds the same inputs once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.releases import Releases

from knnkit.config import parse
from knnkit.data.dataset import dataset
from knnkit.errors import BuildError
from knnkit.training import inputs
from knnkit.training.inputs import Embedder, embedder_of


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

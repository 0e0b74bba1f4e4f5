"""Stages that cannot be loaded: the message names the file, whatever is wrong with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_agent.shared.protocol.input_info import Input, Stage
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

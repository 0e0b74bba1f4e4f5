"""Sounds of any length: rows are of one width, and the interpreters that are kept are few and small."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from device_agent.shared.embedding.chain import Chain
from device_agent.shared.embedding.parsers import InputJsonParser
from device_agent.shared.embedding.stage import StageRunner
from device_agent.shared.protocol.errors import ModelUnusable
from device_agent.shared.protocol.input_info import Input, Stage

MEGABYTE = 1 << 20


class Sums:
    """An interpreter of 4 numbers for each 6 samples of a sound of any length, 4 samples after the last."""

    opened: list[Sums]

    def __init__(self) -> None:
        self.length = 1
        self.opened.append(self)

    def get_input_details(self) -> list[dict[str, Any]]:
        shape = {"shape": np.array([self.length]), "shape_signature": np.array([-1])}
        return [{"index": 0, "dtype": np.float32, "quantization": (0.0, 0)} | shape]

    def get_output_details(self) -> list[dict[str, Any]]:
        shape = {"shape": np.array([1, 4]), "shape_signature": np.array([-1, 4])}
        return [{"index": 1, "dtype": np.float32, "quantization": (0.0, 0)} | shape]

    def get_tensor_details(self) -> list[dict[str, Any]]:
        return self.get_input_details() + self.get_output_details()

    def resize_tensor_input(self, _: int, shape: tuple[int, ...], *, strict: bool) -> None:
        assert not strict
        self.length = shape[0]

    def allocate_tensors(self) -> None:
        pass

    def set_tensor(self, _: int, values: np.ndarray) -> None:
        self.values = values

    def invoke(self) -> None:
        windows = np.lib.stride_tricks.sliding_window_view(self.values, 6)[::4]
        self.found = (windows.sum(axis=1)[:, np.newaxis] * np.arange(1, 5)).astype(np.float32)

    def get_tensor(self, _: int) -> np.ndarray:
        return self.found


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Sums]:
    monkeypatch.setattr(Sums, "opened", [], raising=False)
    return Sums.opened


@pytest.mark.parametrize("step", [0, 4])
def test_a_sound_of_one_window_is_a_row_as_any_other(step: int) -> None:
    stage = Stage("net", "", reach=6 if step else 0, step=step)
    chain = Chain(Input((stage,), ("mean",)), [StageRunner(stage, Sums)])
    for length in (6, 9, 10, 30):
        assert chain.embed(np.ones(length, np.float32)).tolist() == [6.0, 12.0, 18.0, 24.0]


def test_a_sound_of_another_length_than_the_model_takes_is_one_bad_line() -> None:
    stage = Stage("net", "")
    chain = Chain(Input((stage,)), [StageRunner(stage, Sums)], features=8)
    found = InputJsonParser(chain).parse(b"".join(b"%s\n" % str([1.0] * length).encode() for length in (10, 14, 11)))
    assert found.rows.shape == (2, 8)
    assert found.errors == {1: (2, "the stages make 12 numbers of this input, and the model takes 8")}


def test_interpreters_of_long_sounds_are_not_all_kept(opened: list[Sums]) -> None:
    runner = StageRunner(Stage("net", ""), Sums)
    for millions in range(1, 9):
        runner.run(np.zeros(millions * MEGABYTE, np.float32))
    kept = [each.interpreter for each in runner._pool._idle]
    assert 1 < len(kept) < len(opened) == 8
    assert sum(each.length * 4 for each in kept) <= 64 * MEGABYTE


def test_lengths_of_short_sounds_keep_their_interpreters(opened: list[Sums]) -> None:
    runner = StageRunner(Stage("net", ""), Sums)
    for length in [*range(10, 26), *range(10, 26)]:
        runner.run(np.zeros(length, np.float32))
    assert len(opened) == 16


def test_without_memory_for_another_interpreter_one_takes_all_shapes() -> None:
    runner = StageRunner(Stage("net", ""), _once())
    for length in (6, 10, 14):
        assert runner.run(np.ones(length, np.float32)).shape == ((length - 2) // 4, 4)


def test_an_interpreter_that_no_thread_gets_is_named() -> None:
    runner = StageRunner(Stage("net", ""), _once())
    with runner._pool.take((6,)), pytest.raises(ModelUnusable, match="net cannot be opened again: no memory"):
        runner.run(np.ones(6, np.float32))


def _once() -> Any:
    def load() -> Sums:
        if Sums.opened:
            raise ValueError("no memory")
        return Sums()

    return load

"""A chain of stages is what NumPy makes of the same windows, one by one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.releases import Releases

from device_agent.inference.interpreter import Loader
from device_agent.shared.embedding.chain import Chain, pooled
from device_agent.shared.embedding.parsers import InputJsonParser
from device_agent.shared.embedding.stage import MAX_NUMBERS, StageRunner, TooFew, WrongLength, fitting_shape
from device_agent.shared.protocol.errors import BadInput, ModelUnusable
from device_agent.shared.protocol.input_info import Audio, Input, Stage
from device_agent.shared.tabular.json_reader import JsonParser

RNG = np.random.default_rng(3)
POOLS: dict[str, Any] = {"mean": np.mean, "max": np.max, "min": np.min, "std": np.std}


@pytest.fixture(scope="module")
def windows(releases: Releases) -> Path:
    """A stage that maps 16 numbers to 16."""
    return releases["pixels"] / "stage-1.tflite"


def runner(path: Path, stage: Stage) -> StageRunner:
    return StageRunner(stage, lambda: Loader.find(str(path), "auto", 1).open(packed=True))


def one_by_one(path: Path, windows: list[np.ndarray]) -> np.ndarray:
    interpreter = Loader.find(str(path), "auto", 1).load(packed=True)
    place, out = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    found = []
    for window in windows:
        interpreter.set_tensor(place, window.reshape(1, 16))
        interpreter.invoke()
        found.append(interpreter.get_tensor(out)[0].copy())
    return np.array(found)


@pytest.mark.parametrize("hop", [1, 5, 16, 23])
@pytest.mark.parametrize("pool", [(), ("mean",), ("max", "min", "std", "mean")])
def test_windows_are_those_that_numpy_cuts(windows: Path, hop: int, pool: Any) -> None:
    stage = Stage("stage-1.tflite", "", frames=16, hop=hop, multiply=0.5, add=-3.0)
    chain = Chain(Input((stage,), pool), [runner(windows, stage)])
    for length in (16, 17, 64, 100):
        values = RNG.normal(size=length).astype(np.float32)
        cut = [values[start : start + 16] for start in range(0, length - 15, hop)]
        expected = one_by_one(windows, cut) * np.float32(0.5) - np.float32(3.0)
        if pool:
            expected = np.concatenate([POOLS[name](expected.astype(np.float64), axis=0) for name in pool])
        np.testing.assert_array_equal(chain.embed(values), expected.reshape(-1).astype(np.float32))


def test_the_first_axis_is_that_of_windows_whatever_a_row_holds(windows: Path) -> None:
    stage = Stage("stage-1.tflite", "", frames=4)
    values = RNG.normal(size=(9, 2, 2)).astype(np.float32)
    found = Chain(Input((stage,)), [runner(windows, stage)]).embed(values)
    np.testing.assert_array_equal(found, one_by_one(windows, [values[i : i + 4] for i in range(6)]).reshape(-1))


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(15, np.float32),
        np.zeros(0, np.float32),
        np.full(16, np.nan),
        np.full(16, 1e39),
        np.broadcast_to(np.zeros(1, np.int8), (MAX_NUMBERS + 1,)),
    ],
    ids=["too short", "empty", "not a number", "too large", "too many"],
)
def test_an_input_that_does_not_fit_is_bad(windows: Path, values: np.ndarray) -> None:
    stage = Stage("stage-1.tflite", "", frames=16)
    with pytest.raises(BadInput):
        Chain(Input((stage,)), [runner(windows, stage)]).embed(values)


@pytest.mark.parametrize(
    ("shape", "count", "expected"),
    [
        ((1, 16), 16, (1, 16)),
        ((-1, 16), 32, (2, 16)),
        ((-1, -1), 7, (1, 7)),
        ((-1, 76, 32, 1), 2432, (1, 76, 32, 1)),
        ((1, -1, 4), 12, (1, 3, 4)),
        ((1, 16), 17, None),
        ((-1, 16), 17, None),
        ((1, -1, -1), 4, None),
        ((-1, 0), 4, None),
        ((1, 16), 0, None),
    ],
)
def test_an_open_length_is_what_the_numbers_need(shape: Any, count: int, expected: Any) -> None:
    stage = Stage("stage-1.tflite", "", shape)
    if expected is None:
        with pytest.raises(BadInput):
            fitting_shape(stage, count)
    else:
        assert fitting_shape(stage, count) == expected


class Huge:
    """An interpreter of a file whose tensors have a claimed size; it fails if anything is allocated."""

    def __init__(self, shape: tuple[int, ...], dtype: Any = np.float32) -> None:
        detail = {"index": 0, "shape": np.array([1, 16]), "dtype": np.float32, "quantization": (0.0, 0)}
        self._details = [detail, detail | {"shape": np.array(shape, np.int64), "dtype": dtype}]

    def get_input_details(self) -> list[Any]:
        return self._details[:1]

    def get_output_details(self) -> list[Any]:
        return self._details[1:]

    def get_tensor_details(self) -> list[Any]:
        return self._details


@pytest.mark.parametrize(
    ("shape", "dtype"), [((1, 2**40), np.float32), ((2**16, 2**16), np.uint8), ((1, 4), np.complex64)]
)
def test_tensors_without_measure_are_refused_before_they_are_allocated(shape: Any, dtype: Any) -> None:
    with pytest.raises(ModelUnusable):
        StageRunner(Stage("stage-1.tflite", ""), lambda: Huge(shape, dtype))


def test_pooling_keeps_the_order_of_the_statistics() -> None:
    table = RNG.normal(size=(5, 3)).astype(np.float32)
    expected = np.concatenate([POOLS[name](table.astype(np.float64), axis=0) for name in ("std", "mean")])
    np.testing.assert_array_equal(pooled(table, ("std", "mean")), expected.astype(np.float32))


@pytest.mark.parametrize("threads", [1, 3])
def test_results_keep_their_order_and_errors_their_places(threads: int) -> None:
    chain = Chain(Input(), [], threads)

    def read(number: int) -> np.ndarray:
        until = time.thread_time() + 0.003
        while time.thread_time() < until:
            pass
        if number % 5 == 2:
            raise BadInput(f"number {number}")
        return np.array([number])

    for count in (0, 1, 12, 50):
        found = list(chain.each(read, range(count)))
        assert [str(each) for each in found] == [f"number {n}" if n % 5 == 2 else f"[{n}.]" for n in range(count)]


class Refusing:
    """A stage that takes no array."""

    def __init__(self, stage: Stage, error: type[BadInput]) -> None:
        self.stage, self._error = stage, error

    def run(self, _: np.ndarray) -> np.ndarray:
        raise self._error("stage-2.tflite takes something else")


MEL = Stage("stage-1.tflite", "", shape=(1, -1), reach=512, step=160)
WORDS = Stage("stage-2.tflite", "", shape=(1, 76, 32), frames=76, hop=8)
YAMNET = Stage("stage-1.tflite", "", shape=(15_600,))
OPEN = Stage("stage-1.tflite", "", shape=(1, -1))


@pytest.mark.parametrize(
    ("stages", "error", "samples", "said", "typed"),
    [
        ((MEL, WORDS), TooFew, 4000, "too short: it has 0.25 s; the model takes at least 0.782 s", "seconds: 0.782 u"),
        ((YAMNET,), WrongLength, 8000, "too short: it has 0.5 s; the model takes 0.975 s", "seconds: 0.975 under"),
        ((YAMNET,), WrongLength, 16_000, "too long: it has 1 s; the model takes 0.975 s", "seconds: 0.975 under"),
        ((OPEN, WORDS), TooFew, 8000, "too short: it has 0.5 s", "`seconds:` under audio:"),
        ((MEL, WORDS), WrongLength, 16_000, "stage-2.tflite takes something else", ""),
    ],
)
def test_a_sound_of_the_wrong_length_is_refused_in_seconds(
    stages: tuple[Stage, ...], error: type[BadInput], samples: int, said: str, typed: str
) -> None:
    runners: Any = [Refusing(stage, error) for stage in stages]
    chain = Chain(Input(stages, audio=Audio(16_000)), runners)
    with pytest.raises(BadInput, match=said) as found:
        chain.embed(np.zeros(samples, np.int16))
    assert typed in (found.value.hint or "")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"input": [1.0], "note": NaN}', "'note': "),
        ('{"input": [1.0], "note": [1e999]}', "'note': "),
        ('{"input": [1.0], "note": "\\ud800"}', "'note': "),
        ('{"input": [1.0], "input": [2.0], "note": 1}', "the key 'input' appears twice"),
        ('{"input": [1.0], "note": 1, "note": 2}', "the key 'note' appears twice"),
        ('{"input": [1.0]}', "the object has no key 'note' (--keep)"),
        ("[1.0]", "an array has no key 'note' (--keep)"),
    ],
)
def test_a_raw_input_is_bad_if_its_answer_could_not_be_json(line: str, said: str) -> None:
    parser = InputJsonParser(Chain(Input(), []), keep=["note"])
    parsed = parser.parse(f'{line}\n{{"input": [1.0, 2.0], "note": 7}}\n'.encode())
    assert said in parsed.errors[0][1]
    assert [*map(list, parsed.kept)] == [[7]]
    assert parsed.rows.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("cell", ['"1"', "1e39", '"1_000"', '"\u0661"', '" 1 "', '"nan"', "null", '"0x1"', "[2]", "{}"])
def test_a_text_in_an_array_is_refused_as_in_a_row(cell: str) -> None:
    """NumPy would read some of them, by rules that no other input has."""
    array, row = InputJsonParser(Chain(Input(), [])), JsonParser(("a", "b"))
    for parser in (array, row):
        assert list(parser.parse(f"[{cell}, 1]\n".encode()).errors) == [0]
    for good in ("[true, 2.5]", f"[{2**70}, 1]", "[1, -1e9]"):
        assert array.parse(f"{good}\n".encode()).rows.tolist() == row.parse(f"{good}\n".encode()).rows.tolist()


def test_a_long_text_in_an_array_takes_no_memory_for_its_neighbours() -> None:
    """NumPy would give each cell as many characters as the longest has: 37 GB here."""
    parsed = InputJsonParser(Chain(Input(), [])).parse(f'["{"1" * 10_000_000}"{", 1" * 1000}]\n'.encode())
    assert "not a number" in parsed.errors[0][1]

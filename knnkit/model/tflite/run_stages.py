"""Runs the stages of a model in TensorFlow.

`knnkit.model.embedding` starts `main` in a separate process, so that a stage that crashes TensorFlow ends only that
process. It reads raw arrays (NPY, each after its length in 8 bytes) from standard input, and writes their rows to a
file.
"""

from __future__ import annotations

import bisect
import functools
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.embedding.chain import Chain
from device_agent.shared.embedding.stage import StageRunner
from device_agent.shared.protocol import json_codec
from device_agent.shared.protocol.errors import AgentError, ModelUnusable
from device_agent.shared.protocol.input_info import Input, Stage
from device_agent.shared.protocol.record import replace
from knnkit.model.tflite.load_tensorflow import load_interpreter, open_interpreter

#: Exit code of this process where a stage or an input is at fault: standard error then says why.
AT_FAULT = 3
#: Number of inputs for which both ways must give equal outputs; largest difference, as a share of the largest output.
_TRIED, _NEAR = 8, 2.0**-14


def main(spec: str, folder: str, out: str) -> int:
    """Embeds the arrays on standard input; returns the exit code.

    Args:
        spec: `Input` as JSON.
        folder: folder with the files of the stages.
        out: path of the two results: `out`.npy has the rows, `out`.json the shapes and types of the stages.
    """
    load_interpreter()
    number = -1
    try:
        input = json_codec.loads(Input, spec)
        chain = Chain(input, [_runner(stage, Path(folder)) for stage in input.stages])
        rows: list[Any] = []
        while length := sys.stdin.buffer.read(8):
            number, data = len(rows), sys.stdin.buffer.read(int.from_bytes(length, "little"))
            rows.append(chain.embed(np.load(io.BytesIO(data), allow_pickle=False)))
            if len(rows[-1]) != len(rows[0]):
                made = f"the stages make {len(rows[-1])} numbers of it, but {len(rows[0])} of the first input"
                raise ValueError(f"{made}; for equal numbers, set pool: [mean]")
    except (AgentError, ValueError, RuntimeError, OSError) as error:
        hint = getattr(error, "hint", None) or ""
        print(f"{number} {error}\t{hint}", file=sys.stderr)
        return AT_FAULT
    np.save(f"{out}.npy", np.array(rows, np.float32))
    Path(f"{out}.json").write_text(json_codec.dumps(replace(input, stages=chain.stages)))
    return 0


class BuildRunner(StageRunner):
    """Runs a stage in the plain way, and on the first inputs also in a faster way, to compare the outputs.

    If they are nearly equal for `_TRIED` inputs, only the faster way is used from then on, else only the plain one. For
    a stage with windows, the faster way runs many windows at once. For a stage of whole sounds, it adds zeros after the
    sound, so that sounds of many lengths need few shapes of input.
    """

    _tried = _length = 0
    _other: Stage | None = None

    def run(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the stage's output for the input `values`; on the first inputs also tries the faster way."""
        found = super().run(values)
        if 0 <= self._tried < _TRIED and len(found) > 1 and not (self.stage.slides or self.stage.step):
            if self.stage.frames is not None:
                self._note(_are_near(found, self.slide(values, -(-len(found) // 2))), replace(self.stage, slides=True))
            elif len(values) != self._length:  # one length needs one shape
                given, self._length = self.stage, len(values)
                self.stage = self._other = self._other or self._with_step(values, len(found))
                near = self.stage.step > 0 and _are_near(found, self.fill(values, len(found)))
                self.stage = given
                self._note(near, self._other)
        return found

    def _note(self, near: bool, other: Stage) -> None:
        self._tried = self._tried + 1 if near else -1
        if self._tried == _TRIED:
            self.stage = other

    def _with_step(self, values: NDArray[np.float32], count: int) -> Stage:
        """Measures the stage's `step` and `reach`; returns it with both, unchanged if it refuses some lengths of sound.

        `values` is a sound with `count` outputs. The stage is run on longer silence, to find the least lengths with one
        more output, and with two. `step` is the difference of these two lengths, `reach` the length for one output.
        """
        if values.ndim != 1 or set(self.stage.shape) - {1, -1}:
            return self.stage
        length = len(values)
        lengths = range(length, length + 3 * -(-length // count))
        try:
            first, second = (
                length + bisect.bisect_left(lengths, count + more, key=self._count_outputs) for more in (1, 2)
            )
        except AgentError:  # it takes only some lengths
            return self.stage
        return replace(self.stage, reach=max(0, first - count * (second - first)), step=second - first)

    def _count_outputs(self, length: int) -> int:
        return len(super().run(np.zeros(length, np.float32)))


def _are_near(one: NDArray[np.float32], other: NDArray[np.float32] | None) -> bool:
    """Whether two outputs have as many values, in any shape, that differ by at most `_NEAR` of the largest value."""
    if other is None or other.size != one.size:
        return False
    return bool(abs(other.reshape(one.shape) - one).max() <= _NEAR * abs(one).max())


def _runner(stage: Stage, folder: Path) -> StageRunner:
    path = folder / stage.file
    try:
        runner = BuildRunner(stage, functools.partial(open_interpreter, model_path=str(path)), path.stat().st_size)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{stage.file} cannot be loaded, it may be damaged: {error}") from None
    if runner.outputs > 1:  # which is the embedding, the file does not say
        said = f"{stage.file} has {runner.outputs} outputs, but a stage has one input and one output"
        raise ModelUnusable(said, hint="convert tf.keras.Model(net.input, OUTPUT), with the output that is the row")
    return runner

"""Runs the stages of a model in TensorFlow.

`knnkit.model.embedding` starts `main` in a separate process, so that a stage that crashes TensorFlow ends only that
process. It reads raw arrays (NPY, each after its length in 8 bytes) from standard input, and writes their rows to a
file.
"""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.embedding.chain import Chain
from device_agent.shared.embedding.stage import StageRunner
from device_agent.shared.protocol import json_codec
from device_agent.shared.protocol.errors import AgentError
from device_agent.shared.protocol.input_info import Input, Stage
from device_agent.shared.protocol.record import replace
from knnkit.model.tflite.load_tensorflow import load_tensorflow

#: Exit code of this process where a stage or an input is at fault: standard error then says why.
AT_FAULT = 3
#: Inputs on which a stage must give the same on all rows at once as on windows, up to a share of its largest output.
_TRIED, _NEAR = 8, 2.0**-14


def main(spec: str, folder: str, out: str) -> int:
    """Embeds the arrays on standard input; returns the exit code.

    Args:
        spec: `Input` as JSON.
        folder: folder with the files of the stages.
        out: path of the two results: `out`.npy has the rows, `out`.json the shapes and types of the stages.
    """
    load_tensorflow()
    number = -1
    try:
        input = json_codec.loads(Input, spec)
        chain = Chain(input, [_runner(stage, Path(folder)) for stage in input.stages])
        rows: list[Any] = []
        while length := sys.stdin.buffer.read(8):
            number, data = len(rows), sys.stdin.buffer.read(int.from_bytes(length, "little"))
            rows.append(chain.embed(np.load(io.BytesIO(data), allow_pickle=False)))
            if len(rows[-1]) != len(rows[0]):
                raise ValueError(f"it becomes {len(rows[-1])} numbers, the first one {len(rows[0])}: set pool: [mean]")
    except (AgentError, ValueError, RuntimeError, OSError) as error:
        print(f"{number} {error}", file=sys.stderr)
        return AT_FAULT
    np.save(f"{out}.npy", np.array(rows, np.float32))
    Path(f"{out}.json").write_text(json_codec.dumps(replace(input, stages=chain.stages)))
    return 0


class _Runner(StageRunner):
    """A stage that tests whether one run over all frames equals runs over each window; if so, uses one run."""

    _tried = 0

    def run(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        found = super().run(values)
        if self.stage.frames is not None and not self.stage.slides and 0 <= self._tried < _TRIED and len(found) > 1:
            near = _are_near(found.reshape(len(found), -1), self.slide(values))
            self._tried = self._tried + 1 if near else -1
            self.stage = replace(self.stage, slides=self._tried == _TRIED)
        return found


def _are_near(one: NDArray[np.float32], other: NDArray[np.float32] | None) -> bool:
    return other is not None and other.shape == one.shape and bool(abs(other - one).max() <= _NEAR * abs(one).max())


def _runner(stage: Stage, folder: Path) -> StageRunner:
    try:
        return _Runner(stage, _interpreter(stage, folder))
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{stage.file} cannot be loaded, it may be damaged: {error}") from None


def _interpreter(stage: Stage, folder: Path) -> Any:
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tf.lite.Interpreter is deprecated, but comes with TensorFlow
        # Without XNNPACK: the builtin kernels are an independent check, and print nothing.
        resolver = tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        path = str(folder / stage.file)
        return tf.lite.Interpreter(model_path=path, experimental_op_resolver_type=resolver)

"""Runs the stages of a model in TensorFlow.

`knnkit.model.embedding` starts `main` in a separate process, so that a stage that crashes TensorFlow ends only this. It
reads raw arrays (NPY, each after its length in 8 bytes) from standard input, and writes their rows to a file.
"""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from device_agent.shared.embedding.chain import Chain
from device_agent.shared.embedding.stage import StageRunner
from device_agent.shared.protocol import json_codec
from device_agent.shared.protocol.errors import AgentError
from device_agent.shared.protocol.input_info import Input, Stage
from device_agent.shared.protocol.record import replace
from knnkit.model.tflite.load_tensorflow import load_tensorflow

#: Exit code of this process where a stage or an input is at fault: standard error then says why.
AT_FAULT = 3


def main(spec: str, folder: str, out: str) -> int:
    """Embeds standard input; writes `out`.npy with the rows, and `out`.json with the shapes and types of the stages.

    Args:
        spec: `Input` as JSON.
        folder: where the files of the stages are.
        out: path of the results, without their endings.
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
                raise ValueError(f"it becomes {len(rows[-1])} numbers, the first input {len(rows[0])}: pool: [mean]")
    except (AgentError, ValueError, RuntimeError, OSError) as error:
        print(f"{number} {error}", file=sys.stderr)
        return AT_FAULT
    np.save(f"{out}.npy", np.array(rows, np.float32))
    Path(f"{out}.json").write_text(json_codec.dumps(replace(input, stages=chain.stages)))
    return 0


def _runner(stage: Stage, folder: Path) -> StageRunner:
    try:
        return StageRunner(stage, _interpreter(stage, folder))
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

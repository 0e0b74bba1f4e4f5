"""The build's own check: the finished file, run by TensorFlow's interpreter, against its golden set.

What fails here fails on the machine that built it, before anything is signed. Rows that the graph itself calls
uncertain are left to the device's float64, so the reference's answer stands for them here.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.golden.judge import Verdict, judge
from device_agent.shared.protocol import constants, model_info
from knnkit.errors import BuildError
from knnkit.model.build import BuiltModel

_HOW = {constants.FULL: "", constants.QUANTIZED: " in eight bits", constants.CELLS: " by its cells"}

_TOO_HIGH = "lower gates: accuracy in deploy.yaml, or choose another k, metric or scale"
_AT_FAULT = "knnkit or this TensorFlow is at fault, not your data: build with the versions of pyproject.toml; report it"


@dataclass(frozen=True)
class _Answers:
    label: NDArray[np.int32]
    probabilities: NDArray[np.float32]
    indices: NDArray[np.int32]
    distances: NDArray[np.float32]


def self_check(model: BuiltModel, golden: Golden, gates: model_info.Gates) -> Verdict:
    """Returns the judge's verdict on the built file, in which each way to search is held to the golden set.

    Raises:
        BuildError: a golden row is different, or the accuracy is under the floor.
    """
    verdict = _prove(model, golden, gates, constants.FULL)
    for search in (constants.QUANTIZED, constants.CELLS):  # a board chooses which answers
        if model.info.batch_rows(search) is not None:
            _prove(model, golden, gates, search)
    return verdict


def _prove(model: BuiltModel, golden: Golden, gates: model_info.Gates, search: str) -> Verdict:
    signature = constants.signature(constants.SIGNATURE_BATCH, search)
    answers = _run(model, golden.rows, signature, model.info.batch_rows(search) or 1)
    verdict = judge(golden, answers, model.info, gates)
    if verdict.failures:
        raise BuildError(
            f"the model misses its own gates{_HOW[search]}: {'; '.join(verdict.failures)}",
            hint=_AT_FAULT if verdict.different else _TOO_HIGH,
        )
    return verdict


def _run(model: BuiltModel, rows: NDArray[np.float32], signature: str, batch: int) -> _Answers:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tf.lite.Interpreter is deprecated, and all that TensorFlow brings
        # Without XNNPACK: plain kernels are a second opinion, and say nothing on the terminal.
        resolver = tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter = tf.lite.Interpreter(model_content=model.data, experimental_op_resolver_type=resolver)
    runner, parts = interpreter.get_signature_runner(signature), []
    for start in range(0, len(rows), batch):
        chunk = rows[start : start + batch]
        full = np.resize(chunk, (batch, rows.shape[1]))
        found = runner(**{constants.INPUT_ROWS: full})
        parts.append({name: value[: len(chunk)] for name, value in found.items()})
    joined: dict[str, Any] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    doubtful = ~joined[constants.OUTPUT_CERTAIN]
    if doubtful.any():
        settled = model.reference.answer(rows[doubtful])
        k = model.info.k
        joined[constants.OUTPUT_LABEL][doubtful] = settled.label
        joined[constants.OUTPUT_PROBABILITIES][doubtful] = settled.probabilities
        joined[constants.OUTPUT_INDICES][doubtful] = settled.indices[:, :k]
        joined[constants.OUTPUT_DISTANCES][doubtful] = settled.distances[:, :k]
    return _Answers(
        joined[constants.OUTPUT_LABEL],
        joined[constants.OUTPUT_PROBABILITIES],
        joined[constants.OUTPUT_INDICES],
        joined[constants.OUTPUT_DISTANCES],
    )

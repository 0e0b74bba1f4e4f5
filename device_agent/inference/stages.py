"""Loads the stages of a model into TFLite.

A stage is a network (stage-1.tflite, ...) that turns a raw input into a vector. Its file must be part of the verified
release and have the SHA-256 in knn.json. Needs a TFLite runtime; NumPy alone cannot run stages.
"""

from __future__ import annotations

import functools

from device_agent.inference.interpreter import Loader
from device_agent.shared.embedding.chain import Chain
from device_agent.shared.embedding.stage import StageRunner
from device_agent.shared.protocol import constants
from device_agent.shared.protocol.errors import DeviceUnfit, ModelUnusable
from device_agent.shared.protocol.input_info import Input, Stage
from device_agent.shared.release.directory import OpenRelease
from device_agent.system import board, memory

#: Most threads that run the stages at once, and the memory that one may take: a large picture, decoded.
_MOST_THREADS, _MEMORY = 4, 256 * 1024 * 1024


def load_chain(
    opened: OpenRelease, input: Input, runtime: str = "auto", threads: int = 1, features: int | None = None
) -> Chain:
    """Loads the stages of `opened`, a verified release, which must stay open as long as the chain is used.

    `input` lists the stages, `threads` is the number of threads for each. `features` is how many numbers the chain must
    make; None: any.

    Raises:
        ModelUnusable: a stage is missing, damaged or too large for this runtime.
        DeviceUnfit: no TFLite runtime is installed.
    """
    runners = [_load(opened, stage, runtime, threads) for stage in input.stages]
    size = sum(opened.files[stage.file].size for stage in input.stages)
    return Chain(input, runners, _count_threads(size, threads), features)


def _count_threads(size: int, threads: int) -> int:
    """Returns how many inputs the stages, of `size` bytes, may process at once, with `threads` threads each."""
    free = memory.available_bytes()
    fit = _MOST_THREADS if free is None else free // (_MEMORY + 2 * size)
    return max(1, min(_MOST_THREADS, board.cores() // threads, fit))


def _load(opened: OpenRelease, stage: Stage, runtime: str, threads: int) -> StageRunner:
    found = opened.files.get(stage.file)
    if stage.file not in constants.STAGE_FILES or found is None or found.sha256 != stage.sha256:
        raise ModelUnusable(f"{stage.file} differs from its SHA-256 in knn.json", hint="build the release again")
    loader = Loader.find(opened.path(stage.file), runtime, threads)
    if loader.name == constants.NUMPY:
        said = f"{stage.file} needs a TFLite runtime; this device has only NumPy"
        raise DeviceUnfit(said, reason="no-runtime", hint="knnkit provision --target HOST, if the board can have one")
    try:
        return StageRunner(stage, functools.partial(loader.open, packed=True), found.size)
    except (ValueError, RuntimeError, OSError) as error:
        raise ModelUnusable(f"{stage.file} cannot be loaded by {loader.name} {loader.version}: {error}") from None

"""Chain of stages that makes one row.

The stages run in order. `pool` then reduces several output rows to one, by statistics over the first axis. Host and
device use this code, each with its own TFLite runtime. Several threads may embed at once. No I/O.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.embedding.stage import MAX_NUMBERS, StageRunner, TooFew, WrongLength
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.input_info import Input, Pool, Stage

Array = NDArray[np.float32]
A = TypeVar("A")
B = TypeVar("B")

#: Seconds of a core that an input has to take for threads to be faster.
_LONG = 0.002
#: Most inputs that a stage runs on before the next stage, and how many numbers they have before no more are added.
_TOGETHER, _HELD = 16, 1 << 20


class Chain:
    """The loaded stages of a model.

    Args:
        input: the `input` of knn.json.
        runners: one for each stage, in order.
        threads: how many inputs `each` may work on at once.
        features: how many numbers the model takes; None while it is built.
    """

    def __init__(
        self, input: Input, runners: Sequence[StageRunner], threads: int = 1, features: int | None = None
    ) -> None:
        self.input, self._runners, self._threads, self._features = input, runners, threads, features
        self._seconds = -1.0  # of a core that the last input took; 0 for the first, which allocates tensors

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The records of the stages, with the input shapes and types that their files state."""
        return tuple(runner.stage for runner in self._runners)

    def embed(self, values: NDArray[np.generic]) -> Array:
        """Runs the stages on the raw array `values`; returns their (n,) float32 output, which is the row to classify.

        Raises:
            BadInput: the array has a size that the stages or the model do not take, or an input or output is NaN or
                infinite.
            ModelUnusable: the runtime fails.
        """
        row = self._rows(lambda given: given, [values])[0]
        if isinstance(row, BadInput):
            raise row
        return row

    def each(self, read: Callable[[A], NDArray[Any]], items: Sequence[A] | NDArray[Any]) -> Iterator[Array | BadInput]:
        """Yields `embed(read(item))` for each item in order, or the BadInput that `read` or `embed` raised."""
        while self._seconds <= 0.0 and len(items):
            yield from self._rows(read, items[:1])
            items = items[1:]
        threads = 1 if self._seconds < _LONG else self._threads
        size = _TOGETHER if threads == 1 else max(1, min(_TOGETHER, len(items) // (4 * threads)))
        groups = [items[start : start + size] for start in range(0, len(items), size)]
        work = functools.partial(self._rows, read)
        if threads == 1 or len(groups) <= 1:
            yield from itertools.chain.from_iterable(map(work, groups))
            return
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(min(threads, len(groups))) as pool:
            yield from itertools.chain.from_iterable(pool.map(work, groups))

    def _rows(self, read: Callable[[A], NDArray[Any]], items: Sequence[A] | NDArray[Any]) -> list[Array | BadInput]:
        """Works like `each` on one core: each stage runs on many items before the next, so its code stays cached."""
        begun, rows, start = time.thread_time(), [], 0
        while start < len(items):
            inputs: list[Array | BadInput] = []
            while start < len(items) and sum(each.size for each in inputs if not isinstance(each, BadInput)) < _HELD:
                inputs.append(_tried(lambda item: self._checked(read(item)), items[start]))
                start += 1
            found = inputs
            for step in (*(runner.run for runner in self._runners), self._pooled):
                found = [_tried(step, each) for each in found]
            for given, row in zip(inputs, found):
                if isinstance(row, WrongLength) and not isinstance(given, BadInput):
                    row = self._as_setting(row, len(given))
                rows.append(row)
        self._seconds = 0.0 if self._seconds < 0.0 else (time.thread_time() - begun) / max(1, len(items))
        return rows

    def _checked(self, values: NDArray[Any]) -> Array:
        """Returns a raw array in the form that the first stage takes; raises BadInput if the model does not take it."""
        if values.size > MAX_NUMBERS * (3 if self.input.image else 1):
            raise BadInput(f"the input has {values.size:,} numbers; at most {MAX_NUMBERS:,} are read")
        values = prepared(values, self.input)
        with np.errstate(over="ignore"):
            found = np.asarray(values, np.float32)
        if values.size == self.input.width:
            found = found.reshape(-1)
        if not np.isfinite(found).all():
            raise BadInput("the input has a value that is not a finite float32 number")
        return found

    def _pooled(self, values: Array) -> Array:
        """Returns the row to classify: `values`, the output of the last stage, reduced by `pool` and checked."""
        row = pooled(values, self.input.pool)
        if self._features not in (None, len(row)):
            said = f"the stages make {len(row):,} numbers of this input, and the model takes {self._features:,}"
            raise BadInput(said, hint="give inputs of the length that the model was trained on")
        if not np.isfinite(row).all():
            raise BadInput("the output of the stages has a value that is NaN or infinite")
        return row

    def _as_setting(self, error: WrongLength, samples: int) -> BadInput:
        """Returns `error`; for a sound, if possible, an error in seconds, whose hint names the setting to change."""
        sound, least, exact = self.input.audio, shortest(self.stages), _is_fixed(self.stages[0])
        if sound is None or not (least or isinstance(error, TooFew)) or (samples > least > 0 and not exact):
            return error
        long, most = samples > least > 0, math.ceil(least / sound.rate * 1000 - 1e-9) / 1000
        length = f"{least / sound.rate:.10g}" if exact else f"{most:g}"
        takes = f"; the model takes {'' if exact else 'at least '}{length} s" if least else ""
        said = f"the sound is too {'long' if long else 'short'}: it has {samples / sound.rate:.3g} s{takes}"
        setting = f"seconds: {length}" if least else "`seconds:`"
        other = "cuts long sounds and fills short ones"
        return BadInput(said, hint=f"give another sound; or {setting} under audio: in deploy.yaml, which {other}")


def _tried(step: Callable[[A], B], given: A | BadInput) -> B | BadInput:
    """Returns `step(given)`, or the BadInput that it raises; if `given` is an earlier BadInput, returns that."""
    try:
        return given if isinstance(given, BadInput) else step(given)
    except BadInput as error:
        return error


def shortest(stages: Sequence[Stage]) -> int:
    """Returns the length (rows or numbers) of the shortest input that is enough for every stage; 0: not known."""
    rows = 1
    for stage in reversed(stages):
        if stage.frames is not None:
            rows = stage.frames + (rows - 1) * stage.hop
        elif stage.step:
            rows = stage.reach + (rows - 1) * stage.step
        elif stage is stages[0] and _is_fixed(stage):
            rows = math.prod(stage.shape)
        else:
            return 0
    return rows


def _is_fixed(stage: Stage) -> bool:
    """Whether all inputs of the stage have the same number of values."""
    return stage.frames is None and bool(stage.shape) and -1 not in stage.shape


def prepared(values: NDArray[Any], input: Input) -> NDArray[Any]:
    """Converts `values` to the form that the first stage takes, if the model takes sounds or pictures; else unchanged.

    Raises:
        BadInput: the array is not a sound or a picture, but the model takes one.
    """
    if input.audio is not None:
        from device_agent.shared.embedding import audio

        return audio.prepare(values, input.audio)
    if input.image is not None:
        from device_agent.shared.embedding import picture

        return picture.prepare(values, input.image)
    return values


def pooled(values: Array, pool: Sequence[Pool]) -> Array:
    """Returns one (n,) row: the statistics in `pool` over the first axis, joined; all values if `pool` is empty."""
    if not pool:
        return values.reshape(-1)
    table = values.reshape(len(values), -1).astype(np.float64)
    return np.concatenate([np.asarray(getattr(table, name)(axis=0), np.float32) for name in pool])

"""One `.tflite` stage, run in any TFLite interpreter.

Host and device use this code; each passes an interpreter of its own runtime. Quantised inputs and outputs are converted
to numbers: `(q - zero_point) * scale`. An interpreter needs new tensors, which is slow, for each new input shape. So
zeros are appended to inputs, up to one of a few lengths. Checks the tensors' sizes before memory is allocated. Loads no
runtime.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.embedding.fitted import FittedPool
from device_agent.shared.protocol.errors import BadInput, ModelUnusable
from device_agent.shared.protocol.input_info import Stage

Array = NDArray[np.float32]

#: Most bytes of all tensors of a stage, and most numbers of an input or output.
MAX_TENSORS = 512 * 1024 * 1024
MAX_NUMBERS = 32 * 1024 * 1024
_LONGER = "give a longer input; `seconds:` under audio: pads a short sound with silence"
#: Most windows of a stage that slides in one run.
_WINDOWS = 256
_DTYPES = ("float32", "uint8", "int8", "int16")
#: Every exception of a TFLite interpreter.
_BROKEN = (ValueError, RuntimeError, TypeError, IndexError, OverflowError)


class WrongLength(BadInput):
    """An input has too many or too few rows or numbers for a stage."""


class TooFew(WrongLength):
    """An input has too few rows or numbers for a stage."""


class StageRunner:
    """A stage with its interpreters; any number of threads may run it.

    Args:
        stage: its entry in knn.json. Shape and dtype must equal those of the file, unless the shape is empty.
        open: loads the file, and returns an interpreter that has not allocated its tensors yet.
        size: bytes of the file.

    Attributes:
        stage: the entry, with the shape and dtype of the file.
        outputs: number of outputs of the file; the first is used.

    Raises:
        ModelUnusable: the file differs from its entry, or its tensors are too large or of an unsupported kind.
    """

    def __init__(self, stage: Stage, open: Callable[[], Any], size: int = 0) -> None:
        interpreter = open()
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        if len(inputs) != 1 or not outputs:
            raise ModelUnusable(f"{stage.file} has {len(inputs)} inputs, but a stage has one input and one output")
        self._input, self._output, self.outputs = inputs[0], outputs[0], len(outputs)
        for detail in (self._input, self._output):
            if np.dtype(detail["dtype"]).name not in _DTYPES:
                said = f"{stage.file}: an input or output of {np.dtype(detail['dtype']).name} is not supported"
                raise ModelUnusable(said, hint=f"convert the network with one of {', '.join(_DTYPES)}")
        shape, dtype = _signature(self._input), np.dtype(self._input["dtype"]).name
        if stage.shape and (stage.shape, stage.dtype) != (shape, dtype):
            raise ModelUnusable(f"{stage.file} takes {dtype} {shape}, but knn.json says {stage.dtype} {stage.shape}")
        self.stage = Stage(**{**vars(stage), "shape": shape, "dtype": dtype})
        self._size = sum(map(_bytes, interpreter.get_tensor_details()))  # in their present shapes
        if self._size > MAX_TENSORS:
            said = f"{stage.file}: its tensors have {self._size:,} bytes; at most {MAX_TENSORS:,} are allowed"
            raise ModelUnusable(said)
        taken = functools.partial(_taken, size)
        self._pool = FittedPool(functools.partial(_open_again, stage, open), interpreter, taken)
        #: Size and shape of the last input, and shape of its output: windows all have the same.
        self._fitting: tuple[int, tuple[int, ...], list[int]] = (-1, (), [])

    def run(self, values: Array) -> Array:
        """Returns the output for `values`; if the stage runs on windows (`frames`), the stacked outputs of all windows.

        Raises:
            BadInput: the array has a size that the stage does not take.
            ModelUnusable: the runtime fails.
        """
        stage = self.stage
        if stage.frames is None:
            return self.fill(values) if stage.step else self._finished(self._once(values))
        if len(values) < stage.frames:
            said = f"{stage.file} takes windows of {stage.frames} rows, but the input has {len(values)}"
            raise TooFew(said, hint=_LONGER)
        if stage.slides and (found := self.slide(values)) is not None:
            return found
        starts = range(0, len(values) - stage.frames + 1, stage.hop)
        return self._finished(np.stack([self._once(values[start : start + stage.frames]) for start in starts]))

    def fill(self, values: Array, more: int = 0) -> Array:
        """Runs the stage once on all numbers, with zeros after them; leaves out the outputs that depend on the zeros.

        Args:
            values: (n,) numbers.
            more: number of further outputs for which zeros are appended. Only the build passes it, to test that zeros
                change no output that is returned.

        Raises:
            BadInput: there are too few numbers.
        """
        reach, step = self.stage.reach, self.stage.step
        count = (len(values) - reach) // step + 1
        if count < 1:
            said = f"{self.stage.file} takes at least {reach:,} numbers, and gets {len(values):,}"
            raise TooFew(said, hint=_LONGER)
        filled = _filled(values, reach + (rounded(count) + more - 1) * step)
        return self._finished(self._once(filled)[:count])

    def slide(self, values: Array, most: int = _WINDOWS) -> Array | None:
        """Runs the stage on the overlapping windows of `values`, up to `most` of them at once as one long input.

        This saves time in a network of convolutions: rows that several windows share are computed once.

        Returns:
            (windows, n) outputs, equal to those of single windows if `Stage.slides`; None if the stage takes no
            input longer than a window.
        """
        stage, frames, axis = self.stage, self.stage.frames, self._axis_of_rows()
        if frames is None or axis is None:
            return None
        count = (len(values) - frames) // stage.hop + 1
        most = min(most, (MAX_TENSORS * frames // self._size - frames) // stage.hop + 1)
        found = []
        for start in range(0, count, most) if most > 0 else ():
            size = min(most, rounded(count - start))
            rows = values[start * stage.hop :][: frames + (size - 1) * stage.hop]
            rows = _filled(rows, frames + (size - 1) * stage.hop)
            try:
                some = self._invoke(rows, (*[1] * axis, len(rows), *stage.shape[axis + 1 :]))
            except (BadInput, ModelUnusable):
                return None
            if some.size % size:
                return None
            found.append(some.reshape(size, -1)[: count - start])
        return self._finished(np.concatenate(found)) if found else None

    def _axis_of_rows(self) -> int | None:
        """Returns the axis of the input tensor along which a window's `frames` rows lie; None if there is none."""
        shape = self.stage.shape
        axis = next((axis for axis, length in enumerate(shape) if abs(length) != 1), 0)
        return axis if shape[axis : axis + 1] == (self.stage.frames,) else None

    def _finished(self, values: Array) -> Array:
        stage = self.stage
        if (stage.multiply, stage.add) != (1.0, 0.0):
            values = values * np.float32(stage.multiply) + np.float32(stage.add)
        return values

    def _once(self, values: Array) -> Array:
        size, shape, kept = self._fitting
        if size == values.size:
            return self._invoke(values, shape).reshape(kept)
        shape = fitting_shape(self.stage, values.size)
        found = self._invoke(values, shape)
        # The first axis of the output for a whole sound is that of windows, even if it has only one.
        windows = self.stage.shape.count(-1) == 1 and set(self.stage.shape) <= {1, -1} and found.ndim > 1
        kept = [
            length
            for place, (length, signed) in enumerate(zip(found.shape, _signature(self._output, found.ndim)))
            if length != 1 or not (signed == 1 or (place == 0 and not windows))
        ]
        self._fitting = values.size, shape, kept or [1]
        return found.reshape(kept or [1])

    def _invoke(self, values: Array, shape: tuple[int, ...]) -> Array:
        """Returns the output tensor, as numbers, for the input `values` with this `shape`."""
        with self._pool.take(shape) as fitted:
            try:
                interpreter = fitted.fit(self._input["index"], tuple(self._input["shape"].tolist()), shape)
            except _BROKEN as error:
                said = f"{self.stage.file} cannot take an input of shape {shape}: {_one_line(error)}"
                raise (BadInput(said) if -1 in self.stage.shape else ModelUnusable(said)) from None
            try:
                interpreter.set_tensor(self._input["index"], _quantised(values.reshape(shape), self._input))
                interpreter.invoke()
                found = interpreter.get_tensor(self._output["index"])
            except _BROKEN as error:
                raise ModelUnusable(f"{self.stage.file} fails: {_one_line(error)}", reason="model-unusable") from None
        if found.size > MAX_NUMBERS:
            raise ModelUnusable(
                f"{self.stage.file}: its output has {found.size:,} numbers; at most {MAX_NUMBERS:,} are read"
            )
        return _numbers(found, self._output)


def rounded(count: int) -> int:
    """Rounds a number of windows or outputs up, by at most an eighth, so that fewer different input shapes occur."""
    step = 1 << max(0, count.bit_length() - 4)
    return -(-count // step) * step


def _filled(values: Array, length: int) -> Array:
    """Returns the first `length` entries of `values`, with zeros after them if there are fewer."""
    if len(values) >= length:
        return values[:length]
    found = np.zeros((length, *values.shape[1:]), np.float32)
    found[: len(values)] = values
    return found


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def fitting_shape(stage: Stage, count: int) -> tuple[int, ...]:
    """Returns the input shape of the stage for `count` numbers.

    If two or more axes are open (-1) and the first is one of them, the first is the batch axis, of length 1.

    Raises:
        BadInput: no shape fits.
    """
    shape = list(stage.shape)
    if shape.count(-1) > 1 and shape[0] == -1:
        shape[0] = 1
    known = math.prod(length for length in shape if length != -1)
    opened = shape.count(-1)
    if count < 1 or opened > 1 or known < 1 or count % known or (not opened and count != known):
        takes = "x".join("?" if length == -1 else str(length) for length in stage.shape)
        hint = "convert it with one open length at most, as tf.keras.Input((96, 96, 3), batch_size=1) has none"
        said = f"{stage.file} takes {takes} numbers, but the input has {count:,}"
        raise WrongLength(said, hint=hint if opened > 1 else "")
    return tuple(count // known if length == -1 else length for length in shape)


def _signature(detail: Any, ndim: int | None = None) -> tuple[int, ...]:
    """Returns a tensor's shape in its file, -1 for an open length; `ndim` zeros if it has another number of axes."""
    found = detail.get("shape_signature", detail["shape"])
    found = found if len(found) == len(detail["shape"]) else detail["shape"]
    if ndim is not None and len(found) != ndim:
        return (0,) * ndim
    return tuple(int(length) for length in found)


def _open_again(stage: Stage, open: Callable[[], Any]) -> Any:
    try:
        return open()
    except (*_BROKEN, OSError) as error:
        raise ModelUnusable(f"{stage.file} cannot be opened again: {_one_line(error)}") from None


def _taken(size: int, interpreter: Any) -> int:
    """Estimates an interpreter's memory, in bytes: two copies of its file (`size`) and the tensors of one operation."""
    each = [_bytes(detail) for detail in interpreter.get_tensor_details()]
    return min(sum(each), 2 * size + 3 * max(each))


def _bytes(detail: Any) -> int:
    dtype = np.dtype(detail["dtype"]) if detail["dtype"] is not None else np.dtype(np.uint8)
    return math.prod(max(1, int(length)) for length in detail["shape"]) * max(1, dtype.itemsize)


def _quantised(values: Array, detail: Any) -> NDArray[Any]:
    dtype = np.dtype(detail["dtype"])
    if dtype == np.float32:
        return np.ascontiguousarray(values, np.float32)
    scale, zero = detail["quantization"]
    limits = np.iinfo(dtype)
    steps = values if not scale else values / np.float32(scale) + np.float32(zero)
    return np.clip(np.rint(steps), limits.min, limits.max).astype(dtype)


def _numbers(values: NDArray[Any], detail: Any) -> Array:
    if values.dtype == np.float32:
        return np.asarray(values, np.float32)
    scale, zero = detail["quantization"]
    return (values.astype(np.float32) - np.float32(zero)) * np.float32(scale or 1.0)

"""Frozen models of `input` in deploy.yaml.

The docstring below a key is its description in the JSON Schema. No I/O.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
from pydantic import BeforeValidator, Field

from device_agent.shared.protocol import constants
from knnkit.config.field_types import ONE_OR_MORE, Example, FilePath, Section, Words, no_sense
from knnkit.config.window_models import Features, WindowConfig, check_features


class StageConfig(Section):
    """One `.tflite` file that maps one array of numbers to another. Short form: its path alone."""

    file: Annotated[FilePath, Example("embedder.tflite")]
    """Path of the file. It has one input and one output, of type float32, uint8, int8 or int16."""
    frames: Annotated[int | None, Example("76")] = Field(default=None, ge=1)
    """Run the file on windows of this many rows of its input, and stack the outputs. Default: run once, on all rows."""
    hop: Annotated[int, Example("8")] = Field(default=1, ge=1)
    """Number of rows from the start of one window to the start of the next."""
    multiply: Annotated[float, Example("0.1")] = Field(default=1.0, allow_inf_nan=False)
    """Number by which the output is multiplied."""
    add: Annotated[float, Example("2.0")] = Field(default=0.0, allow_inf_nan=False)
    """Number that is added to the output after `multiply`."""


def _as_numbers(value: Any) -> Any:
    return (value,) if isinstance(value, int | float) else value


Numbers = Annotated[
    tuple[Annotated[float, Field(allow_inf_nan=False)], ...],
    BeforeValidator(_as_numbers),
    Words("a number, or one a channel"),
    Field(min_length=1, max_length=3),
]
Deviations = Annotated[
    tuple[Annotated[float, Field(gt=0.0, allow_inf_nan=False)], ...],
    BeforeValidator(_as_numbers),
    Words("a number above 0, or one a channel"),
    Field(min_length=1, max_length=3),
]
Stages = Annotated[
    tuple[Annotated[StageConfig, BeforeValidator(lambda it: {"file": it} if isinstance(it, str) else it)], ...],
    ONE_OR_MORE,
    Field(max_length=constants.MAX_STAGES),
]
Pools = Annotated[
    tuple[Literal["mean", "max", "min", "std"], ...],
    ONE_OR_MORE,
    Words("mean, max, min, std, or a list of them"),
]


class AudioConfig(Section):
    """The form in which the first stage takes sounds."""

    rate: Annotated[int, Example("16000")] = Field(ge=1_000, le=768_000)
    """Samples a second; files of another rate are resampled, and channels are averaged."""
    seconds: Annotated[float | None, Example("2")] = Field(default=None, gt=0.0, le=600.0)
    """Length of every sound: a longer one is cut, a shorter one filled with silence. Default: any length."""
    full_scale: Annotated[float, Example("1.0")] = Field(default=32768.0, gt=0.0, allow_inf_nan=False)
    """Number that the loudest possible sample becomes: 32768 as in 16-bit PCM, or 1 for numbers from -1 to 1."""


class NormaliseConfig(Section):
    """The number that the first stage gets for a pixel from 0 to 255: (pixel - mean) / std."""

    mean: Annotated[Numbers, Example("127.5")] = (0.0,)
    """One number, or one for each channel."""
    std: Annotated[Deviations, Example("127.5")] = (255.0,)
    """One number above 0, or one for each channel."""


class ImageConfig(Section):
    """The form in which the first stage takes pictures."""

    size: Annotated[
        tuple[Annotated[int, Field(ge=1, le=4096)], Annotated[int, Field(ge=1, le=4096)]], Example("[96, 96]")
    ]
    """Height and width."""
    channels: Literal[1, 3] = 3
    """3: red, green, blue; 1: grey."""
    resize: Literal["bilinear", "nearest", "none"] = "bilinear"
    """How a picture of another size is resized: bilinear (averages where it shrinks), nearest, or none (refuse it)."""
    normalise: Annotated[NormaliseConfig, Example("{mean: 127.5, std: 127.5}")] = NormaliseConfig()
    """How pixels become numbers; default: numbers from 0 to 1."""

    @pydantic.model_validator(mode="after")
    def _one_a_channel(self) -> ImageConfig:
        for key, values in (("mean", self.normalise.mean), ("std", self.normalise.std)):
            if len(values) not in (1, self.channels):
                problem = f"`{key}` has {len(values)} numbers for {self.channels} channels"
                raise no_sense(problem, "normalise: {mean: 127.5, std: 127.5}")
        return self


class InputConfig(Section):
    """How a raw input becomes a row of numbers, on the host and on every device alike."""

    window: Annotated[WindowConfig | None, Example("{columns: [ax, ay, az], rows: 128, hop: 64}")] = None
    """How to cut windows of samples; each window is one raw input. `data` then names recordings."""
    features: Annotated[Features, Example("[mean, std, spectrum: 8]")] = ()
    """Features of each column of a window: mean, std, min, max, rms, zero_crossings (changes of sign), spectrum: N
    (mean amplitudes in N bands). Default: raw (all numbers, sample by sample). A stage of the release computes them."""
    stages: Annotated[Stages, Example("[embedder.tflite]")] = ()
    """`.tflite` files that compute a row, in order: paths, or {file, frames, hop, multiply, add}. They become files of
    the release, and the signature covers them."""
    audio: Annotated[AudioConfig | None, Example("{rate: 16000}")] = None
    """The inputs are sounds: WAV, or raw PCM (.pcm, .raw: 16 bits, one channel, at this rate)."""
    image: Annotated[ImageConfig | None, Example("{size: [96, 96]}")] = None
    """The inputs are pictures: PNG and JPEG, which need Pillow on the device, or arrays of pixels."""
    bound: Annotated[float, Example("0.1")] = Field(default=0.1, gt=0.0, lt=1.0)
    """Largest allowed distance between the rows that a device and the host compute from an input (processors round
    networks differently): a share of the distance of the k-th neighbour, or of the spread of the training rows if that
    is larger."""
    pool: Annotated[Pools, Example("[mean, max]")] = ()
    """Statistics over the first axis of the last stage's output, joined to one row: mean, max, min, std. Default: all
    numbers of the output are the row."""

    @pydantic.model_validator(mode="after")
    def _makes_rows(self) -> InputConfig:
        if self.audio and self.image:
            raise no_sense("an input is a sound or a picture, not both", "input: {audio: {rate: 16000}, stages: [...]}")
        if self.window and (self.audio or self.image):
            raise no_sense("an input is a window of samples, a sound or a picture", "input: {window: {...}}")
        if not (self.window or self.stages):
            raise no_sense("give `window`, `stages` or both", "stages: [embedder.tflite]")
        check_features(self.window, self.features)
        if self.pool and not self.stages:
            raise no_sense("`pool` needs `stages`: it takes statistics of their output", "stages: [embedder.tflite]")
        return self

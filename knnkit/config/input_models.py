"""Pydantic models of `input` in deploy.yaml: windows, sounds, pictures.

The docstring below a key is its description in the JSON Schema. No I/O.
"""

from __future__ import annotations

import difflib
import math
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BeforeValidator, Field, WithJsonSchema

from device_agent.shared.protocol import constants, input_info
from knnkit.config.field_types import ONE_OR_MORE, Example, FilePath, Section, Text, Words, each_once, no_sense, shorten

#: Most numbers of a window, or of a picture without stages: a model of so many features answers slowly everywhere.
_MOST_NUMBERS = 65_536
#: Longest window with a spectrum, whose graph holds about rows^2 numbers.
_MOST_ROWS = 2048


class WindowConfig(Section):
    """How windows of samples are cut: from recordings on the host, and from a stream on a device."""

    columns: Annotated[tuple[Text, ...], Example("[ax, ay, az]")] = Field(min_length=1)
    """The columns with the numbers of a sample, in this order."""
    rows: Annotated[int, Example("128")] = Field(ge=1, le=_MOST_NUMBERS)
    """Number of samples in a window."""
    hop: Annotated[int | None, Example("64")] = Field(default=None, ge=1, le=2**31)
    """Number of samples from the start of one window to the start of the next. Default: `rows`, without overlap."""
    time: Annotated[Text | None, Example("t")] = None
    """The column with the time of a sample: a number, or text such as 2026-01-31T12:00:00Z; needs `gap`."""
    gap: Annotated[float | None, Example("0.1")] = Field(default=None, gt=0.0)
    """Longest allowed time from one sample to the next, in the unit of `time`, or in seconds if that is text. No window
    contains a longer step, or a step back in time."""
    recording: Annotated[Text | None, Example("walk_id")] = None
    """The column that names the recording of a sample. No window mixes recordings. Default: a file is a recording."""

    _once = pydantic.field_validator("columns")(each_once)

    @pydantic.model_validator(mode="after")
    def _fits(self) -> WindowConfig:
        if self.time is not None and self.gap is None:
            raise no_sense("`time` needs `gap`: the longest time from one sample to the next", "gap: 0.1")
        if self.gap is not None and self.time is None:
            raise no_sense("`gap` needs `time`: the column with the time of a sample", "time: t")
        if self.recording is not None and self.recording in (*self.columns, self.time):
            problem = f"the column {self.recording!r} names recordings, so it cannot be in `columns` too"
            raise no_sense(problem, "recording: walk_id")
        size = self.rows * len(self.columns)
        if size > _MOST_NUMBERS:
            problem = f"a window of {self.rows:,} samples has {size:,} numbers; at most {_MOST_NUMBERS:,} are allowed"
            raise no_sense(problem, f"rows: {_MOST_NUMBERS // len(self.columns)}")
        return self

    @property
    def record(self) -> input_info.Window:
        """Returns the value of `input: window` in knn.json, the model's metadata."""
        hop = self.hop or self.rows
        return input_info.Window(self.columns, self.rows, hop, self.time, self.gap, self.recording)


#: std is that of n, not n - 1; zero_crossings are sign changes of neighbouring samples, where 0 is positive.
KNOWN = ("mean", "std", "min", "max", "rms", "zero_crossings")


def _as_features(value: Any) -> Any:
    """Returns () for `raw` (no features), and a list unchanged; raises ValueError for any other value, and for []."""
    if value == "raw":
        return ()
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"expected raw, or a list of {', '.join(KNOWN)} and spectrum: N")
    return value


def _as_feature(value: Any) -> Any:
    if isinstance(value, tuple):
        return value
    if isinstance(value, str) and value in KNOWN:
        return value, 0
    bands = value.get("spectrum") if isinstance(value, dict) and len(value) == 1 else None
    if type(bands) is int and 1 <= bands <= _MOST_ROWS // 2:
        return "spectrum", bands
    close = difflib.get_close_matches(value, KNOWN, n=1) if isinstance(value, str) else []
    meant = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"{shorten(str(value))!r} is not one of {', '.join(KNOWN)}, spectrum: N{meant}")


Features = Annotated[
    tuple[Annotated[tuple[str, int], BeforeValidator(_as_feature), Words(f"{', '.join(KNOWN)} or spectrum: N")], ...],
    BeforeValidator(_as_features),
    WithJsonSchema({"anyOf": [{"const": "raw"}, {"type": "array", "items": {"type": ["string", "object"]}}]}),
    Words(f"raw, or a list of {', '.join(KNOWN)} and spectrum: N"),
]


def check_features(window: WindowConfig | None, features: tuple[tuple[str, int], ...]) -> None:
    """Checks that `window` (None: no windows) allows the features, each (name, number of bands if it is a spectrum).

    Raises:
        PydanticCustomError: there are no windows, or they are too short for a spectrum.
    """
    if window is None:
        if features:
            raise no_sense("`features` needs `window`: features are computed from windows", "features: raw")
        return
    for name, bands in features:
        if name == "spectrum" and (window.rows > _MOST_ROWS or bands > window.rows // 2):
            most = min(window.rows, _MOST_ROWS) // 2
            problem = f"a window of {window.rows} samples has no spectrum of {bands} bands"
            raise no_sense(problem, f"spectrum: {most}" if window.rows <= _MOST_ROWS else f"rows: {_MOST_ROWS}")


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
    tuple[Literal["mean", "max", "min", "std"], ...], ONE_OR_MORE, Words("mean, max, min, std, or a list of them")
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
    """The number that the first stage gets for a pixel: (pixel - mean) / std."""

    mean: Annotated[Numbers, Example("127.5")] = (0.0,)
    """One number, or one for each channel."""
    std: Annotated[Deviations, Example("127.5")] = (255.0,)
    """One number above 0, or one for each channel. Above 1: pixels are from 0 to 255; below 1: from 0 to 1."""


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
    """The inputs are pictures: PNG and JPEG, which need Pillow on the device, or arrays of pixels. Without `stages`,
    the numbers of a (small) picture are the row."""
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
        if not (self.window or self.stages or self.image):
            said = "give `window`, `image` or `stages`; docs/guide.md shows how to make a stage (A stage from Keras)"
            said += ", and `knnkit demo --sound` a whole path" if self.audio else ""
            raise no_sense(said, "stages: [embedder.tflite]")
        if (
            self.image
            and not self.stages
            and (count := math.prod(self.image.size) * self.image.channels) > _MOST_NUMBERS
        ):
            said = f"a picture has {count:,} numbers; without `stages`, at most {_MOST_NUMBERS:,} can be a row"
            raise no_sense(said, "size: [32, 32], or stages: [embedder.tflite]")
        check_features(self.window, self.features)
        if self.pool and not self.stages:
            raise no_sense("`pool` needs `stages`: it takes statistics of their output", "stages: [embedder.tflite]")
        return self

    @property
    def takes_files(self) -> bool:
        """Whether an input of the model is a sound file or a picture file."""
        return bool(self.audio or self.image)

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of the files that the model takes."""
        from device_agent.shared.embedding.files import suffixes_of  # loads numpy, which most commands do without

        return suffixes_of(self.audio, self.image)

"""Records of knn.json about raw inputs.

They describe how samples, sounds, pictures and arrays become rows. Frozen records, written and read by `json_codec`. No
I/O.
"""

from __future__ import annotations

from typing import Literal

from device_agent.shared.protocol.record import record


@record
class Window:
    """Windows of samples, which are the rows of a model (`device_agent.shared.windows`).

    A sample is a line with the numbers `columns`, and `time` if that is not one of them. No window spans a gap. A gap
    is a time step above `gap` or below 0, a bad or missing line, or a new value in the column `recording`.
    """

    columns: tuple[str, ...]
    rows: int  # samples of a window
    hop: int  # samples from the beginning of one window to that of the next
    time: str | None = None
    gap: float | None = None
    recording: str | None = None
    omitted = ("time", "gap", "recording")

    @property
    def numbers(self) -> tuple[str, ...]:
        """Names of the numbers of a sample: `columns`, and `time` if there is one."""
        return self.columns if self.time is None or self.time in self.columns else (*self.columns, self.time)

    @property
    def marks(self) -> tuple[str, ...]:
        """Names of the columns that identify a window in an answer: its first and last line, and times if known."""
        return ("first_line", "last_line", *(("first_time", "last_time") if self.time else ()))

    @property
    def size(self) -> int:
        """Number of values in a window, without times."""
        return self.rows * len(self.columns)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the values of a window, sample by sample: ax[0], ay[0], ax[1], ..."""
        return tuple(f"{name}[{row}]" for row in range(self.rows) for name in self.columns)


@record
class Stage:
    """One `.tflite` file that runs before the search: maps one array of numbers to another.

    With `frames`, it runs on windows of that many rows of its input, each starting `hop` rows after the previous one;
    else once on all rows. With `step`, the first `reach` numbers of an input give one output, and each further `step`
    numbers one more; zeros after the input change none of these outputs.
    """

    file: str  # stage-1.tflite, ...
    sha256: str
    shape: tuple[int, ...] = ()  # of the input tensor; -1 is a length that the file leaves open
    dtype: str = "float32"  # of the input tensor
    frames: int | None = None
    hop: int = 1
    multiply: float = 1.0  # factor of the output
    add: float = 0.0  # added to the product
    slides: bool = False  # one run on all rows gives the outputs of all windows, up to rounding
    reach: int = 0
    step: int = 0
    omitted = ("slides", "reach", "step")


@record
class Audio:
    """The form of sounds for the first stage: one channel."""

    rate: int  # Hz
    seconds: float | None = None  # length to which sounds are cut or padded with silence
    full_scale: float = 32768.0  # the loudest possible sample


@record
class Image:
    """The form of pictures for the first stage: `size` is (height, width); each number is (pixel - mean) / std.

    Pixels are from 0 to 255 if `std` is above 1, from 0 to 1 if `std` is below 1, and on any scale if `std` is 1.
    `mean` and `std` have one number, or one for each channel.
    """

    size: tuple[int, int]
    channels: Literal[1, 3] = 3
    resize: Literal["bilinear", "nearest", "none"] = "bilinear"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (255.0,)


#: Statistics over the first axis of the last stage's output.
Pool = Literal["mean", "max", "min", "std"]


@record
class Input:
    """How a raw input becomes a row for the search: by stages, then by `pool`, statistics over the first axis.

    With a window, the raw inputs are windows of samples; without stages, windows are the rows.
    """

    stages: tuple[Stage, ...] = ()
    pool: tuple[Pool, ...] = ()
    bound: float = 0.1  # greatest distance of a device's row from the host's, as in `reports.EmbeddingCheck`
    width: int | None = None  # number of values of a flat input, such as a line of CSV; None: files
    columns: tuple[str, ...] = ()  # names of these values; empty for files and for default names
    audio: Audio | None = None
    image: Image | None = None
    window: Window | None = None
    omitted = ("stages", "pool", "width", "columns", "audio", "image", "window")

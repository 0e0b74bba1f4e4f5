"""Frozen models of `input` in deploy.yaml: windows of samples.

The docstring below a key is its description in the JSON Schema. No I/O.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any

import pydantic
from pydantic import BeforeValidator, Field, WithJsonSchema

from device_agent.shared.protocol import input_info
from knnkit.config.field_types import Example, Section, Text, Words, first_twice, no_sense, shorten

#: Most numbers of a window: a model of so many features answers slowly everywhere.
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

    @pydantic.field_validator("columns")
    @classmethod
    def _each_once(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        if twice := first_twice(columns):
            raise ValueError(f"{shorten(twice)!r} is listed twice")
        return columns

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
        """Returns the value of `input: window` in knn.json."""
        hop = self.hop or self.rows
        return input_info.Window(self.columns, self.rows, hop, self.time, self.gap, self.recording)


_KNOWN = ("mean", "std", "min", "max", "rms", "zero_crossings")


def _as_features(value: Any) -> Any:
    """Returns () for `raw`, and a list unchanged; raises ValueError for other values."""
    if value == "raw":
        return ()
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"expected raw, or a list of {', '.join(_KNOWN)} and spectrum: N")
    return value


def _as_feature(value: Any) -> Any:
    if isinstance(value, tuple):
        return value
    if isinstance(value, str) and value in _KNOWN:
        return value, 0
    bands = value.get("spectrum") if isinstance(value, dict) and len(value) == 1 else None
    if type(bands) is int and 1 <= bands <= _MOST_ROWS // 2:
        return "spectrum", bands
    close = difflib.get_close_matches(value, _KNOWN, n=1) if isinstance(value, str) else []
    meant = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"{shorten(str(value))!r} is not one of {', '.join(_KNOWN)}, spectrum: N{meant}")


Features = Annotated[
    tuple[Annotated[tuple[str, int], BeforeValidator(_as_feature), Words(f"{', '.join(_KNOWN)} or spectrum: N")], ...],
    BeforeValidator(_as_features),
    WithJsonSchema({"anyOf": [{"const": "raw"}, {"type": "array", "items": {"type": ["string", "object"]}}]}),
    Words(f"raw, or a list of {', '.join(_KNOWN)} and spectrum: N"),
]


def check_features(window: WindowConfig | None, features: tuple[tuple[str, int], ...]) -> None:
    """Checks that the features can be computed from the windows (None: the model has no windows).

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

"""Frozen models of `input` in deploy.yaml: what runs in front of the search.

The docstring below a key is its description in the JSON Schema. No I/O.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
from pydantic import BeforeValidator, Field

from device_agent.shared.protocol import constants
from knnkit.config.field_types import Example, FilePath, Section, Words, no_sense
from knnkit.config.window_models import WindowConfig


def _as_stage(value: Any) -> Any:
    return {"file": value} if isinstance(value, str) else value


def _as_list(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class StageConfig(Section):
    """One `.tflite` file that maps an array of numbers to another one; or its path alone."""

    file: Annotated[FilePath, Example("embedder.tflite")]
    """The file: one input and one output of float32, uint8, int8 or int16."""
    frames: Annotated[int | None, Example("76")] = Field(default=None, ge=1)
    """Run on windows of that many rows of what comes in, and stack the outputs; default: run once, on all of it."""
    hop: Annotated[int, Example("8")] = Field(default=1, ge=1)
    """Rows from the beginning of one window to that of the next."""
    multiply: Annotated[float, Example("0.1")] = Field(default=1.0, allow_inf_nan=False)
    """Factor of the output."""
    add: Annotated[float, Example("2.0")] = Field(default=0.0, allow_inf_nan=False)
    """Added to the output after `multiply`."""


Stages = Annotated[
    tuple[Annotated[StageConfig, BeforeValidator(_as_stage)], ...],
    BeforeValidator(_as_list),
    Field(max_length=constants.MAX_STAGES),
]
Pools = Annotated[
    tuple[Literal["mean", "max", "min", "std"], ...],
    BeforeValidator(_as_list),
    Words("mean, max, min, std, or a list of them"),
]


class InputConfig(Section):
    """How a raw input becomes a row of numbers, on the host and on every device alike."""

    window: Annotated[WindowConfig | None, Example("{columns: [ax, ay, az], rows: 128, hop: 64}")] = None
    """Windows of samples, which are the raw inputs: `data` then names recordings."""
    stages: Annotated[Stages, Example("[embedder.tflite]")] = ()
    """`.tflite` files in front of the search, in order: paths, or {file, frames, hop, multiply, add}. They become files
    of the release, and the signature covers them."""
    pool: Annotated[Pools, Example("[mean, max]")] = ()
    """Statistics over the first axis of the last stage's output: mean, max, min, std, one after the other. Default: the
    row is the whole output."""

    @pydantic.model_validator(mode="after")
    def _makes_rows(self) -> InputConfig:
        if self.window is None and not self.stages:
            raise no_sense("say `window`, `stages` or both", "stages: [embedder.tflite]")
        if self.pool and not self.stages:
            raise no_sense("`pool` needs `stages`, whose output it takes", "stages: [embedder.tflite]")
        return self

"""Lines of `knnkit inspect` about raw inputs and stages."""

from __future__ import annotations

from collections.abc import Iterator

from device_agent.shared.embedding.decode import takes
from device_agent.shared.protocol.input_info import Input


def input_lines(input: Input) -> Iterator[tuple[str, str]]:
    """Yields (name, value) of each line about the raw inputs of a model."""
    if input.audio is not None:
        length = "" if input.audio.seconds is None else f", {input.audio.seconds:g} s"
        yield "input", f"{takes(input)}: {input.audio.rate} Hz{length}, full scale {input.audio.full_scale:g}"
    elif input.image is not None:
        size = " x ".join(map(str, (*input.image.size, input.image.channels)))
        yield "input", f"{takes(input)}: {size}, resize {input.image.resize}"
    elif input.window is not None:
        yield "input", f"windows of {input.window.rows:,} samples, hop {input.window.hop:,}"
        yield "columns", ", ".join(input.window.columns)
        if input.window.time is not None:
            yield "gap", f"a step of {input.window.time} above {input.window.gap:g}, or below 0, breaks a window"
        if input.window.recording is not None:
            yield "recording", f"another value in {input.window.recording} breaks a window"
    else:
        yield "input", takes(input) if input.width is None else f"{takes(input)}: rows of {input.width:,}"
    for stage in input.stages:
        shape = " x ".join("?" if length == -1 else str(length) for length in stage.shape)
        windows = "" if stage.frames is None else f", on windows of {stage.frames} rows, hop {stage.hop}"
        scaled = "" if (stage.multiply, stage.add) == (1.0, 0.0) else f", then * {stage.multiply:g} + {stage.add:g}"
        yield "stage", f"{stage.file}: {stage.dtype} {shape}{windows}{scaled}; sha256 {stage.sha256}"
    if input.pool:
        yield "pool", ", ".join(input.pool)
    if input.stages:
        yield "bound", f"the rows that a device computes may differ from the host's by {input.bound:g}"

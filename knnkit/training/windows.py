"""Windows of recordings as training rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from device_agent.shared.protocol.input_info import Window
from knnkit.config.parse import Build, FileData, GroupSplit
from knnkit.data import recordings
from knnkit.data.dataset import Dataset
from knnkit.data.recordings import Labels
from knnkit.errors import DataError


def window_of(build: Build) -> Window | None:
    """Returns how the windows of a model are cut from samples; None if the model takes rows."""
    asked = build.model.input
    return None if asked is None or asked.window is None else asked.window.record


def load(build: Build, window: Window) -> tuple[Dataset, tuple[str, ...]]:
    """Returns the windows of all recordings in deploy.yaml as rows, and messages about data that is not used.

    Raises:
        DataError: as `recordings.load`; or rows must be held out, and there is only one recording.
    """
    data, split = build.model.data, build.model.split
    assert isinstance(data, FileData)
    group = split.group if isinstance(split, GroupSplit) else None
    cut = recordings.load(data.sources, window, Labels(data.label_column, data.labels), group)
    assert cut.windows.beside is not None
    if isinstance(build.model.measured_on, float) and build.model.measured_on and len(set(cut.windows.beside)) < 2:
        said = f"{cut.windows.source}: all windows are of one recording, and a recording is never divided"
        hint = "more recordings, `recording:` in `window:`, test: {file: other.csv}, or test: 0"
        raise DataError(said, hint=hint)
    return cut.windows, cut.warnings


def read_more(file: Path, label: str, training: Dataset, window: Window) -> Dataset:
    """Returns the windows of recordings in addition to the training data, with the dtype of the training rows.

    Raises:
        DataError: as `recordings.load`.
    """
    found = recordings.load([file], window, Labels(label)).windows
    return replace(found, rows=found.rows.astype(training.rows.dtype if len(training.rows) else np.float32))

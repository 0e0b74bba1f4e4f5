"""A built model, its golden set and its self-check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.golden.judge import Verdict
from knnkit.model.build import BuiltModel
from knnkit.model.tflite import associated_files


@dataclass(frozen=True)
class Made:
    """A built model, its golden set, and the verdict of its self-check.

    `warnings` and `notes` are messages for the person who builds; `stages` maps file names in the release to bytes.
    """

    model: BuiltModel
    golden: Golden
    verdict: Verdict
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    stages: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of training rows of each class."""
        return tuple(np.bincount(self.model.reference.classes, minlength=len(self.model.info.classes)).tolist())

    def graph(self) -> memoryview:
        """Returns the model file without the files inside it (labels, knn.json, tables)."""
        return associated_files.split(self.model.data)[0]

    def with_files(self, files: Mapping[str, bytes]) -> tuple[memoryview, bytes]:
        """Returns the model file with more files (name -> content) inside, as two parts to join: graph and archive."""
        return associated_files.add(self.model.data, files)

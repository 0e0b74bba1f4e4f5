"""A built model, its golden set and its self-check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.golden.judge import Verdict
from knnkit.model.built import BuiltModel


@dataclass(frozen=True)
class Made:
    """A built model, its golden set, and the verdict of its self-check."""

    model: BuiltModel
    golden: Golden
    verdict: Verdict
    warnings: tuple[str, ...] = ()  # for the person who builds, as `notes`
    notes: tuple[str, ...] = ()
    stages: Mapping[str, bytes] = field(default_factory=dict)  # file name in the release -> bytes

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of training rows of each class."""
        return tuple(np.bincount(self.model.reference.classes, minlength=len(self.model.info.classes)).tolist())

"""KnnSpec: what classifier to build. Plain values, checked; knows nothing of data, files or TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from device_agent.shared.protocol.constants import Metric, Scale, Weights, is_name
from knnkit.errors import BuildError


@dataclass(frozen=True)
class KnnSpec:
    """A nearest-neighbour classifier, before it has seen a row.

    Attributes:
        name: of the model: letters, digits, `.`, `_`, `-`, at most 64.
        k: neighbours that vote.
        metric: how far two rows are apart, after scaling.
        weights: `uniform`, or `distance`: by 1 / distance, an exact match takes all.
        scale: of the features, fitted on the training rows and built into the model.
        reject: share of ordinary rows to accept; None never answers "unknown".
    """

    name: str
    k: int = 3
    metric: Metric = "euclidean"
    weights: Weights = "uniform"
    scale: Scale = "none"
    reject: float | None = None

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise BuildError(f"model name {self.name!r}: letters, digits, '.', '_' and '-' only, at most 64 of them")
        if self.k < 1:
            raise BuildError(f"k is {self.k}; at least one neighbour must vote")
        for value, kind, what in (
            (self.metric, Metric, "metric"),
            (self.weights, Weights, "weights"),
            (self.scale, Scale, "scale"),
        ):
            if value not in get_args(kind):
                raise BuildError(f"{what} {value!r} is not one of {', '.join(get_args(kind))}")
        if self.reject is not None and not 0.0 < self.reject < 1.0:
            raise BuildError(
                f"reject is {self.reject}; it is the share of ordinary rows to accept, above 0 and below 1"
            )

"""Sets of labels with a stated coverage.

A class is in the set of a row if the row's score for the class is at most the threshold of the class. The build
calibrates thresholds on rows of that class (Mondrian conformal prediction, Vovk et al. 2005). The score is 1 minus the
class's share of the votes, plus a part from 0 to 1 / k that grows with the distance of the k-th neighbour. Host and
device compute scores from float32 answers; near a threshold, these are float64 answers rounded once, so both agree.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.constants import Metric
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.model_info import KnnInfo, LabelSets
from device_agent.shared.votes import base_distance

#: Scores of a graph are off by less: shares by 1e-5 at most, and distances of certain rows by the margin of the model,
#: 1e-5 of their size or of the radius.
_BLUR = 1e-4
_MAX_FLOAT32 = float(np.finfo(np.float32).max)


def scores(
    probabilities: NDArray[Any], distances: NDArray[Any], metric: Metric, k: int, radius: float
) -> NDArray[np.float64]:
    """Returns (n, n_classes) scores, low for likely classes, from (n, n_classes) vote shares and (n, k) distances.

    A score is 1 - share + x / k, where x grows from 0 to 1 with the k-th distance, and is 0.5 at the distance `radius`.
    """
    shares = np.asarray(probabilities, np.float32).astype(np.float64)
    far = base_distance(np.minimum(distances[:, k - 1], _MAX_FLOAT32).astype(np.float32), metric)
    strange = np.divide(far, far + radius, out=np.zeros(len(far)), where=far > 0.0)
    return np.asarray(1.0 - shares + strange[:, np.newaxis] / k)


def members(
    sets: LabelSets, probabilities: NDArray[Any], distances: NDArray[Any], metric: Metric, k: int
) -> NDArray[np.bool_]:
    """Returns (n, n_classes) bool: which classes are in the label set of each row."""
    return np.asarray(scores(probabilities, distances, metric, k, sets.radius) <= _limits(sets))


def doubtful(info: KnnInfo, probabilities: NDArray[Any], distances: NDArray[Any]) -> NDArray[np.bool_]:
    """Returns (n,) bool: whether rounding of (n, k) `distances` to float32 could change the label set of a row."""
    found = np.zeros(len(probabilities), bool)
    for sets in info.label_sets or ():
        near = np.abs(scores(probabilities, distances, info.metric, info.k, sets.radius) - _limits(sets)) < _BLUR
        found |= near.any(axis=1)
    return found


def sets_of(info: KnnInfo, coverage: float) -> LabelSets:
    """Returns the label sets of a model with this coverage, the share of sets that contain the right label.

    Raises:
        BadInput: the model has no label sets with this coverage.
    """
    there = {each.coverage: each for each in info.label_sets or ()}
    if coverage not in there:
        known = f", only with {', '.join(f'{each:g}' for each in there)}" if there else ""
        setting = f"set label_sets: {coverage if 0.0 < coverage < 1.0 else 0.95:g} in deploy.yaml, then knnkit deploy"
        hint = f"--labels {next(iter(there)):g}" if there else setting
        raise BadInput(f"--labels: the release has no label sets with coverage {coverage:g}{known}", hint=hint)
    return there[coverage]


def _limits(sets: LabelSets) -> NDArray[np.float64]:
    return np.array([np.inf if each is None else each for each in sets.thresholds])

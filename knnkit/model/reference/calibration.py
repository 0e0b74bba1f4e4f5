"""Distance thresholds beyond which a row is "unknown"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.model_info import Reject
from knnkit.model.reference.classifier import Reference, ReferenceAnswers
from knnkit.model.reference.space import Float32, Float64

#: A class with fewer calibration rows than this uses the threshold of all classes together.
MIN_CLASS_ROWS = 100


def calibrate(
    acceptance: float, label: NDArray[np.int32], kth: Float64, n_classes: int, own: Mapping[int, float] | None = None
) -> Reject:
    """Returns a distance threshold for each class, which accepts the share `acceptance` of ordinary rows.

    A class with fewer than `MIN_CLASS_ROWS` calibration rows gets a threshold from those of all classes.

    Args:
        acceptance: share of ordinary rows to accept, between 0 and 1.
        label: (n,) int32 class that the reference answered for each calibration row.
        kth: (n,) float64 distance of the k-th neighbour of each calibration row, in the model's metric.
        n_classes: number of classes.
        own: class index -> share that replaces `acceptance` for this class; None: for no class.
    """
    thresholds = []
    for code in range(n_classes):
        values = kth[label == code]
        share = (own or {}).get(code, acceptance)
        thresholds.append(_quantile(values if len(values) >= MIN_CLASS_ROWS else kth, share))
    return Reject(acceptance, tuple(thresholds))


def _quantile(values: Float64, share: float) -> float:
    # Split conformal prediction (Vovk et al. 2005): the next of n + 1 exchangeable rows is at or below the value of
    # rank ceil(share * (n + 1)) with at least this probability.
    ordered = np.sort(values)
    rank = min(len(ordered), int(np.ceil(share * (len(ordered) + 1))))
    return float(ordered[rank - 1])


def answer_apart(reference: Reference, places: NDArray[np.int64], spare: Float32 | None) -> ReferenceAnswers:
    """Returns the answers to training and spare rows, with k neighbours each; no row is its own neighbour.

    `places` has (n,) indices of training rows; index n_train + i stands for row i of `spare` (None: no such rows), the
    raw rows that `reduce` left out.
    """
    count, k = len(reference.enrolled), reference.k
    if spare is None:
        return reference.leave_one_out(places)
    inside = places < count
    parts = [reference.leave_one_out(places[inside]), reference.answer(spare[places[~inside] - count])]
    order = np.argsort(np.concatenate([np.flatnonzero(inside), np.flatnonzero(~inside)]))

    def joined(name: str) -> NDArray[Any]:
        columns = slice(None, k if name in ("indices", "distances") else None)
        values = [getattr(part, name) for part in parts]
        return np.asarray(np.concatenate([each[:, columns] if each.ndim > 1 else each for each in values])[order])

    return ReferenceAnswers(**{each.name: joined(each.name) for each in fields(ReferenceAnswers)})

"""Votes of a model with several label columns.

The neighbours of a row vote on each label column separately, with the weights of a classifier. Of tied labels, the
first in `Targets.classes` wins. Host and device count votes with this code, in float64. NumPy only; no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.outliers import OutlierFactors
from device_agent.shared.protocol.constants import UNKNOWN, UNKNOWN_LABEL, Weights
from device_agent.shared.protocol.model_info import InFloat64
from device_agent.shared.protocol.reports import ColumnScore
from device_agent.shared.regression import Float64, Regressor
from device_agent.shared.weights import weigh

#: The order of addition can split equal shares by some 2^-53.
_TIE = 1e-12
#: float32 distances change a share by less than a tenth of this (`judge.PROBABILITY_TOLERANCE`).
_DOUBT = 1e-4


class Voter(Regressor):
    """Counts the votes of neighbours, label column by label column.

    The `answers` that its methods take have the (n, k) `indices` and `distances` of the neighbours of n rows, and the
    rows' (n,) `label`.

    Args:
        targets: (n_train, t) float64: the labels of the training rows, as positions in the lists of `Targets.classes`.
        counts: number of labels of each column.
    """

    def __init__(self, targets: Float64, k: int, weights: Weights, counts: Sequence[int]) -> None:
        super().__init__(targets, k, weights)
        self._weights = weights
        self._codes, self._counts = targets.astype(np.intp), counts  # what bincount takes

    def shares(self, answers: Any) -> list[Float64]:
        """Returns, for each label column, (n, n_labels) float64: each label's share of the votes of the neighbours."""
        near = answers.indices[:, : self._k]
        far = answers.distances[:, : self._k]
        weight = weigh(far, far[:, :1], self._weights)
        weight /= weight.sum(axis=1)[:, np.newaxis]
        first = np.arange(len(near))[:, np.newaxis]
        found: list[Float64] = []
        for codes, count in zip(self._codes.T, self._counts):
            votes: Any = np.bincount((first * count + codes[near]).ravel(), weight.ravel(), len(near) * count)
            found.append(votes.reshape(-1, count))
        return found

    def values(self, answers: Any) -> Float64:
        """Returns (n, t) positions, in `Targets.classes`, of the labels that win in each row; NaN: rejected."""
        won = [(part >= part.max(axis=1, keepdims=True) - _TIE).argmax(axis=1) for part in self.shares(answers)]
        found: Float64 = np.stack(won, axis=1).astype(np.float64)
        found[np.asarray(answers.label) == UNKNOWN] = np.nan
        return found

    def in_doubt(self, answers: Any) -> NDArray[np.bool_]:
        """Returns (n,) bool: whether float32 rounding of the distances could change a label of the row."""
        found = np.zeros(len(answers.indices), np.bool_)
        if self._weights != "uniform":
            for part in self.shares(answers):
                found |= (part >= part.max(axis=1, keepdims=True) - _DOUBT).sum(axis=1) > 1
        return found


def regressor(
    targets: Float64, k: int, weights: Weights, own: InFloat64 | None, counts: Sequence[int]
) -> Regressor | OutlierFactors:
    """Returns the object that computes the values of a model: a Voter, OutlierFactors or a Regressor.

    Args:
        targets: (n_train, t) float64: for each training row, the values of its targets, or its labels as positions in
            `Targets.classes`; for outlier factors, the distance of its k-th neighbour, and its density.
        k: number of neighbours.
        weights: uniform, distance or a kernel.
        own: `KnnInfo.float64`: has `offset` in a model that answers outlier factors, and the `bandwidth` of a kernel.
        counts: number of labels of each label column; empty without label columns.
    """
    if counts:
        return Voter(targets, k, weights, counts)
    if own is not None and own.offset is not None:
        return OutlierFactors(targets, k, own.offset)
    return Regressor(targets, k, weights, None if own is None else own.bandwidth)


def labels_of(classes: Sequence[Sequence[int | str]], values: Float64) -> list[list[int | str]]:
    """Returns the labels at the (n, t) positions `values` in `classes`, by column; "unknown" for a rejected row."""
    return [
        [UNKNOWN_LABEL if value != value else labels[int(value)] for value, labels in zip(row, classes)]
        for row in values.tolist()
    ]


def scores(names: Sequence[str], values: Float64, truth: Float64) -> tuple[ColumnScore, ...]:
    """Counts right answers, for each label column in `names`, in rows whose (n, t) `truth` is not NaN; () if none."""
    known = ~np.isnan(truth).any(axis=1)
    right = (values[known] == truth[known]).sum(axis=0).tolist()
    return tuple(ColumnScore(name, int(known.sum()), count) for name, count in zip(names, right)) if known.any() else ()

"""Audit of labelled rows: doubtful labels, useless rows, near duplicates.

Each row is compared with its neighbours among all other rows. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from knnkit.data.dataset import Dataset
from knnkit.model.reference.enrolment import encode
from knnkit.model.reference.spec import KnnSpec
from knnkit.training import neighbours

Kind = Literal["contradicted", "duplicate", "useless"]
#: Rows nearer than this share of the median distance to a nearest neighbour are near duplicates.
_NEAR = 0.01

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Finding:
    """One row that a person should look at.

    Attributes:
        kind: contradicted (at least two thirds of the neighbours, and the answer, have another label), duplicate (a row
            before it is equal or almost equal), or useless (without it, no row gets another answer).
        row: its place among the audited rows.
        label: its label.
        other: the label that its neighbours answer, or that of the row that it repeats.
        like: the place of the row that it repeats, or of its nearest neighbour.
        distance: to that row, in the model's metric.
        share: of the neighbours' votes for `other`; 1 for a duplicate.
    """

    kind: Kind
    row: int
    label: str
    other: str
    like: int
    distance: float
    share: float


@dataclass(frozen=True)
class Audit:
    """The findings among `rows` audited rows, the most doubtful first."""

    findings: tuple[Finding, ...]
    rows: int

    def count(self, kind: Kind) -> int:
        """Returns the number of findings of one kind."""
        return sum(each.kind == kind for each in self.findings)


def audit(rows: Dataset, spec: KnnSpec) -> Audit:
    """Audits the rows with the k, metric, weights and scale of a model; needs more than k + 1 rows."""
    classes, codes = encode(rows.labels)
    names = [*map(str, classes)]
    lists = neighbours.leave_one_out(rows.rows, spec.scale, spec.metric, spec.k + 1)
    shares = _shares(lists, codes, len(names), spec)
    answer = shares.argmax(axis=1)

    top = shares[np.arange(len(codes)), answer]

    def by_votes(kind: Kind, row: int) -> Finding:
        like, distance = int(lists.indices[row, 0]), float(lists.distances[row, 0])
        return Finding(kind, row, names[codes[row]], names[answer[row]], like, distance, float(top[row]))

    contradicted = np.flatnonzero((answer != codes) & (top >= 2.0 / 3.0 - 1e-9))
    found = [by_votes("contradicted", row) for row in contradicted.tolist()]
    found.sort(key=lambda each: (-each.share, each.distance))
    repeated = [
        Finding("duplicate", row, names[codes[row]], names[codes[like]], like, distance, 1.0)
        for row, like, distance in _duplicates(lists)
    ]
    useless = np.setdiff1d(_useless(lists, codes, len(names), spec), contradicted)
    spare = [by_votes("useless", row) for row in useless.tolist()]
    repeated.sort(key=lambda each: (each.label == each.other, each.distance, each.row))
    return Audit((*found, *repeated, *spare), len(codes))


def _shares(lists: neighbours.Lists, codes: NDArray[np.int32], n_classes: int, spec: KnnSpec) -> NDArray[np.float64]:
    """Returns the (n, n_classes) shares of the votes of the k nearest."""
    return _count(codes[lists.indices[:, : spec.k]], lists.distances[:, : spec.k], n_classes, spec)


def _count(
    near: NDArray[np.int32], distances: NDArray[np.float64], n_classes: int, spec: KnnSpec
) -> NDArray[np.float64]:
    weight = np.ones(distances.shape)
    if spec.weights == "distance":
        nearest = distances[:, :1]
        ratio = np.divide(nearest, distances, out=np.zeros(distances.shape), where=distances > 0.0)
        weight = np.where(nearest == 0.0, distances == 0.0, ratio)
    votes = np.stack([(weight * (near == code)).sum(axis=1) for code in range(n_classes)], axis=1)
    # Rounding must not decide an even vote: the lowest class wins, as in the model.
    return np.asarray(np.round(votes / votes.sum(axis=1, keepdims=True), 12))


def _duplicates(lists: neighbours.Lists) -> Iterator[tuple[int, int, float]]:
    """Yields (row, earlier row that it repeats, distance)."""
    nearest = lists.distances[:, 0]
    limit = _NEAR * float(np.median(nearest))
    for row in np.flatnonzero(nearest <= limit).tolist():
        near = lists.indices[row][lists.distances[row] <= limit]
        before = near[near < row]
        if len(before):
            like = int(before[0])
            yield row, like, float(lists.distances[row][lists.indices[row] == like][0])


def _useless(lists: neighbours.Lists, codes: NDArray[np.int32], n_classes: int, spec: KnnSpec) -> Ints:
    """Returns rows whose removal changes no leave-one-out answer of another row: one at a time, not all together."""
    k = spec.k
    before = _shares(lists, codes, n_classes, spec).argmax(axis=1)
    needed = np.zeros(len(codes), bool)
    places = np.arange(k + 1)
    for place in range(k):  # without the neighbour at this place, the (k + 1)-th votes
        rest = places[places != place]
        after = _count(codes[lists.indices[:, rest]], lists.distances[:, rest], n_classes, spec).argmax(axis=1)
        needed[lists.indices[after != before, place]] = True
    return np.flatnonzero(~needed & (np.bincount(codes)[codes] > 1))

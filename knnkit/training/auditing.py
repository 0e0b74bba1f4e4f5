"""Audit of labelled rows: doubtful labels and targets, near duplicates.

Each row is compared with its neighbours among all other rows. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.weights import weigh
from knnkit.data.dataset import Dataset
from knnkit.model.reference.enrolment import encode
from knnkit.model.reference.spec import KnnSpec
from knnkit.model.tflite.load_tensorflow import needs_build_extra
from knnkit.training import neighbours

Kind = Literal["contradicted", "duplicate", "useless"]
#: Rows nearer than this share of the median distance to a nearest neighbour are near duplicates.
_NEAR = 0.01
#: A target further from a neighbour's than this many medians of all such differences contradicts it (of those above 0,
#: if most are 0); if targets differ from their neighbours' as normal numbers do, one difference in 1,300 is as large.
_FAR = 5.0
#: Least share of the neighbours' votes that contradicts a row.
_MOST_VOTES = 2.0 / 3.0 - 1e-9

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Finding:
    """One row that a person should look at."""

    #: contradicted (another label has at least two thirds of the neighbours' votes; or so many neighbours' targets are
    #: all far above the row's, or all far below), duplicate (an earlier row is equal or almost equal), or useless
    #: (without this row, the answers to all other rows stay the same; only for labels).
    kind: Kind
    row: int  # index of the row among the audited rows
    label: str  # label or targets of the row
    other: str  # the label or targets that the row's neighbours answer; for a duplicate, those of the earlier row
    like: int  # index of the row's nearest neighbour; for a duplicate, of the earlier row
    distance: float  # distance from the row to the row `like`, in the model's metric
    share: float  # share of the neighbours' votes for `other`, or against the row's target; 1 for a duplicate


@dataclass(frozen=True)
class Audit:
    """Result of an audit of `rows` rows: `findings`, the most doubtful rows first."""

    findings: tuple[Finding, ...]
    rows: int

    def count(self, kind: Kind) -> int:
        """Returns the number of findings of the kind `kind`."""
        return sum(each.kind == kind for each in self.findings)


#: The label or targets of each row as text; the contradicted rows, the most doubtful first; and the useless rows.
Judged = tuple[list[str], list[Finding], list[Finding]]


@needs_build_extra()
def audit(rows: Dataset, spec: KnnSpec) -> Audit:
    """Audits k + 2 rows or more with one label each, or targets, by the k, metric, weights and scale of `spec`.

    Raises:
        MissingDependency: a package of `knnkit[build]` is not installed.
    """
    lists = neighbours.leave_one_out(rows.rows, spec.scale, spec.metric, spec.k + 1)
    judge = _by_votes if rows.targets is None else _by_values
    names, contradicted, useless = judge(rows, lists, spec)
    repeated = [
        Finding("duplicate", row, names[row], names[like], like, distance, 1.0)
        for row, like, distance in _duplicates(lists)
    ]
    repeated.sort(key=lambda each: (each.label == each.other, each.distance, each.row))
    return Audit((*contradicted, *repeated, *useless), len(rows.rows))


def _by_votes(rows: Dataset, lists: neighbours.Lists, spec: KnnSpec) -> Judged:
    classes, codes = encode(rows.labels)
    names = [*map(str, classes)]
    shares = _shares(lists, codes, len(names), spec)
    answer = shares.argmax(axis=1)
    top = shares[np.arange(len(codes)), answer]

    def finding(kind: Kind, row: int) -> Finding:
        return Finding(kind, row, names[codes[row]], names[answer[row]], *_nearest(lists, row), float(top[row]))

    contradicted = np.flatnonzero((answer != codes) & (top >= _MOST_VOTES))
    found = [finding("contradicted", row) for row in contradicted.tolist()]
    found.sort(key=lambda each: (-each.share, each.distance))
    useless = np.setdiff1d(_useless(lists, codes, len(names), spec), contradicted)
    return [names[code] for code in codes], found, [finding("useless", row) for row in useless.tolist()]


def _by_values(rows: Dataset, lists: neighbours.Lists, spec: KnnSpec) -> Judged:
    assert rows.targets is not None
    targets, near, distances = rows.targets, lists.indices[:, : spec.k], lists.distances[:, : spec.k]
    weight = weigh(distances, distances[:, :1], spec.weights)[:, :, np.newaxis]
    weight /= weight.sum(axis=1, keepdims=True)
    off = targets[near] - targets[:, np.newaxis]
    usual = np.array([_usual(each) for each in np.abs(off).transpose()])
    votes = [(weight * way).sum(axis=1).max(axis=1) for way in (off > _FAR * usual, off < -_FAR * usual)]
    share, mean = np.maximum(*votes), (weight * targets[near]).sum(axis=1)
    names, answers = ([", ".join(f"{value:.6g}" for value in row) for row in each] for each in (targets, mean))
    far = (np.abs(mean - targets) / usual).max(axis=1)
    chosen = np.flatnonzero(share >= _MOST_VOTES)
    found = [
        Finding("contradicted", row, names[row], answers[row], *_nearest(lists, row), float(share[row]))
        for row in chosen[np.argsort(-far[chosen], kind="stable")].tolist()
    ]
    return names, found, []


def _usual(off: NDArray[np.float64]) -> float:
    """Returns the median of absolute differences; if it is 0, the median of those above 0; if all are 0, 1."""
    return float(np.median(off) or np.median(off[off > 0.0] if off.any() else 1.0))


def _nearest(lists: neighbours.Lists, row: int) -> tuple[int, float]:
    return int(lists.indices[row, 0]), float(lists.distances[row, 0])


def _shares(lists: neighbours.Lists, codes: NDArray[np.int32], n_classes: int, spec: KnnSpec) -> NDArray[np.float64]:
    """Returns (n, n_classes): the share of votes for each class among the k nearest other rows of each row."""
    near, distances = codes[lists.indices[:, : spec.k]], lists.distances[:, : spec.k]
    weight = weigh(distances, distances[:, :1], spec.weights)
    votes = np.stack([(weight * (near == code)).sum(axis=1) for code in range(n_classes)], axis=1)
    # Rounding must not decide an even vote: the lowest class wins, as in the model.
    return np.asarray(np.round(votes / votes.sum(axis=1, keepdims=True), 12))


def _duplicates(lists: neighbours.Lists) -> Iterator[tuple[int, int, float]]:
    """Yields (index of a near duplicate, index of the earlier row that it repeats, their distance)."""
    nearest = lists.distances[:, 0]
    limit = _NEAR * float(np.median(nearest))
    for row in np.flatnonzero(nearest <= limit).tolist():
        near = lists.indices[row][lists.distances[row] <= limit]
        before = near[near < row]
        if len(before):
            like = int(before[0])
            yield row, like, float(lists.distances[row][lists.indices[row] == like][0])


def _useless(lists: neighbours.Lists, codes: NDArray[np.int32], n_classes: int, spec: KnnSpec) -> Ints:
    """Returns indices of rows that can be removed singly (not together) without changing the answer to another row.

    The only row of a class is not among them. `lists` has k + 1 neighbours of each row, `codes` the (n,) class indices
    of the rows.
    """
    k = spec.k
    before = _shares(lists, codes, n_classes, spec).argmax(axis=1)
    needed = np.zeros(len(codes), bool)
    places = np.arange(k + 1)
    for place in range(k):  # without the neighbour at this place, the (k + 1)-th votes
        rest = places[places != place]
        others = neighbours.Lists(lists.indices[:, rest], lists.distances[:, rest])
        after = _shares(others, codes, n_classes, spec).argmax(axis=1)
        needed[lists.indices[after != before, place]] = True
    return np.flatnonzero(~needed & (np.bincount(codes)[codes] > 1))

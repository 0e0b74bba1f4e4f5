"""Chooses the training rows that a smaller model keeps.

`reduce` of deploy.yaml: `condensed` keeps rows that classify all others; `edited` drops rows whose neighbours
contradict their label; `prototypes` keeps the rows next to the centres of clusters of each class. Looks only at
training rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.model_info import KnnInfo
from knnkit.data.dataset import Dataset, drawn
from knnkit.errors import BuildError, needs
from knnkit.evaluation.metrics import percent
from knnkit.model.reference.enrolment import encode
from knnkit.model.reference.spec import KnnSpec
from knnkit.model.scaling import fit_scaler
from knnkit.training import neighbours

#: Shares of each class that `prototypes` tries, the smallest first.
_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7)
#: Most distance terms for measuring all training rows; beyond these, a sample of at least `_LEAST` rows is measured.
_WORK, _LEAST = 2_000_000_000, 500

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Points:
    """Training rows (n, p) `values` with (n,) class indices `codes`; the metric is euclidean or manhattan."""

    values: NDArray[np.float64]
    codes: NDArray[np.int32]
    metric: Literal["euclidean", "manhattan"]
    k: int

    def votes_of(self, kept: Ints) -> NDArray[np.int64]:
        """Returns the (n,) class that the k nearest rows among the rows `kept` vote for, for each training row."""
        lists = neighbours.among(self.values[kept], self.values, "none", self.metric, min(self.k, len(kept)))
        return lists.vote(self.codes[kept], "uniform")


def choose(training: Dataset, spec: KnnSpec, how: str, max_loss: float, seed: int) -> Ints:
    """Returns the sorted indices of the training rows to keep: at least one of every class, and more than k.

    `how`, `max_loss` and `seed` are keys of `reduce` in deploy.yaml; only `prototypes` uses the last two.

    Raises:
        BuildError: there are too few rows.
        MissingDependency: a package of `knnkit[build]` is not installed.
    """
    points = _points(training, spec)
    if len(points.codes) <= spec.k:
        kept = np.arange(len(points.codes))
    elif how == "prototypes":
        kept = _prototypes(points, max_loss, seed)
    else:
        kept = _condensed(points) if how == "condensed" else _edited(points)
    lost = np.setdiff1d(points.codes, points.codes[kept])
    kept = np.union1d(kept, np.flatnonzero(np.isin(points.codes, lost)))
    if len(kept) <= spec.k:
        said = f"{training.source}: reduce: {how} leaves {len(kept)} rows, and k is {spec.k}"
        raise BuildError(said, hint="leave reduce out, or lower k")
    return kept


def accuracy(info: KnnInfo) -> float:
    """Returns a model's measured accuracy on the held-out rows."""
    assert info.evaluation is not None
    return sum(info.evaluation.right) / info.evaluation.rows


def require_small_loss(how: str, max_loss: float, before: KnnInfo, after: KnnInfo) -> None:
    """Checks that a model of the rows that `how` chose (`after`) is about as accurate as one of all rows (`before`).

    Raises:
        BuildError: the accuracy of `after` is lower by more than `max_loss`.
    """
    old, new = accuracy(before), accuracy(after)
    if old - new <= max_loss + 1e-12:
        return
    enough = math.ceil((old - new) * 1000) / 1000
    raise BuildError(
        f"reduce: {how} keeps {after.n_train:,} of {before.n_train:,} training rows, and the accuracy on held-out rows "
        f"falls from {percent(old)} to {percent(new)}; max_loss is {percent(max_loss)}",
        hint=f"reduce: {{how: {how}, max_loss: {enough:g}}}, or how: {'prototypes' if how == 'edited' else 'edited'}",
    )


def _points(training: Dataset, spec: KnnSpec) -> Points:
    values = training.rows.astype(np.float64)
    for step in fit_scaler(training.rows, spec.scale):
        values = step.apply(values, query=False)
    if spec.metric == "cosine":
        values = neighbours.unit(values)
    metric: Literal["euclidean", "manhattan"] = "manhattan" if spec.metric == "manhattan" else "euclidean"
    return Points(values, encode(training.labels)[1], metric, spec.k)


def _condensed(points: Points) -> Ints:
    """Returns the sorted indices of rows to keep: the kept rows classify all others correctly (Hart 1968).

    Adds several rows at a time (Angiulli 2005).
    imbalanced-learn condenses each class only against the smallest class, which loses a third of iris.
    """
    kept = np.concatenate(
        [_nearest_to_centre(points, np.flatnonzero(points.codes == c)) for c in np.unique(points.codes)]
    )
    while True:
        wrong = np.setdiff1d(np.flatnonzero(points.votes_of(kept) != points.codes), kept)
        if not len(wrong):
            return np.sort(kept)
        cells = neighbours.among(points.values[kept], points.values[wrong], "none", points.metric, 1)
        order = np.lexsort((wrong, cells.distances[:, 0]))
        _, first = np.unique(cells.indices[order, 0], return_index=True)  # of each cell, the nearest wrong row
        kept = np.concatenate([kept, wrong[order][first]])


def _nearest_to_centre(points: Points, rows: Ints) -> Ints:
    offsets = points.values[rows] - points.values[rows].mean(axis=0)
    return rows[[int(np.argmin((offsets * offsets).sum(axis=1)))]]


def _edited(points: Points) -> Ints:
    with needs("reduce: edited needs imbalanced-learn"):
        from imblearn.under_sampling import EditedNearestNeighbours
    from sklearn.neighbors import NearestNeighbors

    k = min(max(3, points.k), len(points.codes) - 1)
    search = NearestNeighbors(n_neighbors=k + 1, metric=points.metric)
    editing = EditedNearestNeighbours(sampling_strategy="all", n_neighbors=search, kind_sel="mode")
    editing.fit_resample(points.values, points.codes)
    return np.sort(np.asarray(editing.sample_indices_, np.int64))


def _prototypes(points: Points, max_loss: float, seed: int) -> Ints:
    """Returns the indices of the fewest prototypes that classify the other rows almost as well as all rows do.

    The accuracy may be lower by at most `max_loss` than that of leave-one-out over all rows. Tries each share of
    `_SHARES`, the smallest first; returns all rows if even the largest is not enough.
    """
    count = len(points.codes)
    asked = drawn(count, max(_LEAST, _WORK // points.values.size), seed)
    own = neighbours.leave_one_out(points.values, "none", points.metric, min(points.k, count - 1), asked)
    before = own.vote(points.codes, "uniform") == points.codes[asked]
    for share in _SHARES:
        parts = [_medoids(points, np.flatnonzero(points.codes == c), share, seed) for c in np.unique(points.codes)]
        kept = np.sort(np.concatenate(parts))
        after = (points.votes_of(kept) == points.codes)[asked]
        others = ~np.isin(asked, kept)
        if len(kept) > points.k and others.any() and before[others].mean() - after[others].mean() <= max_loss:
            return kept
    return np.arange(count)


def _medoids(points: Points, rows: Ints, share: float, seed: int) -> Ints:
    """Returns the `share` of one class's `rows` (indices) that are nearest to the centres of k-means clusters."""
    from sklearn.cluster import KMeans

    values = points.values[rows]
    count = min(len(np.unique(values, axis=0)), max(1, round(share * len(rows))))
    found = KMeans(count, n_init=1, random_state=seed).fit(values)
    nearest = neighbours.among(values, found.cluster_centers_, "none", "euclidean", 1)
    return np.asarray(rows[np.unique(nearest.indices[:, 0])])

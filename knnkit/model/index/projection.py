"""A projection in which the search for candidates is cheaper than over all coordinates, where the rows allow one.

Distances in a projection are never longer than the distances themselves: what is too far in a few coordinates is too
far. Rows of many coordinates (images, spectra, embeddings) often lie near a plane of few; the principal axes find it
(Jolliffe 2002, ch. 2), and the exact differences of some more candidates settle what the plane leaves open. What the
search then takes is estimated on a sample of the rows, and a projection is chosen only where it is worth it. Plain
numpy in float64; what ends up in the model is the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from knnkit.model.index.cost_sample import (
    CANDIDATE,
    EXACT,
    MOST_CANDIDATES,
    PART,
    SHARE,
    SPARE,
    Sample,
    WeightedRows,
    squared_distances,
)
from knnkit.model.reference.space import CONFIDENCE, EPSILON, Float32, Float64, add_products, relative_error

#: Coordinates from which on a projection can pay: the principal axes of fewer are most of them.
LEAST_COORDINATES = 48
#: Coordinates up to which the axes are looked for: time and memory grow with their square.
MOST_COORDINATES = 4096
#: The share of the work that must be saved; less is not worth a larger file.
_WORTH = 0.5
#: Looking at a score, counted as in `sample`.
_SCORE = 20.0
_SHARES = (16, 12, 8, 6, 4, 3, 2)
#: Axes at most, and rounds of the iteration that finds them: a matrix of images is as well described after so many.
_MOST_AXES, _ROUNDS = 512, 4
#: Share of a column's length under which what is left of it is rounding.
_NOTHING = 1e-6
#: Steps of the axes' entries: coarse enough that their norm is not 1 but for rounding.
_GRID = 2.0**-14


@dataclass(frozen=True)
class Projection:
    """Candidates are searched among `rows`, with queries that are multiplied by `matrix`.

    Attributes:
        matrix: (p, r) float32, which makes no row longer.
        rows: (n, r) float32, the enrolled rows after `scale`, projected.
        candidates: how many to rank exactly.
    """

    matrix: Float32
    rows: Float32
    candidates: int

    @property
    def blur(self) -> float:
        """Error of a squared distance in the projection, relative to (‖x‖ + reach)²."""
        return _blur(*self.matrix.shape)


def _blur(p: int, r: int) -> float:
    """What the product with the (p, r) matrix blurs, and what that with the rows does."""
    return float(2.0 * (CONFIDENCE * np.sqrt(p) + 4.0) + CONFIDENCE * np.sqrt(r) + 8.0) * EPSILON


def find_projection(sample: Sample, over_fetch: int) -> Projection | None:
    """Returns the projection that saves most work in a search among the sample's rows; None where none is worth it.

    Args:
        sample: of the rows, and what is asked of them.
        over_fetch: candidates beyond k that are wanted in any case.
    """
    count, width = sample.enrolled.shape
    if sample.space.metric == "manhattan" or not LEAST_COORDINATES <= width <= MOST_COORDINATES or count <= 4 * width:
        return None
    sizes = sorted({min(_MOST_AXES, max(8, width // share)) for share in _SHARES})
    axes = _axes(sample.rows, sizes[-1])
    needed = _count_within(sample, axes, sizes)
    each = width * EXACT + CANDIDATE
    whole = count * (width + _SCORE) + (sample.k + over_fetch) * each
    best, least = None, _WORTH * whole
    for size, most in zip(sizes, np.quantile(needed, SHARE, axis=1)):
        candidates = max(sample.k, int(SPARE * most)) + over_fetch
        work = (count + width) * size + count * _SCORE + candidates * each
        if candidates <= min(MOST_CANDIDATES, count // 2) and work < least:
            best, least = (size, candidates), work
    if best is None:
        return None
    matrix = axes[:, : best[0]].astype(np.float32)
    return Projection(matrix, _project(sample.rows, matrix), best[1])


def _axes(rows: WeightedRows, most: int) -> Float64:
    """Returns the first (p, r) principal axes, rounded, so that no combination of them makes a row longer.

    Found by orthogonal iteration (Golub and Van Loan 2013, ch. 8.2.4) on whole numbers, whose products and sums float64
    holds exactly: eigenvectors of near-equal eigenvalues are what a BLAS, its threads and its processor make of them,
    and the file would be too.
    """
    greatest = float(np.max([np.abs(part).max() for _, part in rows.parts(PART)]))
    width = rows.enrolled.shape[1]
    moments = np.zeros((width, width))
    for _, part in rows.parts(PART):
        whole = _whole(part, greatest)
        moments += whole.T @ whole
    axes = np.random.default_rng(0).choice([-1.0, 1.0], (width, most))
    for _ in range(_ROUNDS):
        axes = _orthonormal(_whole(moments, float(np.abs(moments).max())) @ _whole(axes, 1.0))
    axes = np.round(axes / _GRID) * _GRID
    shrunk = np.floor((1.0 - 2.0**-18) / max(1.0, float(np.linalg.norm(axes, ord=2))) * 2.0**20) * 2.0**-20
    return np.asarray(axes * shrunk)


def _whole(values: Float64, greatest: float) -> Float64:
    """Returns values in steps of 2^-20 of the greatest: what is less, float32 has no certain answer to."""
    return np.asarray(np.round(values / (greatest or 1.0) * 2.0**20))


def _orthonormal(columns: Float64) -> Float64:
    """Returns (p, r) orthonormal columns that span what the first of `columns` do; zeros where one adds nothing."""
    found: Float64 = columns / np.abs(columns).max(initial=1.0)
    before = np.sqrt((found * found).sum(axis=0))
    for number in range(found.shape[1]):
        length = np.sqrt((found[:, number] * found[:, number]).sum())
        found[:, number] *= 1.0 / length if length > _NOTHING * before[number] else 0.0
        one, rest = found[:, number, np.newaxis], found[:, number + 1 :]
        rest -= one * (one * rest).sum(axis=0)
    return found


def _count_within(sample: Sample, axes: Float64, sizes: list[int]) -> NDArray[np.int64]:
    """Returns how many rows each of the sample must look at, (sizes, samples): those nearer than its k-th nearest is.

    What is counted are distances over the first axes, in numbers of `sizes`, less what float32 blurs of them. Ties at
    the k-th place are not, nor what float32 cannot tell from one over all coordinates: float64 settles them, however
    many candidates there are.
    """
    asked, kth, counts = sample.asked @ axes, sample.kth, np.zeros((len(sizes), len(sample.asked)), np.int64)
    for _, part in sample.rows.parts(PART):
        squared = squared_distances(sample.asked, part)
        told = (squared < kth) | (squared > kth + relative_error(len(axes)) * sample.unit)
        within, first, own = np.zeros(squared.shape), 0, part @ axes
        for number, size in enumerate(sizes):
            within += squared_distances(asked[:, first:size], own[:, first:size])
            counts[number] += (told & (within < kth + _blur(len(axes), size) * sample.unit)).sum(axis=1)
            first = size
    return counts


def _project(rows: WeightedRows, matrix: Float32) -> Float32:
    """Returns (n, r) float32, added up in the order of the coordinates, as no matrix product promises."""
    found = np.empty((len(rows.enrolled), matrix.shape[1]), np.float32)
    for start, part in rows.parts(512):
        found[start : start + len(part)] = add_products(part, matrix)
    return found

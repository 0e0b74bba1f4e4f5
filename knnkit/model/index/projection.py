"""Projection of the rows to fewer coordinates for candidate search.

An orthogonal projection never makes a distance longer, so a row that is too far in the projection is too far. Images,
spectra and embeddings often lie near a plane of few coordinates; the principal axes span it (Jolliffe 2002, ch. 2). The
nearest rows are among a few more candidates than k, which are ranked exactly. A sample of the rows estimates the work;
there is no projection if it does not save enough. NumPy, float64; the result is the same on every machine.
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
from knnkit.model.reference.float32_errors import CONFIDENCE, EPSILON, relative_error
from knnkit.model.reference.space import Float32, Float64, add_products

#: Fewest coordinates for which a projection pays: with fewer, the axes needed are most of them.
LEAST_COORDINATES = 48
#: Most coordinates: time and memory to find the axes grow with their square.
MOST_COORDINATES = 4096
#: Share of the work that a projection must save to be worth the larger file.
_WORTH = 0.5
#: Cost of reading one score, in the units of `cost_sample`.
_SCORE = 20.0
_SHARES = (16, 12, 8, 6, 4, 3, 2)
#: Most axes, and rounds of the iteration: more rounds did not describe a matrix of images better.
_MOST_AXES, _ROUNDS = 512, 4
#: Below this share of a column's length, what orthogonalisation leaves of it is rounding.
_NOTHING = 1e-6
#: The axes' entries are multiples of this: coarse enough that last bits of an orthonormalisation do not show in the
#: file, and that their norm differs clearly from 1. The shrinking to 1 - 2^-18 covers their rounding to float32.
_GRID = 2.0**-14


@dataclass(frozen=True)
class Projection:
    """The projected training rows, and the matrix that projects a query."""

    matrix: Float32  # (p, r) float32 with a spectral norm under 1, so that no projected row is longer than the row
    rows: Float32  # (n, r) float32 projections of the training rows, whose coordinates were multiplied by `scale`
    candidates: int  # number of candidates to rank exactly

    @property
    def blur(self) -> float:
        """Largest float32 error of a squared projected distance, as a share of (length of query + longest row)²."""
        return _blur(*self.matrix.shape)


def _blur(p: int, r: int) -> float:
    """Returns the largest float32 error of a squared distance after a projection from p to r coordinates.

    It is a share of (‖x‖ + reach)², where x is the query as a scaled offset from the centre, and reach is
    `Space.reach`, the length of the longest such offset of a training row. u is `EPSILON`, the rounding error of one
    float32 operation.

    Projecting the query is a product over p: its length is off by (6 sqrt(p) + 4) u, a squared distance by twice that.
    The product with the projected rows adds `relative_error(r)`, (6 sqrt(r) + 8) u.
    """
    return float(2.0 * (CONFIDENCE * np.sqrt(p) + 4.0) + CONFIDENCE * np.sqrt(r) + 8.0) * EPSILON


def find_projection(sample: Sample, over_fetch: int) -> Projection | None:
    """Returns the projection that makes a search cheapest; None if none makes it cheap enough.

    `over_fetch` is added to the number of candidates that the sample needs.
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
    """Returns the first `most` principal axes of the rows, (p, most), rounded and shrunk to a spectral norm under 1.

    Uses orthogonal iteration (Golub and Van Loan 2013, ch. 8.2.4) on whole numbers, whose products and sums are exact
    in float64. An eigensolver's result for near-equal eigenvalues depends on the BLAS, its threads and the processor.
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
    """Returns values rounded to whole numbers of steps; a step is 2^-20 of `greatest`, the largest absolute value.

    Products of two are at most 2^40, so float64 (53 bits) adds 2^13 of them exactly, in any order.
    """
    return np.asarray(np.round(values / (greatest or 1.0) * 2.0**20))


def _orthonormal(columns: Float64) -> Float64:
    """Returns (p, r) orthonormal columns with the span of `columns`; a column that depends on others becomes zeros."""
    found: Float64 = columns / np.abs(columns).max(initial=1.0)
    before = np.sqrt((found * found).sum(axis=0))
    for number in range(found.shape[1]):
        length = np.sqrt((found[:, number] * found[:, number]).sum())
        found[:, number] *= 1.0 / length if length > _NOTHING * before[number] else 0.0
        one, rest = found[:, number, np.newaxis], found[:, number + 1 :]
        rest -= one * (one * rest).sum(axis=0)
    return found


def _count_within(sample: Sample, axes: Float64, sizes: list[int]) -> NDArray[np.int64]:
    """Returns (len(sizes), m) counts of the rows that may be nearer to each sampled query than its k-th neighbour.

    A row is counted if its distance over the first `sizes` axes, less its float32 error, is small enough. A row that
    float32 cannot distinguish from the k-th over all coordinates is not counted: only float64 can rank it.
    """
    queries, kth, counts = sample.queries @ axes, sample.kth, np.zeros((len(sizes), len(sample.queries)), np.int64)
    for _, part in sample.rows.parts(PART):
        squared = squared_distances(sample.queries, part)
        distinct = (squared < kth) | (squared > kth + relative_error(len(axes)) * sample.unit)
        within, first, own = np.zeros(squared.shape), 0, part @ axes
        for number, size in enumerate(sizes):
            within += squared_distances(queries[:, first:size], own[:, first:size])
            counts[number] += (distinct & (within < kth + _blur(len(axes), size) * sample.unit)).sum(axis=1)
            first = size
        if SPARE * np.quantile(counts, SHARE, axis=1).min() >= MOST_CANDIDATES + 1:
            break  # too many already, on any number of axes
    return counts


def _project(rows: WeightedRows, matrix: Float32) -> Float32:
    """Returns the (n, r) float32 product of rows and matrix, summed in coordinate order, which BLAS does not ensure."""
    found = np.empty((len(rows.enrolled), matrix.shape[1]), np.float32)
    for start, part in rows.parts(512):
        found[start : start + len(part)] = add_products(part, matrix)
    return found

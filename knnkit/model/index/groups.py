"""Groups of near training rows, for models with many rows.

k-means (Lloyd 1982) makes the groups from rows rounded to whole multiples of a step: float32 adds whole numbers under
2^24 exactly, in any order, so the groups are the same on every machine. A search reads only groups whose lower bound on
the distance is small enough. A sample of queries measures how many rows are then read; a model gets groups only if
these are few. NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.row_groups import NO_SIDE, PARTS, Groups
from knnkit.model.index.cost_sample import Sample, WeightedRows
from knnkit.model.reference.space import Float32

#: Metrics whose distances are those of the product.
_METRICS = ("euclidean", "sqeuclidean", "cosine")
#: Fewest training rows for which groups pay.
LEAST_ROWS = 100_000
#: Most share of the training rows that a query may have to read.
_WORTH = 0.3
#: Most steps from the centre of the space to a row's coordinate; sums of squares and products stay within 2^24.
_STEPS, _WHOLE = 4096, 1 << 24
#: Range of steps that are far from the ends of float32.
_RANGE = (1e-30, 1e30)
#: Most groups (the sides grow with their square), rows of the sample for each, rounds of k-means.
_MOST, _EACH, _ROUNDS = 1024, 32, 6
#: Scores, and float64 numbers, at a time.
_SCORES, _NUMBERS = 1 << 22, 1 << 18


def find_groups(sample: Sample) -> Groups | None:
    """Returns groups of the training rows; None if there are few rows, or groups would not make the search faster."""
    count = len(sample.enrolled)
    if sample.space.metric not in _METRICS or count < LEAST_ROWS or sample.k >= count // 2:
        return None
    rows = WholeRows(sample.rows)
    if not _RANGE[0] < rows.step < _RANGE[1]:
        return None
    groups = make_groups(rows, min(_MOST, math.isqrt(count)))
    nearest = np.sqrt(sample.kth.clip(0.0)) * (1.0 + 1e-9)
    read = ((groups.bounds(sample.queries) <= nearest) * groups.sizes).sum(axis=1)
    return groups if float(read.mean()) <= _WORTH * count else None


class WholeRows:
    """The training rows as float32 whole numbers: multiples of one step.

    Args:
        rows: the training rows, with each coordinate times its `Space.scale`.

    Attributes:
        step: size of a step, in units of model space.
    """

    def __init__(self, rows: WeightedRows) -> None:
        self._rows = rows
        self.count, self.width = rows.enrolled.shape
        most = max(1, min(_STEPS, math.isqrt(_WHOLE // self.width)))
        parts = rows.parts(max(1, _NUMBERS // self.width))
        self.step = (max(float(np.abs(part).max()) for _, part in parts) or 1.0) / most

    def take(self, chosen: NDArray[np.int64] | slice) -> tuple[Float32, float]:
        """Returns the chosen rows as multiples of `step`, and how far, in steps, rounding moved any of them at most."""
        exact = self._rows.take(chosen) / self.step
        whole = np.rint(exact)
        left = np.einsum("ij,ij->i", exact - whole, exact - whole)
        return whole.astype(np.float32), math.sqrt(float(left.max(initial=0.0)))

    def parts(self, rows: int) -> Iterator[tuple[slice, Float32]]:
        """Yields (slice of row indices, rows as multiples of `step`) for consecutive parts of at most `rows` rows."""
        for start in range(0, self.count, rows):
            yield slice(start, start + rows), self.take(slice(start, start + rows))[0]


def make_groups(rows: WholeRows, most: int) -> Groups:
    """Returns at most `most` groups of the rows, with the numbers that bound a query's distance to each group."""
    centres = _centres(rows, most)
    own = np.empty(rows.count, np.int64)
    for part, whole in rows.parts(max(1, _SCORES // len(centres))):
        own[part] = _nearest(whole, centres)
    sizes = np.bincount(own, minlength=len(centres))
    order = np.argsort(own, kind="stable").astype(np.int32)
    centres, sizes = centres[sizes > 0], sizes[sizes > 0]
    ends = np.cumsum(sizes)
    squares = np.einsum("ij,ij->i", centres, centres).astype(np.float64)
    gaps = squares[:, np.newaxis] - 2.0 * (centres @ centres.T).astype(np.float64) + squares
    radii, sides, error = np.empty(len(centres)), np.empty(gaps.shape, np.int16), 0.0
    for number, (end, size) in enumerate(zip(ends, sizes)):
        whole, moved = rows.take(order[end - size : end].astype(np.int64))
        error = max(error, moved)
        products = (whole @ centres.T).astype(np.float64)
        lengths = np.einsum("ij,ij->i", whole, whole).astype(np.float64)
        apart = lengths - 2.0 * products[:, number] + squares[number]
        radii[number] = math.ceil(math.sqrt(float(apart.max())))
        along = (products - products[:, number, np.newaxis]).max(axis=0)
        reach = np.ceil(PARTS * along / np.sqrt(np.maximum(gaps[number], 1.0)) + 1e-3)
        sides[:, number] = np.where(gaps[number] > 0.0, reach, NO_SIDE)
    error = math.ceil(error * 1024.0 + 1e-3) / 1024.0
    return Groups(rows.step, error, centres.astype(np.float64), radii, sides, order, sizes, squares)


def _centres(rows: WholeRows, most: int) -> Float32:
    """Returns (g, p) float32 whole numbers, the means of at most `most` groups of a sample of the rows."""
    chosen = np.random.default_rng(0).permutation(rows.count)[: _EACH * most]
    sample, _ = rows.take(chosen)
    centres = sample[:most].copy()
    for _ in range(_ROUNDS):
        own = np.concatenate([_nearest(part, centres) for part in np.array_split(sample, _EACH)])
        sizes = np.bincount(own, minlength=len(centres))
        order = np.argsort(own, kind="stable")
        starts = np.cumsum(sizes)[sizes > 0] - sizes[sizes > 0]
        sums = np.add.reduceat(sample[order].astype(np.float64), starts, axis=0)
        centres[sizes > 0] = np.rint(sums / sizes[sizes > 0, np.newaxis])
    found: Float32 = np.unique(centres, axis=0)
    return found


def _nearest(whole: Float32, centres: Float32) -> NDArray[np.int64]:
    scores = whole @ centres.T
    scores -= np.einsum("ij,ij->i", centres, centres) / 2
    found: NDArray[np.int64] = scores.argmax(axis=1)
    return found

"""Sample of the training rows for estimates of search cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knnkit.model.reference.float32_errors import relative_error, relative_gap
from knnkit.model.reference.space import Float32, Float64, Space

#: Rows of the sample, and training rows per block of work.
_SAMPLE, PART = 400, 2048
#: Costs per query, in multiply-adds of the product with all rows: keeping one candidate in the heap, ranking one of its
#: coordinates exactly; settling one row in float64, and each of the training values read for it. Measured with
#: tflite-runtime 2.14 (docs/decisions/007: 0.11 ms at 700 x 2, 0.20 at 1,797 x 64, 0.84 at 10,000 x 128).
CANDIDATE, EXACT = 6000.0, 30.0
_SETTLED, _SETTLED_EACH = 4e6, 25.0
#: Most candidates beyond k in a float32 search over all coordinates.
_MOST_BEYOND = 24
#: The number of candidates is SPARE times what the share SHARE of the sample needs; float64 settles other rows.
SPARE, SHARE = 1.25, 0.99
#: Most candidates: TOPK_V2 keeps them in a heap, which slows down as it grows.
MOST_CANDIDATES = 128


@dataclass(frozen=True)
class WeightedRows:
    """Float64 rows times `scale`, computed in parts: all at once would take twice the memory of the float32 rows."""

    enrolled: Float32
    scale: Float64

    def take(self, chosen: Any) -> Float64:
        """Returns the (m, p) float64 rows that an index array, a slice or a mask selects."""
        return np.asarray(self.enrolled[chosen].astype(np.float64) * self.scale)

    def parts(self, rows: int) -> Iterator[tuple[int, Float64]]:
        """Yields (index of the first row, (m, p) float64 rows) for parts of at most `rows` rows."""
        for start in range(0, len(self.enrolled), rows):
            yield start, self.take(slice(start, start + rows))


class Sample:
    """A random sample of the training rows, used as queries; no row is its own neighbour.

    Args:
        enrolled: (n, p) float32 training rows in model space.

    Attributes:
        rows: all training rows.
        chosen: (m,) int64 indices of the sampled rows.
        queries: (m, p) float64, the sampled rows.
    """

    def __init__(self, space: Space, enrolled: Float32, k: int) -> None:
        self.space, self.enrolled, self.k = space, enrolled, k
        self.rows = WeightedRows(enrolled, space.scale)
        self.chosen: NDArray[np.int64] = np.random.default_rng(0).permutation(len(enrolled))[:_SAMPLE]
        self.queries = self.rows.take(self.chosen)

    @cached_property
    def kth(self) -> Float64:
        """(m, 1) lower bounds on the squared distance from each sampled row to its k-th nearest other row."""
        # 1e-12 allows for the float64 rounding of the product form, about p * 2^-53 of the squared length.
        squares = (self.queries * self.queries).sum(axis=1)
        return np.asarray((self._nearest[:, self.k - 1] - 1e-12 * squares)[:, np.newaxis])

    def over_fetch(self) -> int:
        """Returns the number of candidates beyond k that makes a search cheapest, at least 2.

        If the last candidate may be as near as the k-th, within the error of float32 scores, float64 must search all
        rows. More candidates make such queries fewer, but take time themselves. With 2, a query whose k-th and next
        row are nearly tied needs only the candidates (docs/decisions/231).
        """
        count, width = self.enrolled.shape
        following = self._nearest[:, self.k :]
        doubtful = following <= self.kth * (1.0 + relative_gap(width)) + relative_error(width) * self.unit
        more = np.arange(1, following.shape[1] + 1) * (CANDIDATE + EXACT * width)
        cost = more + doubtful.mean(axis=0) * (_SETTLED + _SETTLED_EACH * count * width)
        return 2 + int(np.argmin(cost[1:]))

    @cached_property
    def _nearest(self) -> Float64:
        """(m, k + 1 or more) squared distances from each sampled row to its nearest other rows, ascending."""
        count = min(self.k + _MOST_BEYOND, len(self.enrolled) - 1)
        nearest = np.full((len(self.chosen), count), np.inf)
        for start, part in self.rows.parts(PART):
            squared = squared_distances(self.queries, part)
            inside = np.flatnonzero((self.chosen >= start) & (self.chosen < start + len(part)))
            squared[inside, self.chosen[inside] - start] = np.inf  # no row is its own neighbour
            nearest = np.partition(np.concatenate([nearest, squared], axis=1), count - 1, axis=1)[:, :count]
        return np.sort(nearest, axis=1)

    @cached_property
    def unit(self) -> Float64:
        """(m, 1) upper bounds on (‖x‖ + reach)² for sampled queries x; float32 errors are relative to these.

        `reach` is the length of the longest training row; the bound is 2 (‖x‖² + reach²).
        """
        squares = (self.queries * self.queries).sum(axis=1, keepdims=True)
        return np.asarray(2.0 * (squares + self.space.reach**2))


def squared_distances(some: Float64, others: Float64) -> Float64:
    """Returns the (n, m) squared distances between n and m rows, as ‖x‖² - 2 x·t + ‖t‖² in float64: not exact."""
    lengths = [(each * each).sum(axis=1) for each in (some, others)]
    return np.asarray(lengths[0][:, np.newaxis] - 2.0 * some @ others.T + lengths[1])

"""A sample of the training rows, by which it is told what a cheaper search for their neighbours would take.

Plain numpy in float64; knows nothing of how candidates are searched.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knnkit.model.reference.space import Float32, Float64, Space, relative_error

#: Rows of the sample, and training rows that are looked at at a time.
_SAMPLE, PART = 400, 8192
#: Work for a row, counted in multiplications of a product with all rows: to keep a candidate among the best, and to
#: rank one of its coordinates exactly; a row that float64 settles, and each number that it then looks at. Measured with
#: tflite-runtime 2.14; see docs/decisions.
CANDIDATE, EXACT = 6000.0, 30.0
_SETTLED, _SETTLED_EACH = 4e6, 25.0
#: Candidates beyond k at most, where scores are those of the rows themselves.
_MOST_BEYOND = 8
#: Candidates: by so much more than this share of the sample needs. A row that needs more is settled in float64.
SPARE, SHARE = 1.25, 0.99
#: Candidates at most: TOPK_V2 keeps a heap of them.
MOST_CANDIDATES = 128


@dataclass(frozen=True)
class WeightedRows:
    """Rows after `scale`, in float64, a few at a time: all of them would take twice the memory of the rows."""

    enrolled: Float32
    scale: Float64

    def take(self, chosen: Any) -> Float64:
        """Returns the rows that an index, a slice or a mask chooses."""
        return np.asarray(self.enrolled[chosen].astype(np.float64) * self.scale)

    def parts(self, rows: int) -> Iterator[tuple[int, Float64]]:
        """Yields all rows, at most `rows` at a time, each part with the number of its first."""
        for start in range(0, len(self.enrolled), rows):
            yield start, self.take(slice(start, start + rows))


class Sample:
    """Some of the training rows, as queries that have not met themselves.

    Args:
        space: of the rows.
        enrolled: (n, p) float32 rows in it.
        k: neighbours that will be asked for.
        seed: of the choice.

    Attributes:
        rows: all training rows.
        chosen: (m,) which of them are in the sample.
        asked: (m, p) those rows.
    """

    def __init__(self, space: Space, enrolled: Float32, k: int, *, seed: int = 0) -> None:
        self.space, self.enrolled, self.k = space, enrolled, k
        self.rows = WeightedRows(enrolled, space.scale)
        self.chosen: NDArray[np.int64] = np.random.default_rng(seed).permutation(len(enrolled))[:_SAMPLE]
        self.asked = self.rows.take(self.chosen)

    @cached_property
    def kth(self) -> Float64:
        """(m, 1) squared distances of the k-th nearest other rows, less what float64 blurs of them."""
        squares = (self.asked * self.asked).sum(axis=1)
        return np.asarray((self._nearest[:, self.k - 1] - 1e-12 * squares)[:, np.newaxis])

    def over_fetch(self) -> int:
        """Returns how many candidates beyond k cost least, with the rows that they leave in doubt.

        A row is in doubt where the last candidate may be as near as the k-th, as far as scores in float32 tell; where
        the one after the k-th is as near in truth, no candidate helps.
        """
        count, width = self.enrolled.shape
        told = relative_error(width)
        last, following = self.kth * (1.0 + 8.0 * told), self._nearest[:, self.k :]
        doubtful = (following <= last + told * self.unit) & (following[:, :1] > last)
        more = np.arange(1, following.shape[1] + 1) * (CANDIDATE + EXACT * width)
        return 1 + int(np.argmin(more + doubtful.mean(axis=0) * (_SETTLED + _SETTLED_EACH * count * width)))

    @cached_property
    def _nearest(self) -> Float64:
        """(m, k + 1 or more) squared distances of the nearest other rows, ascending."""
        count = min(self.k + _MOST_BEYOND, len(self.enrolled) - 1)
        nearest = np.full((len(self.chosen), count), np.inf)
        for start, part in self.rows.parts(PART):
            squared = self.others(start, squared_distances(self.asked, part))
            nearest = np.partition(np.concatenate([nearest, squared], axis=1), count - 1, axis=1)[:, :count]
        return np.sort(nearest, axis=1)

    @cached_property
    def unit(self) -> Float64:
        """(m, 1) what rounding errors of a squared distance are relative to: twice the squares of both lengths."""
        squares = (self.asked * self.asked).sum(axis=1, keepdims=True)
        return np.asarray(2.0 * (squares + self.space.reach**2))

    def others(self, start: int, measures: Float64) -> Float64:
        """Sets the measure of each sampled row from itself to infinity, in a part that begins with row `start`."""
        inside = np.flatnonzero((self.chosen >= start) & (self.chosen < start + measures.shape[1]))
        measures[inside, self.chosen[inside] - start] = np.inf
        return measures


def squared_distances(some: Float64, others: Float64) -> Float64:
    """Returns the (n, m) squared distances, as far as float64 has them."""
    lengths = [(each * each).sum(axis=1) for each in (some, others)]
    return np.asarray(lengths[0][:, np.newaxis] - 2.0 * some @ others.T + lengths[1])

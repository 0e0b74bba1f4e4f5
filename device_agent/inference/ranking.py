"""Ranks pairs of queries and training rows by exact measures.

Rounded sums rule out most pairs; exact sums (`rounded`) order the others by (measure, row). Needs only NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.inference.mapped_rows import MappedRows
from device_agent.inference.measures import Measure
from device_agent.inference.rounded import add_few, add_rows
from device_agent.inference.ties import order_few, share_ties

Float64 = NDArray[np.float64]

_CHUNK_BYTES = 4 << 20  # of float64 differences of one query at a time
#: Of those of many pairs: the temporary arrays stay in the cache, and in memory that the process has already.
_PAIRS_BYTES = 1 << 19
#: NumPy adds pairwise, so a sum of p terms is off by less than (16 + log2 p) 2^-53 of itself: far less than 2^-40.
NEAR_TIED = 1.0 + 2.0**-40
#: Roots, sums and squares of a few rounded measures are off by less.
_APART = 1.0 + 2.0**-36
#: Rows beyond k that are added up exactly at once; more are first left out by rounded sums.
_MORE = 16
#: So few terms are added exactly before it is known which rows count.
_FEW_TERMS = 512
#: So few terms BLAS adds faster, in one thread. In any order, the sum of p terms is off by less than p 2^-53 of itself.
_BY_PRODUCT = 4096


class Ranking:
    """Finds the k nearest of given training rows.

    Args:
        by: the measure, a power of the distance.
        tied: distances in model space closer than this are ties.
    """

    def __init__(self, rows: MappedRows, by: Measure, k: int, tied: float) -> None:
        self._rows, self._by, self._k, self._tied = rows, by, k, tied
        self._ones = np.ones(rows.blocks[0].shape[1])

    def rank(
        self, z: Float64, query: NDArray[Any], row: NDArray[Any], known: Float64 | None = None
    ) -> tuple[NDArray[Any], Float64]:
        """Returns the (q, k) indices of the nearest training rows among given pairs, and their (q, k) measures.

        A measure is a power of the distance.

        Args:
            z: (q, p) queries.
            query: (m,) query of each pair, ascending; at least k pairs of each query.
            row: (m,) training row of each pair.
            known: (m,) exact measures of the pairs; None: not known yet.
        """
        k = self._k
        if known is None and len(query) > len(z) * (k + _MORE):
            rough = self.measure(z, query, row, lambda terms: np.asarray(terms.sum(axis=1)))
            kth = rough[np.lexsort((rough, query))][np.searchsorted(query, np.arange(len(z))) + k - 1]
            near = np.flatnonzero(rough <= (self._by.and_ties(kth) * NEAR_TIED)[query])
            query, row = query[near], row[near]
        measure = self.measure(z, query, row, add_rows) if known is None else known
        measure[measure <= self._by.exact_match] = 0.0
        order = np.lexsort((row, measure, query))
        query, row, measure = query[order], row[order], measure[order]
        if self._tied > 0.0:
            row, measure = share_ties(query, row, measure, self._by.to_distance(measure), k, self._tied)
        place = np.searchsorted(query, np.arange(len(z)))[:, np.newaxis] + np.arange(k)
        return row[place], measure[place]

    def in_order(self, z: NDArray[Any], rows: list[int], count: int) -> list[float] | None:
        """Checks that the first `count` of the training rows `rows` are the nearest to one (1, p) query, in this order.

        The order is that of (measure, row); a measure is a power of the distance. Returns for each of the first rows
        the measure beyond which a row surely comes after it. Returns None if the order is another, if a row is twice
        among the first, or if rows at different distances are tied. None of `rows` may be a taught row.
        """
        terms = self._by.terms(z, self._rows.take_few(rows))
        product = terms.size <= _BY_PRODUCT
        found: list[float] = (terms.dot(self._ones) if product else np.add.reduce(terms, axis=1)).tolist()
        first, tied = found[:count], self._by.tied
        after = [(math.sqrt(each) + tied) ** 2 * _APART if tied else each * NEAR_TIED for each in first]
        for at in range(1, len(rows)):
            before = at - 1 if at < count else count - 1
            if not found[at] > after[before]:
                one, two = ((math.fsum(terms[each].tolist()), rows[each]) for each in (before, at))
                if tied or not one < two:
                    return None
        return after

    def rank_one(self, z: NDArray[Any], row: NDArray[Any]) -> tuple[list[int], list[float]]:
        """Returns the k nearest of the training rows `row` to one (1, p) query, and their exact measures.

        A measure is a power of the distance. `row` has at least k different rows. Calls NumPy less often than `rank`.
        """
        k = self._k
        if 8 * z.size * len(row) <= _CHUNK_BYTES:
            terms = self._by.terms(z, self._rows.take(row))
            if terms.size > _FEW_TERMS:
                rough = terms.sum(axis=1)
                near = (rough <= float(self._by.and_ties(sorted(rough.tolist())[k - 1])) * NEAR_TIED).nonzero()[0]
                terms, row = terms[near], row[near]
            if len(row) <= k + _MORE:
                few = add_few(terms) if terms.size <= _FEW_TERMS else add_rows(terms).tolist()
                return order_few(few, row.tolist(), k, self._by.exact_match, self._tied, self._by.to_distance)
        order, measure = self.rank(z, np.zeros_like(row), row)
        return order[0].tolist(), measure[0].tolist()

    def measure(self, z: Float64, query: NDArray[Any], row: NDArray[Any], add: Callable[[Float64], Float64]) -> Float64:
        """Returns the (m,) measures (powers of distances) of m pairs of a `query` in `z` and a `row`.

        `add` sums (r, p) terms of r pairs to (r,) measures.
        """
        found = np.empty(len(query))
        step = max(1, _PAIRS_BYTES // (8 * z.shape[1]))
        for start in range(0, len(query), step):
            chosen = slice(start, start + step)
            found[chosen] = add(self._by.terms(z[query[chosen]], self._rows.take(row[chosen])))
        return found

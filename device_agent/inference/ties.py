"""Ties of neighbours whose distances have rounding errors.

Distances that differ by no more than their rounding errors count as equal; the lowest index then comes first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

#: Ties form chains; the chain of the k-th neighbour ends this many times their width beyond it.
CHAIN = 8


def share_ties(
    query: NDArray[np.int64], row: NDArray[np.int64], measure: Float64, base: Float64, k: int, tied: float
) -> tuple[NDArray[np.int64], Float64]:
    """Sorts tied rows by index, and gives each the least measure of its tie; returns (m,) rows and (m,) measures.

    The m pairs of query and row are sorted by (query, measure). Rows are tied if their distances `base` form a chain in
    which each differs from the next by at most `tied`.
    """
    begin = np.flatnonzero(np.diff(query, prepend=-1))
    last = np.repeat(base[begin + k - 1], np.diff(begin, append=len(query)))
    apart = (np.diff(base) > tied) | (base[1:] > last[1:] + CHAIN * tied) | (np.diff(query) > 0)
    group = np.append(0, np.cumsum(apart))
    first = np.append(0, np.flatnonzero(apart) + 1)[group]
    return row[np.lexsort((row, group))], measure[first]

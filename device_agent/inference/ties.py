"""Ties of neighbours whose distances have rounding errors.

Distances that differ by no more than their rounding errors count as equal; the lowest index then comes first.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

#: Ties form chains. The chain of the k-th neighbour ends this many times `tied`, the widest gap of a tie, beyond it.
CHAIN = 8


def share_ties(
    query: NDArray[np.int64], row: NDArray[np.int64], measure: Float64, base: Float64, k: int, tied: float
) -> tuple[NDArray[np.int64], Float64]:
    """Sorts tied rows by index, and gives each the least measure among them; returns (m,) rows and (m,) measures.

    A measure is a power of the distance. The m pairs of query and row are sorted by (query, measure). Rows are tied if
    their (m,) distances `base` form a chain in which each differs from the next by at most `tied`. The chain of the
    k-th row ends `CHAIN` * `tied` beyond this row.
    """
    begin = np.flatnonzero(np.diff(query, prepend=-1))
    last = np.repeat(base[begin + k - 1], np.diff(begin, append=len(query)))
    apart = (np.diff(base) > tied) | (base[1:] > last[1:] + CHAIN * tied) | (np.diff(query) > 0)
    group = np.append(0, np.cumsum(apart))
    first = np.append(0, np.flatnonzero(apart) + 1)[group]
    return row[np.lexsort((row, group))], measure[first]


def order_few(
    measure: list[float], row: list[int], k: int, zero: float, tied: float, to_distance: Callable[[Float64], Float64]
) -> tuple[list[int], list[float]]:
    """Returns the indices of the k nearest of few rows, and their measures, as Python numbers.

    `measure` and `row` are the measures (powers of distances) and indices of the rows, in any order. Measures up to
    `zero` count as 0. Tied rows are sorted by index, and get the least measure among them. Rows are tied if their
    distances (from `to_distance`) form a chain in which each differs from the next by at most `tied` (`share_ties`).
    """
    if zero > 0.0:
        measure = [each if each > zero else 0.0 for each in measure]
    pairs = sorted(zip(measure, row))
    if tied > 0.0:
        base = to_distance(np.array([each for each, _ in pairs])).tolist()
        begin, last = 0, base[k - 1] + CHAIN * tied
        for end in range(1, len(pairs) + 1):
            if end == len(pairs) or base[end] - base[end - 1] > tied or base[end] > last:
                pairs[begin:end] = sorted((pairs[begin][0], number) for _, number in pairs[begin:end])
                begin = end
    return [number for _, number in pairs[:k]], [each for each, _ in pairs[:k]]

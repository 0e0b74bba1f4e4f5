"""Finds training rows that may be nearest, group by group.

Reads only groups of training rows that may hold a neighbour: `shared.row_groups` gives a lower bound on the distance to
each group. Reads the nearest groups first, until the k-th best score excludes all others. A query that would read more
than a quarter of all rows is searched as in `block_search` instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.inference.block_search import BlockSearch, Float32, Float64, Scale
from device_agent.inference.mapped_rows import MappedRows
from device_agent.shared.row_groups import Groups as Groups

#: Rows of the first groups, and how many times as many follow each time.
_FIRST, _GROWTH, _MOST = 1024, 4, 1 << 16
#: More than this share of all rows takes longer, gathered, than all rows in their order.
_SHARE = 0.25
#: Bounds are compared with distances that float64 has rounded a few times.
_ROUNDED = 1.0 + 2.0**-40


class GroupSearch(BlockSearch):
    """Searches the groups of training rows of one model in float32.

    Args:
        rows: the training rows in model space (the metric is not manhattan), minus a fixed row, as all queries are.
        weights: (p,) float64, multiplies the difference in each coordinate.
        step: all weighted coordinates of the rows are whole multiples of this number; 0: no such number is known.
        and_ties: function from a measure (what orders neighbours) to the highest measure that counts as tied with it.
        groups: the groups of training rows.
        unit: the groups were computed from coordinates multiplied by `weights` and `unit`.
        threads: number of threads that share the blocks of rows of queries for which groups are of no use.

    Attributes:
        read: number of training rows whose scores were computed, summed over queries that groups answered.
    """

    def __init__(
        self,
        rows: MappedRows,
        weights: Float64,
        k: int,
        *,
        step: float,
        and_ties: Callable[[Any], Any],
        groups: Groups,
        unit: float,
        threads: int = 1,
    ) -> None:
        super().__init__(rows, weights, k, manhattan=False, step=step, and_ties=and_ties, threads=threads)
        self._groups, self._unit, self.read = groups, unit, 0
        self._ends = np.cumsum(groups.sizes)

    def _search(self, z: Float64, factors: Float32, scale: Scale) -> tuple[Any, Any, Any, Float32]:
        parts: list[tuple[Any, Any, Any]] = []
        rest: list[int] = []
        kth = np.empty(len(z), np.float32)
        bounds = self._groups.bounds(z * (self._weights * self._unit))
        for query in range(len(z)):
            found = self._visit(factors[query], scale.take([query]), bounds[query])
            if found is None:
                rest.append(query)
            else:
                row, score, kth[query] = found
                parts.append((np.full(len(row), query), row, score))
        if rest or not parts:
            place, row, score, kth[rest] = self._scan(factors[rest], scale.take(rest))
            parts.append((np.array(rest, np.int64)[place], row, score))
        queries, row, score = (np.concatenate(part) for part in zip(*parts, strict=True))
        order = np.argsort(queries, kind="stable")
        return queries[order], row[order], score[order], kth

    def _visit(self, factors: Float32, scale: Scale, bounds: Float64) -> tuple[Any, Any, np.float32] | None:
        """Returns (m,) indices of the rows that may be nearest to one query, their scores, and the k-th lowest score.

        A lower score is nearer. Returns None if the groups to read hold too many rows (`_SHARE`). Scores are computed
        from the (p,) `factors` of the query, and `scale` converts them into squared distances (`_prepare`). `bounds`
        are (g,) lower bounds of the distances from the query to the g groups.
        """
        order = np.argsort(bounds, kind="stable")
        bounds, ends = bounds[order], np.cumsum(self._groups.sizes[order])
        rows: list[Any] = []
        scores: list[Float32] = []
        best = np.empty(0, np.float32)
        kth, limit, left, begin, step = np.float32(np.inf), np.float32(np.inf), len(order), 0, max(_FIRST, self._k)
        while begin < left:
            seen = int(ends[begin - 1]) if begin else 0
            end = min(left, max(begin + 1, int(np.searchsorted(ends, seen + step, "right"))))
            row = np.concatenate([self._members(group) for group in order[begin:end].tolist()])
            score = self._halves[self._rows.positions(row)] - self._rows.take(row) @ factors
            near = np.flatnonzero(score <= limit)
            rows.append(row[near])
            scores.append(score[near])
            best = np.concatenate([best, scores[-1]])
            if len(best) >= self._k:
                best = np.partition(best, self._k - 1)[: self._k]
                kth = best.max()
                measure, limits = self._limit(kth[np.newaxis], scale)
                limit, reach = limits[0], np.sqrt(measure[0]) * (self._unit * _ROUNDED)
                left = int(np.searchsorted(bounds, reach, "right"))
                if left and ends[left - 1] > _SHARE * len(self._groups.rows) and end < left:
                    return None
            begin, step = end, min(_MOST, step * _GROWTH)
        self.read += int(ends[begin - 1])
        row, score = np.concatenate(rows), np.concatenate(scores)
        near = np.flatnonzero(score <= limit)
        return row[near], score[near], kth

    def _members(self, group: int) -> NDArray[np.int32]:
        return self._groups.rows[self._ends[group] - self._groups.sizes[group] : self._ends[group]]

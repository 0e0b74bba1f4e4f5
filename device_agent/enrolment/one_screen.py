"""Bound that leaves out far taught rows, for one query.

Bound, as in `screen`: a taught row t lies within r of the query x only if x·t - ‖t‖²/2 >= (‖x‖² - r²)/2. The tables
have -‖t‖²/2 after the coordinates of t, and the query has 1 after those of x, so one product gives the left side. For
cosine, x is not divided by its norm n: n stands in place of the 1, and the right side is multiplied by n. Makes few
NumPy calls, since these take longer than the arithmetic of one row. NumPy only, no I/O.

Rounding, for p coordinates, with u = 2^-24: the p + 1 products put the left side off by at most
(p + 4) u (‖x‖ ‖t‖ + ‖t‖²/2), for cosine n times that, and the right side is off by at most (p + 3) u ‖x‖²/2. For
cosine, both lengths are 1: (p + 4) u 3/2, and n, off by (p/2 + 2) u, adds as much again, because ‖t‖² + 1 - r² is at
most 2. All of that is less than (p + 16) u (‖x‖ + ‖t‖)²/2. A Manhattan distance, a sum of float32 differences, is off
by less than (p + 4) u times the sum of all |coordinates| of x and t, which is at most √p (‖x‖ + ‖t‖).
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.enrolment.screen import LEAST, MOST, UNIT

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Indices = NDArray[np.int64]

_NONE: Indices = np.empty(0, np.int64)


class Tables:
    """L taught rows, prepared for `OneScreen`; shared by all loaded copies of a model.

    Args:
        rows: (L, q) float64, in model space and weighted, at least one; for cosine, the model's centre is added again.
        width: number of coordinates to multiply: q; for cosine fewer, since all queries have 0 in the others.
        one_ball: whether queries are first compared with one ball around all taught rows.
        kind: "manhattan", "cosine", or "" for functions of the Euclidean distance.
    """

    def __init__(self, rows: Float64, width: int, one_ball: bool, kind: str) -> None:
        self.kind, self.width = kind, width
        centre = rows.mean(axis=0)
        radius = sqrt(((rows - centre) ** 2).sum(axis=1).max()) * (1.0 + 2.0**-36)
        self.reach = sqrt((rows * rows).sum(axis=1).max())
        with np.errstate(over="ignore"):  # `OneScreen` leaves such sizes alone
            #: (table, radius) of the products, in order: no taught row is near where one of them reaches nothing.
            self.passes = [(self._scored(centre[np.newaxis]), radius)] if one_ball else []
            if kind == "manhattan":
                self.rows = rows.astype(np.float32)
            else:
                self.passes.append((self._scored(rows), 0.0))

    def _scored(self, rows: Float64) -> Float32:
        return np.vstack([rows.T[: self.width], (rows * rows).sum(axis=1) / -2]).astype(np.float32)


class OneScreen:
    """Finds the taught rows near one row. Has memory of its own, so it serves one thread.

    Args:
        coordinates: function from one query to its (width,) approximate coordinates in model space, weighted; for
            cosine, not divided by their norm.
    """

    def __init__(self, tables: Tables, coordinates: Callable[[Float32], NDArray[Any]]) -> None:
        self._of_row, self._kind, self._reach = coordinates, tables.kind, tables.reach
        self._query = np.ones(tables.width + 1, np.float32)
        self._coordinates = self._query[:-1]
        self._passes = [(table, np.empty(table.shape[1], np.float32), radius) for table, radius in tables.passes]
        unit = (tables.width + 16) * UNIT
        self._error = unit / (1.0 - unit) ** 2
        if tables.kind == "manhattan":
            self._rows, self._sums = tables.rows, np.empty(len(tables.rows), np.float32)
            self._terms, self._ones = np.empty_like(tables.rows), np.ones(tables.width, np.float32)

    def near(self, row: Float32, limit: float) -> Indices | None:
        """Returns the indices of the taught rows that may be within the distance `limit` of one (n_features,) row.

        Returns None (unknown) if `row` or the taught rows are so long or so short that float32 cannot hold the squares.
        """
        found, norm = self._of_row(row), 1.0
        with np.errstate(over="ignore"):  # NumPy 2 warns
            square = float(found.dot(found))
        if self._kind == "cosine":
            if not LEAST < square < MOST:
                return None
            self._query[-1] = norm = sqrt(square)
            square = 1.0
        length = sqrt(square) + self._reach
        size, scores, least = length * length, self._query, 0.0
        if not LEAST < size < MOST:
            return None
        self._coordinates[:] = found
        for table, scores, radius in self._passes:
            self._query.dot(table, scores)
            within = limit + radius
            least = norm * max(square - within * within - self._error * size, -4.0 * MOST) / 2
            if scores.item(scores.argmax()) < least:
                return _NONE
        return self._by_differences(limit, length) if self._kind == "manhattan" else (scores >= least).nonzero()[0]

    def _by_differences(self, limit: float, length: float) -> Indices:
        terms, sums = np.subtract(self._rows, self._coordinates, out=self._terms), self._sums
        np.abs(terms, out=terms).dot(self._ones, sums)
        most = limit + self._error * sqrt(len(self._ones)) * length
        return _NONE if sums.item(sums.argmin()) > most else (sums <= most).nonzero()[0]

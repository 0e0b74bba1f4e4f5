"""Float32 bound that leaves out far taught rows.

One float32 product of queries and taught rows gives a bound below each distance, with a proven error. A few balls, one
for each label, first leave out queries that are far from all taught rows. For metrics that are functions of the
Euclidean distance. NumPy only, no I/O.

Bound: a row t lies within r of a query x only if x·t - ‖t‖²/2 >= (‖x‖² - r²)/2. With u = 2^-24, a sum of p products,
added in any order, is off by at most p u ‖x‖ ‖t‖ (Higham 2002, 3.5); with the rounding of x, t, ‖x‖² and ‖t‖²/2, both
sides together are off by less than (p + 8) u (‖x‖ + ‖t‖)²/2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Indices = NDArray[np.int64]

#: Share by which a float32 value is off at most after one operation.
UNIT = 2.0**-24
#: Beyond these (squared) lengths, float32 squares may overflow or underflow.
LEAST, MOST = 1e-25, 1e25
#: Most balls: one for each label, and one for all others.
_BALLS = 8


class _Rows:
    """Rows, or balls around them, that are compared with queries.

    Args:
        rows: (r, p) float64, in model space and weighted.
        radius: (r,) radius of the ball around each row; 0.0: there are no balls.
    """

    def __init__(self, rows: Float64, radius: Any = 0.0) -> None:
        squares = np.einsum("ij,ij->i", rows, rows)
        self._reach, self._radius = float(np.sqrt(squares.max())), radius
        with np.errstate(over="ignore"):  # `sizes` tells which queries do not fit then
            self._rows, self._halves = rows.astype(np.float32), (squares / 2).astype(np.float32)
        unit = (rows.shape[1] + 16) * UNIT
        self._error = unit / (1.0 - unit) ** 2

    def sizes(self, squares: Any) -> Any:
        """Returns (‖x‖ + ‖t‖)² for queries x of squared length `squares` and the longest row t; errors grow with it."""
        return (squares**0.5 + self._reach) ** 2

    def near(self, queries: Float32, squares: Float64, limit: Float64) -> NDArray[np.bool_]:
        """Returns (n, r) bool: whether each row (or its ball) may be at most (n,) `limit` away from each query."""
        within = limit[:, np.newaxis] + self._radius
        least = (squares - self._error * self.sizes(squares))[:, np.newaxis] - within * within
        scores = queries @ self._rows.T
        scores -= self._halves
        return np.asarray(scores >= (least / 2).astype(np.float32))  # the error has room for this rounding, too


class Screen:
    """Finds the taught rows of one model that may be near queries.

    Args:
        rows: (L, p) float64, in model space and weighted; at least one.
        codes: (L,) class index of each row.
    """

    def __init__(self, rows: Float64, codes: NDArray[np.int32]) -> None:
        groups = np.minimum(np.unique(codes, return_inverse=True)[1].reshape(-1), _BALLS - 1)
        centres = np.array([rows[groups == group].mean(axis=0) for group in range(groups.max() + 1)])
        radius = np.zeros(len(centres))
        np.maximum.at(radius, groups, np.sqrt(((rows - centres[groups]) ** 2).sum(axis=1)))
        self._rows, self._balls = _Rows(rows), _Rows(centres, radius * (1.0 + 2.0**-36))

    def pairs(self, queries: NDArray[Any], limit: Float64) -> tuple[Indices, Indices]:
        """Returns two arrays of indices: the query (ascending) and the taught row of each pair that may be near.

        `queries` are (n, p) in model space and weighted; `limit` has the (n,) greatest distances, infinity for all
        rows.
        """
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            some, narrow, squares, strange = self._reached(queries, limit)
            near = self._rows.near(narrow[some], squares[some], limit[some])
        if strange.any():
            near[strange[some]] = True
        query, local = np.divmod(np.flatnonzero(near), near.shape[1])
        return some[query], local

    def reached(self, queries: NDArray[Any], limit: Float64) -> Indices:
        """Returns the indices of those (n, p) queries from which a taught row may be at most (n,) `limit` away."""
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            return self._reached(queries, limit)[0]

    def _reached(self, queries: NDArray[Any], limit: Float64) -> tuple[Indices, Float32, Float64, NDArray[np.bool_]]:
        """Returns the indices of those (n, p) queries from which a taught row may be at most (n,) `limit` away.

        Also returns the queries in float32, their (n,) squared lengths, and (n,) bool: whether a query is too long or
        too short for the float32 bound; such a query is always among the indices.
        """
        squares = np.einsum("ij,ij->i", queries, queries).astype(np.float64)
        size = self._rows.sizes(squares)
        strange = ~((size > LEAST) & (size < MOST))
        narrow = queries.astype(np.float32, copy=False)
        return np.flatnonzero(self._balls.near(narrow, squares, limit).any(axis=1) | strange), narrow, squares, strange

"""Groups of training rows, with distance bounds per group.

A model with many rows lists them in groups of rows that are near each other. For a query, one product with the groups'
centres gives a lower bound on the distance to all rows of each group. Groups that cannot hold a neighbour are skipped;
the search in the others is exact. The build measures whether groups save time. Needs only NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.record import record
from device_agent.shared.release.npz import require_form

Float64 = NDArray[np.float64]

#: Parts of a step in which `sides` are stored.
PARTS = 4
#: The entry in `sides` of two groups whose centres are equal: there is no direction from one to the other.
NO_SIDE = 2**15 - 1
#: Unit roundoff of float64; sums may be added in any order.
_UNIT = 2.0**-53
#: Dimensions and type of each array in the file.
_ARRAYS: dict[str, tuple[int, type[np.generic]]] = {
    **dict.fromkeys(("step", "error"), (0, np.floating)),
    **dict.fromkeys(("centres", "sides"), (2, np.signedinteger)),
    "radii": (1, np.floating),
    **dict.fromkeys(("rows", "sizes"), (1, np.signedinteger)),
}


@record
class Groups:
    """g groups of n training rows with p coordinates, in model space.

    A rounded row has whole multiples of `step` as coordinates. All lengths but `step` and `sides` are in steps.
    """

    step: float  # length of a step, in model space
    error: float  # greatest distance between a row and its rounded row
    centres: Float64  # (g, p) whole numbers
    radii: Float64  # (g,) greatest distance between a rounded row of a group and the group's centre
    #: (g, g) at [i, j]: how far the rounded rows of group j reach, from the origin of the space, in the direction from
    #: centre j to centre i; in units of 1 / `PARTS` step, rounded up.
    sides: NDArray[np.int16]
    rows: NDArray[np.int32]  # (n,) indices of the training rows, group after group, ascending in each
    sizes: NDArray[np.int64]  # (g,) number of rows of each group
    squares: Float64  # (g,) squared lengths of the centres

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], count: int, width: int) -> Groups:
        """Returns the groups in `arrays` (name -> array) for `count` training rows of `width` coordinates.

        Raises:
            ValueError: an array is missing or has another type or shape, or a row is in no group or in several.
        """
        for name, form in _ARRAYS.items():
            require_form(name, arrays[name], *form)
        rows, sizes = arrays["rows"], arrays["sizes"]
        groups = len(sizes)
        for name, shape in {"centres": (groups, width), "sides": (groups, groups), "radii": (groups,)}.items():
            if arrays[name].shape != shape:
                raise ValueError(f"array {name} has shape {arrays[name].shape}; {groups} groups need {shape}")
        if len(rows) != count or sizes.sum() != count or sizes.min(initial=1) < 1:
            raise ValueError(
                f"the groups have {len(rows)} rows and sizes of {sizes.sum()}; knn.json states {count} rows"
            )
        if rows.min(initial=0) < 0 or rows.max(initial=0) >= count or not (np.bincount(rows) == 1).all():
            raise ValueError("a training row is in no group, or in several")
        centres = arrays["centres"].astype(np.float64)
        squares = np.einsum("ij,ij->i", centres, centres)
        known = (centres, arrays["radii"], arrays["sides"], rows, sizes.astype(np.int64), squares)
        return cls(float(arrays["step"]), float(arrays["error"]), *known)

    def to_arrays(self) -> dict[str, Any]:
        """Returns the arrays to store in groups.npz, by name."""
        found = {name: np.asarray(getattr(self, name)) for name in _ARRAYS}
        return found | {"centres": self.centres.astype(np.int16), "sizes": self.sizes.astype(np.int32)}

    def bounds(self, queries: Float64) -> Float64:
        """Returns (q, g) lower bounds on the distance of (q, p) queries to any row of each group; some are negative.

        Each is the greater of two bounds. The first: all rows of a group are in a ball around its centre. For the
        second, let i be the centre nearest to the query. On the line through centres i and j, rows of group j reach at
        most `sides[i, j]` in the direction of i, and two points are at least as far apart as their projections on a
        line (Brin 1995, "Near neighbor search in large metric spaces"). Products of centres are sums of whole numbers,
        and exact. Products with the query are rounded: a bound on this error (Higham 2002, 3.5) is subtracted from
        each squared distance.
        """
        queries = queries / self.step
        products, squares = queries @ self.centres.T, self.squares
        own = np.einsum("ij,ij->i", queries, queries)[:, np.newaxis]
        lost = 4.0 * (queries.shape[1] + 8) * _UNIT * (own + squares.max())
        apart = np.maximum(own - 2.0 * products + squares - lost, 0.0)
        nearest = apart.argmin(axis=1)
        gaps = squares[nearest, np.newaxis] - 2.0 * (self.centres[nearest] @ self.centres.T) + squares
        along = products[np.arange(len(queries)), nearest, np.newaxis] - products - lost
        along /= np.sqrt(np.maximum(gaps, 1.0))
        sides = self.sides[nearest]
        along = np.where(sides == NO_SIDE, -np.inf, along - sides / PARTS)
        found = np.maximum(np.sqrt(apart) - self.radii, along) - self.error
        return np.where(np.isnan(found), -np.inf, found * self.step)

"""Scores of a float32 search, and how they become measures.

A score is what one pass over the training rows computes fastest; a measure is the squared distance, or the distance for
manhattan.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.record import record

Float64 = NDArray[np.float64]


@record
class Scale:
    """Converts the float32 scores of q queries into measures: squared distances, or distances for manhattan.

    measure = base + factor * score. The error is at most share * measure + factor * slack.
    """

    base: Float64  # (q,) float64, added to each measure of a query
    factor: float  # multiplies every score
    share: float  # relative part of the error bound, as a fraction of the measure
    slack: Float64  # (q,) absolute part of the error bound, in units of the score
    exact: Float64  # (q,) scores up to this value have no rounding error; -infinity if any score may have one

    def take(self, chosen: Any) -> Scale:
        """Returns this conversion of scores for the chosen queries only."""
        return Scale(self.base[chosen], self.factor, self.share, self.slack[chosen], self.exact[chosen])


@record
class Found:
    """Pairs of a query and a training row that may be among its k nearest, ascending by query."""

    query: NDArray[np.int64]  # (m,) index of the query of each pair
    row: NDArray[np.int64]  # (m,) index of the training row of each pair
    measure: Float64  # (m,) squared distance of each pair; the distance for manhattan
    exact: NDArray[np.bool_]  # (q,) bool, one per query: whether all measures of the query have no rounding error

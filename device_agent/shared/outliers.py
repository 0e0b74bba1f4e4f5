"""Local outlier factors of rows that were not trained on.

The factor compares the density around a row with the densities around its neighbours (Breunig et al. 2000,
doi.org/10.1145/342009.335388), like scikit-learn's LocalOutlierFactor(novelty=True). Host and device compute it from
distances rounded to float32, in a fixed order: both get the same bits. NumPy only; no I/O.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
#: What such a model answers: the factor (about 1 among others, above it outside), and 1 for an outlier, else 0.
TARGETS = ("outlier_factor", "is_outlier")
#: Keeps the density of rows that all coincide finite; scikit-learn adds the same.
_LEAST = 1e-10


class OutlierFactors:
    """Computes outlier factors from the densities around the training rows.

    Args:
        known: (n_train, 2) float64: of each training row, the distance of its k-th neighbour, and its local
            reachability density.
        offset: a row is an outlier if its factor is above -offset.
    """

    def __init__(self, known: Float64, k: int, offset: float) -> None:
        self._kth, self._density, self._k, self._most = known[:, 0], known[:, 1], k, -offset

    def values(self, answers: Any) -> Float64:
        """Returns (n, 2) float64: the outlier factor of each row, and 1 for an outlier, else 0.

        `answers` has the (n, k) `indices` and `distances` of the rows' neighbours.
        """
        near = answers.indices[:, : self._k]
        far = np.asarray(answers.distances[:, : self._k], np.float32).astype(np.float64)
        reach = _mean(np.maximum(far, self._kth[near])) + _LEAST
        factor = _mean(self._density[near]) * reach
        return np.stack([factor, (factor > self._most).astype(np.float64)], axis=1)


def _mean(values: Float64) -> Float64:
    return np.asarray(np.add.accumulate(values, axis=1)[:, -1] / values.shape[1])

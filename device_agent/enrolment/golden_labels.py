"""Labels of golden rows with taught rows.

The golden set lists the neighbours of each row that the float64 reference found. The taught rows are merged into these
lists, so no search is needed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from device_agent.enrolment.joined import JoinedExact
from device_agent.inference.tflite_knn import TfliteKNN
from device_agent.shared.enrolment.joined import Joined
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol import constants
from device_agent.shared.queries import check_rows, origin_of


def with_taught(signed: TfliteKNN, joined: Joined, golden: Golden) -> NDArray[np.int32]:
    """Returns (n,) int32 labels of the golden rows, answered by the model and the taught rows together.

    Raises:
        ModelUnusable: the model's exact tables are damaged.
    """
    labels = golden.label.copy()
    if not len(golden.rows) or not joined.rows:
        return labels
    info, exact = signed.info, JoinedExact(signed.path, signed.info, joined)
    rows = check_rows(golden.rows, info.feature_names, origin=origin_of(info.origin))
    indices = golden.indices[:, : info.k]
    kth = np.minimum(golden.distances[:, info.k - 1], np.finfo(np.float32).max).astype(np.float32)
    some, added = exact.candidates(rows, kth)
    if len(some):
        labels[some] = exact.among(rows[some], indices[some], kth[some], added)[constants.OUTPUT_LABEL]
    return labels


def changed(labels: NDArray[np.int32], golden: Golden) -> list[int]:
    """Returns the indices of the golden rows whose label changes because of taught rows."""
    found: list[int] = np.flatnonzero(labels != golden.label).tolist()
    return found

"""Golden rows answered with taught rows included.

For each row, the golden set lists the neighbours that the float64 reference found. The taught rows are merged into
these lists in float64, so no search among the training rows is needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.enrolment.joined import JoinedExact
from device_agent.inference.tflite_knn import Answers
from device_agent.shared import regression
from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.queries import check_rows, origin_of


def with_taught(exact: JoinedExact, golden: Golden) -> NDArray[Any]:
    """Returns the answers to n golden rows when the taught rows in `exact` vote, too: labels or (n, t) values.

    Raises:
        ModelUnusable: the model's exact tables are damaged.
    """
    found = golden.label.copy() if golden.values is None else golden.values.copy()
    if not len(golden.rows):
        return found
    info = exact.info
    rows = check_rows(golden.rows, info.feature_names, origin_of(info.origin))
    indices = golden.indices[:, : info.k]
    kth = np.minimum(golden.distances[:, info.k - 1], np.finfo(np.float32).max).astype(np.float32)
    near = exact.nearby(rows, kth)
    if len(near.some):
        outputs = exact.among(rows[near.some], indices[near.some], near)
        answers = Answers._make(outputs[name] for name in Answers._fields)
        found[near.some] = answers.label if exact.regressor is None else exact.regressor.values(answers)
    return found


def changed(found: NDArray[Any], golden: Golden, info: KnnInfo) -> list[int]:
    """Returns the indices of golden rows whose answer with taught rows, in `found`, differs from that in `golden`."""
    if info.targets is None or golden.values is None:
        places = found != golden.label
    else:
        places = regression.differ(found, golden.values, info.targets.spread)
    return [int(place) for place in np.flatnonzero(places)]

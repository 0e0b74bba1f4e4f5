"""Judges the rows that a device computes from raw inputs.

Processors run the stages with different kernels, so a device's row differs a little from the host's. Counts three
things separately: how far the rows are from the host's, whether the search on the device's own rows is exact, and
whether the labels agree. No runtime, no I/O.

Which labels must agree follows from the triangle inequality, which all distances here obey (`base_distance`). If a
row moves by s, each of its distances changes by at most s. Let d_1 <= d_2 <= ... be the host's distances, k the number
of neighbours:

- Row i stays a neighbour if at most k rows, including itself, have d_j <= d_i + 2s: no other can pass it.
- Row i can become a neighbour only if d_i <= d_k + 2s, since the new k-th distance is at most d_k + s.
- A vote is between w(d_i + s) and w(d_i - s), where the weight w(d) falls as d grows; a uniform vote is 1.

The first two rules divide the rows into sure neighbours, possible neighbours and others. Suppose that m neighbours are
sure. The label cannot change if the least votes of its sure neighbours exceed the most votes of any other class: those
of its sure neighbours, and of its k - m possible neighbours with the greatest weights. Nor can "unknown" appear or
disappear if d_k - s is above, or d_k + s at most, the label's threshold. s includes the row's tolerance, within which
the search may swap neighbours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol.constants import UNKNOWN
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.protocol.reports import EmbeddingCheck
from device_agent.shared.votes import base_distance, votes

Float64 = NDArray[np.float64]


def judge_embeddings(
    golden: Golden, info: KnnInfo, label: NDArray[np.int32], moved: Float64, wrong_search: int, margin: float
) -> EmbeddingCheck:
    """Compares the rows that a device computed from raw inputs with the host's rows; returns counts.

    Args:
        golden: the host's rows; each lists its k neighbours, and the rows that an allowed error could bring among them.
        info: knn.json of the model.
        label: (n,) the device's labels for its own rows.
        moved: (n,) distances in model space from the host's rows to the device's.
        wrong_search: number of the device's rows for which its search and float64 give different answers.
        margin: `Gates.margin` of the release; `golden.tolerance` contains it as a factor.
    """
    bound = 0.0 if info.input is None else info.input.bound
    unit = np.maximum(golden.tolerance / margin, np.finfo(np.float64).tiny)
    same = label == golden.label
    certain = np.array([is_certain(golden, info, row, shift, unit[row]) for row, shift in enumerate(moved.tolist())])
    return EmbeddingCheck(
        rows=len(moved),
        bound=bound,
        largest_error=float(np.minimum((moved / unit).max(initial=0.0), np.finfo(np.float32).max)),
        above=int((moved > bound * unit).sum()),
        search_different=wrong_search,
        labels_same=int(same.sum()),
        labels_open=int((~same & ~certain).sum()),
        labels_different=int((~same & certain).sum()),
    )


def is_certain(golden: Golden, info: KnnInfo, row: int, shift: float, unit: float) -> bool:
    """Whether golden row `row` must keep its label if it moves by `shift` in model space.

    `unit` is the row's `golden.tolerance` divided by `Gates.margin`; `Input.bound * unit` is the largest `shift` that a
    device is allowed.
    """
    bound = 0.0 if info.input is None else info.input.bound
    base = base_distance(golden.distances[row], golden.metric)
    base = base[np.isfinite(base)]
    k, s = info.k, shift + float(golden.tolerance[row])
    reach = base[k - 1] + 2.0 * max(bound * unit, float(golden.tolerance[row]))
    if len(base) >= k + MOST_LISTED:
        reach = min(reach, base[-1])
    if not base[k - 1] + 2.0 * s <= reach:  # another row could be a neighbour that the golden set does not list
        return False
    classes = golden.classes[row, : len(base)]
    label = int(np.argmax(votes(classes[None, :k], golden.distances[row : row + 1, :k], info)))
    sure = np.searchsorted(base, base + 2.0 * s, side="right") <= k
    possible = ~sure & (base <= base[k - 1] + 2.0 * s)
    least, most = _vote(base + s, info), _vote(np.maximum(base - s, 0.0), info)
    free, kept = k - int(sure.sum()), float(least[sure & (classes == label)].sum())
    for other in np.unique(classes[sure | possible]).tolist():
        own = classes == other
        heaviest = np.sort(most[possible & own])[::-1][:free].sum()
        if other != label and not kept > float(most[sure & own].sum() + heaviest):
            return False
    return _keeps_unknown(info, label, float(base[k - 1]), s, int(golden.label[row]) == UNKNOWN)


#: Neighbours after the k-th that a golden row lists at most (`knnkit.model.reference.classifier`).
MOST_LISTED = 512


def _vote(base: Float64, info: KnnInfo) -> Float64:
    """Returns the weights of votes of neighbours at the distances `base` in model space."""
    if info.weights == "uniform":
        return np.ones(len(base))
    power = 2.0 if info.metric in ("sqeuclidean", "cosine") else 1.0
    with np.errstate(divide="ignore"):
        found: Float64 = 1.0 / base**power
    return found


def _keeps_unknown(info: KnnInfo, label: int, kth: float, s: float, unknown: bool) -> bool:
    if info.reject is None:
        return True
    limit: Any = base_distance(np.array(info.reject.thresholds[label]), info.metric)
    return bool(kth - s > limit if unknown else kth + s <= limit)

"""Finds unscaled data that needs scaling.

`find` looks for one feature that dominates the distance, and measures whether scaling helps. Changes nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.constants import Metric, Scale, Weights
from knnkit.data.dataset import Dataset, drawn
from knnkit.evaluation.metrics import percent
from knnkit.model.reference.enrolment import encode
from knnkit.training import neighbours

#: Rows that are measured with and without scaling, and the distance terms of that.
_ASKED, _ASKED_WORK = 1000, 400_000_000
#: Fewer rows cannot show that scaling helps.
_FEWEST = 30


def find(training: Dataset, k: int, metric: Metric, weights: Weights) -> tuple[str, ...]:
    """Returns a warning if one feature dominates the metric and `scale: standard` gives clearly more right answers.

    Compares `scale: none` with `scale: standard` on training rows, by leave-one-out. "Clearly" means by three standard
    errors (McNemar's test), and by at least one row in a hundred. Returns () if there is nothing to warn of.
    """
    names, count = training.feature_names, min(len(training.rows), _ASKED, _ASKED_WORK // training.rows.size)
    if len(names) < 2 or k >= len(training.rows) or count < _FEWEST:
        return ()
    shares = _shares(training, metric)
    if shares.max() <= 0.5:
        return ()
    chosen = drawn(len(training.rows), count)
    plain, scaled = (_right(training, k, metric, weights, scale, chosen) for scale in ("none", "standard"))
    won, lost = int((scaled & ~plain).sum()), int((plain & ~scaled).sum())
    if won - lost < max(3.0 * np.sqrt(won + lost), 0.01 * count):
        return ()
    most, old, new = (percent(share) for share in (shares.max(), plain.mean(), scaled.mean()))
    return (
        f"{training.source}: {names[int(shares.argmax())]!r} makes {most} of the distance, and scale: "
        f"standard would raise the accuracy from {old} to {new} (each training row without "
        "itself). knnkit tune compares all settings; scale: none keeps this one",
    )


def _shares(training: Dataset, metric: Metric) -> NDArray[np.float64]:
    """Returns the (d,) share of each feature in the rows' distances from their mean: squared, if not manhattan."""
    rows, lengths = training.rows, np.ones(1)
    if metric == "cosine":
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
        lengths[lengths == 0.0] = 1.0
    columns = (column.astype(np.float64) / lengths for column in rows.T)  # one at a time: all take twice the memory
    off = (column - column.mean() for column in columns)
    spread = np.array([(np.abs(each) if metric == "manhattan" else each * each).mean() for each in off])
    return np.asarray(spread / (spread.sum() or 1.0))


def _right(
    training: Dataset, k: int, metric: Metric, weights: Weights, scale: Scale, chosen: NDArray[np.int64]
) -> NDArray[np.bool_]:
    codes = encode(training.labels)[1]
    lists = neighbours.leave_one_out(training.rows, scale, metric, k, chosen)
    return np.asarray(lists.vote(codes, weights) == codes[chosen])

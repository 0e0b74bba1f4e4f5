"""Records of a model's answers; votes on label columns.

A vote is counted in float64 where rounding of float32 distances could change it. In each function, `model` is a
`TfliteKNN`. Loads `shared/label_columns` only for a model that predicts several label columns at once (`targets` in
knn.json).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.queries import Origin, check_rows, origin_of


class Answers(NamedTuple):
    """The classifier's answers to n queries."""

    label: NDArray[np.int32]  # (n,) int32 class index; `constants.UNKNOWN` for a rejected row
    probabilities: NDArray[np.float32]  # (n, n_classes) float32 vote shares
    #: (n, k) int32 indices of the nearest rows: training rows have 0 to n_train - 1, taught rows follow.
    indices: NDArray[np.int32]
    distances: NDArray[np.float32]  # (n, k) float32, in the model's metric


class Voted(NamedTuple):
    """`Answers` of a model with t label columns."""

    label: NDArray[np.int32]
    probabilities: NDArray[np.float32]
    indices: NDArray[np.int32]
    distances: NDArray[np.float32]
    values: NDArray[np.float64]  # (n, t) positions of the winning labels in `Targets.classes`; NaN: rejected


def queries_of(info: KnnInfo, rows: ArrayLike, origin: Origin, *, cells: bool) -> NDArray[np.float32]:
    """Checks raw `rows`, and subtracts `origin`, a fixed row (None: nothing); returns (n, n_features) float32.

    With `cells`, a model with a `table` in knn.json also takes text and missing cells, and encodes them.

    Raises:
        BadInput: the rows have wrong columns, or a value that the model cannot read or that is not finite.
    """
    if cells and info.table is not None:
        from device_agent.shared.features.frames import encoded

        rows = encoded(info, rows)
    return check_rows(rows, info.feature_names, origin)


def with_votes(model: Any, rows: ArrayLike, answers: Answers) -> Answers:
    """Returns the model's `answers` to raw `rows`, with the winning label of each label column added (`Voted`).

    Raises:
        BadInput: the rows have wrong columns, or a value that the model cannot read or that is not finite.
        ModelUnusable: the exact tables in the model file are damaged.
    """
    exact = model.get_exact()
    assert exact.regressor is not None
    values, doubtful = exact.regressor.values(answers), exact.regressor.in_doubt(answers)
    if doubtful.any():
        queries = queries_of(model.info, rows, origin_of(model.info.origin), cells=model.takes_cells)[doubtful]
        found: Any = exact.order(queries, answers.indices[doubtful])
        parts = Answers(answers.label[doubtful], answers.probabilities[doubtful], *found)
        values[doubtful] = exact.regressor.values(parts)
    return Voted(*answers, values)  # type: ignore[return-value]


def shares_of(model: Any, answers: Answers) -> list[NDArray[np.float32]]:
    """Returns the vote shares of `answers` as a list with an (n, n_labels) float32 array for each label column."""
    from device_agent.shared.label_columns import Voter

    voter = model.get_exact().regressor
    assert isinstance(voter, Voter)
    return [part.astype(np.float32) for part in voter.shares(answers)]


def labels_of(model: Any, values: NDArray[np.float64]) -> NDArray[Any]:
    """Returns the (n, t) labels whose positions are `values`, as in `Voted`; "unknown" for NaN."""
    from device_agent.shared.label_columns import labels_of as labels

    assert model.info.targets is not None
    return np.array(labels(model.info.targets.classes, values), object).reshape(values.shape)

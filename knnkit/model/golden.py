"""Golden sets: query rows with the float64 reference's answers.

Uses held-out rows, so that the set also measures accuracy; without any, it uses training rows and claims no accuracy.
Loads no TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from device_agent.shared.golden.golden_set import Golden
from device_agent.shared.protocol.model_info import KnnInfo
from device_agent.shared.queries import row_type
from knnkit.data.dataset import Dataset, drawn_by_class
from knnkit.errors import DataError
from knnkit.model.built import BuiltModel
from knnkit.model.reference.enrolment import codes_of

#: Rows of each class in a golden set, if there are as many: enough to show that a class was forgotten.
_OF_EACH_CLASS = 30
#: Most rows of a golden set, where deploy.yaml names no number.
MAX_ROWS = 1000
#: Of one core of a Raspberry Pi 4: products, and sums of differences, a second; bytes read from memory a second.
_PRODUCTS, _DIFFERENCES, _BYTES = 3e9, 4e8, 2e9
#: Rows that the check answers one by one, and seconds that are worth a word.
_ALONE, _LONG = 300, 10.0


def make_golden(
    model: BuiltModel,
    held_out: Dataset | None,
    training: Dataset,
    *,
    seed: int = 0,
    limit: int = MAX_ROWS,
    raw: Callable[[Dataset], bytes] | None = None,
) -> Golden:
    """Returns the golden set of `model`: at most `limit` held-out rows (None: training rows), drawn by `draw_rows`.

    `raw` returns the raw inputs of rows (cells, sounds or pictures, from which the rows were computed) as JSON lines;
    None: the rows are the inputs themselves.

    Raises:
        DataError: the held-out rows do not have the features of the training rows, in the same order.
    """
    drawn = draw_rows(held_out, training, seed=seed, limit=limit)
    if drawn.feature_names != training.feature_names:
        raise DataError(f"{drawn.source}: its features differ from those of {training.source}, or are in another order")
    rows = drawn.rows.astype(row_type(model.info.origin))
    if model.info.input is not None:  # a device's own rows lie a little beside these
        model.reference.listed = model.info.input.bound
    answers = model.reference.answer(rows)
    codes = model.reference.classes
    classified = held_out is not None and drawn.targets is None
    return Golden(
        metric=model.info.metric,
        rows=rows,
        truth=codes_of(model.info.classes, drawn.labels) if classified else np.full(len(rows), -1, np.int32),
        label=answers.label,
        indices=answers.indices,
        distances=answers.distances,
        classes=np.where(answers.indices < 0, -1, codes[answers.indices]).astype(np.int32),
        tolerance=answers.tolerance,
        values=None if drawn.targets is None else model.reference.values(answers),
        targets=drawn.targets if held_out is not None or drawn.targets is None else np.full_like(drawn.targets, np.nan),
        raw=b"" if raw is None else raw(drawn),
        shares=answers.probabilities if model.reference.own.radius is not None else None,
    )


def long_check(info: KnnInfo, rows: int) -> tuple[str, ...]:
    """Returns a warning with the seconds that one Raspberry Pi 4 core needs for `rows` golden rows; () under 10 s."""
    numbers = float(info.n_train * info.n_features)
    one, many = 4 * numbers / _BYTES, rows * numbers / _PRODUCTS
    if info.metric == "manhattan" or info.float64 is not None:
        each = _DIFFERENCES / (8.0 if info.float64 is not None else 1.0)
        one, many = numbers / each, rows * numbers / each
    seconds = many + _ALONE * one
    if seconds < _LONG:
        return ()
    less = "; fewer take less time: model: {golden: {rows: 100}}" if rows > 100 else ""
    return (f"golden rows: {rows:,}; one core of a Raspberry Pi 4 checks them in about {seconds:.0f} s{less}",)


def draw_rows(held_out: Dataset | None, training: Dataset, *, seed: int = 0, limit: int = MAX_ROWS) -> Dataset:
    """Returns at most `limit` held-out rows (None: training rows) for the golden set, drawn from every class."""
    source = training if held_out is None else held_out
    each = min(_OF_EACH_CLASS, max(1, limit // max(1, len(np.unique(source.labels)))))
    return source.take(drawn_by_class(source.labels, limit, each, seed))

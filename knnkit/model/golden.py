"""Golden sets: query rows with the float64 reference's answers.

Uses held-out rows, so that the set also measures accuracy; without any, it uses training rows and claims no accuracy.
Loads no TensorFlow.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.golden.golden_set import Golden
from knnkit.data.dataset import Dataset
from knnkit.errors import DataError
from knnkit.model.build import BuiltModel

#: Most rows of a golden set.
MAX_ROWS = 1000


def make_golden(
    model: BuiltModel, held_out: Dataset | None, training: Dataset, *, seed: int = 0, limit: int = MAX_ROWS
) -> Golden:
    """Returns the golden set of `model` with at most `limit` rows.

    Raises:
        DataError: the held-out rows have other features than the training rows.
    """
    source = training if held_out is None else held_out
    if source.feature_names != training.feature_names:
        raise DataError(f"{source.source}: its features are not those of {training.source}, in the same order")
    chosen = np.arange(len(source.rows))
    if len(chosen) > limit:
        chosen = np.sort(np.random.default_rng(seed).permutation(len(chosen))[:limit])
    rows = source.rows[chosen]
    answers = model.reference.answer(rows)
    codes = model.reference.classes
    return Golden(
        metric=model.info.metric,
        rows=rows,
        truth=_truth(model, source.labels[chosen]) if held_out is not None else np.full(len(rows), -1, np.int32),
        label=answers.label,
        indices=answers.indices,
        distances=answers.distances,
        classes=np.where(answers.indices < 0, -1, codes[answers.indices]).astype(np.int32),
        tolerance=answers.tolerance,
    )


def _truth(model: BuiltModel, labels: NDArray[np.generic]) -> NDArray[np.int32]:
    # `7` is text beside a label of letters, and a number where they are not in the same file.
    places = {str(label): code for code, label in enumerate(model.info.classes)}
    texts = [str(label) for label in labels.tolist()]
    unseen = sorted(set(texts) - set(places))
    if unseen:
        raise DataError(
            f"the held-out rows have a label that no training row has: {unseen[0]!r}",
            hint="give the training set a row of that class, or leave it out of the held-out rows",
        )
    return np.array([places[text] for text in texts], dtype=np.int32)

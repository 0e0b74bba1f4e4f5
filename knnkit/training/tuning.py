"""Choice of k, metric, weights and scale.

`tune` measures every setting by leave-one-out over the training rows, or on the held-out rows. Never builds a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.constants import Metric, Scale, Weights
from device_agent.shared.regression import r_squared
from knnkit.data.dataset import Dataset, drawn
from knnkit.errors import DataError
from knnkit.evaluation.splits import LEAVE_ONE_OUT, groups_of
from knnkit.model.reference.enrolment import codes_of, encode
from knnkit.training import neighbours
from knnkit.training.neighbours import Lists
from knnkit.training.source import Material

Score = Literal["accuracy", "balanced_accuracy", "r_squared"]
SPLIT = "split"
#: Most distance terms (rows x training rows x features x searches), which is about a minute; but so many rows.
_WORK, _LEAST = 20_000_000_000, 500


@dataclass(frozen=True)
class Setting:
    """Parameters of a model that are tuned, except k."""

    scale: Scale
    metric: Metric
    weights: Weights


@dataclass(frozen=True)
class Curve:
    """The scores of one setting: `scores[i]` is the score with k = i + 1."""

    setting: Setting
    scores: tuple[float, ...]

    @property
    def best(self) -> int:
        """The smallest k with the highest score."""
        return int(np.argmax(self.scores)) + 1


@dataclass(frozen=True)
class Tuned:
    """The curves of all settings, the best first; they were measured on `rows` rows, drawn from `of` rows."""

    curves: tuple[Curve, ...]
    rows: int
    of: int

    def score(self, setting: Setting, k: int) -> float | None:
        """Returns the score of a setting with this k; None if it was not measured."""
        scores = next((each.scores for each in self.curves if each.setting == setting), ())
        return scores[k - 1] if k <= len(scores) else None

    def choose(self, setting: Setting, k: int) -> tuple[Setting, int]:
        """Returns the best setting and its k; the given setting and k if none has a higher score."""
        best = self.curves[0]
        own = self.score(setting, k)
        return (setting, k) if own is not None and own >= max(best.scores) else (best.setting, best.best)


def tune(
    material: Material,
    how: str,
    most: int,
    settings: Sequence[Setting],
    *,
    score: Score = "accuracy",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tuned:
    """Measures the settings for k = 1 to `most`, with one search for each scale and metric.

    Args:
        material: the training rows and held-out rows.
        how: `leave-one-out` over the training rows, or `split` for the held-out rows. If `split` in deploy.yaml names
            a column, a training row is left out together with all rows that have its value in that column.
        most: largest k; lowered to the number of rows that a row can be compared with.
        settings: the settings to measure.
        score: the measure by which settings are compared; a regression needs r_squared, labels any other. With several
            label columns, accuracy counts rows with all labels right, and balanced_accuracy is not defined.
        progress: called with (number of finished searches, number of all searches).

    Raises:
        DataError: there are no held-out rows, or no other rows to compare a row with.
    """
    training = material.training
    groups = groups_of(training)
    largest = 1 if groups is None else int(np.unique(groups, return_counts=True)[1].max())
    most = min(most, len(training.rows) - (largest if how == LEAVE_ONE_OUT else 0))
    if most < 1:
        one = "one row" if groups is None else "one group"
        raise DataError(f"{training.source}: with only {one}, no other rows are left to compare with", hint="add rows")
    searches = list(dict.fromkeys((each.scale, each.metric) for each in settings))
    asked, search, of = _measured(material, how, len(searches))
    classes = encode(training.labels)[0]
    known, truth = (rows.targets if score == "r_squared" else _codes(rows, classes) for rows in (training, asked))
    curves = []
    for done, (scale, metric) in enumerate(searches):
        progress(done, len(searches))
        lists = search(scale, metric, most)
        for each in settings:
            if (each.scale, each.metric) == (scale, metric):
                curves.append(Curve(each, tuple(_scores(lists, known, truth, each.weights, score))))
    progress(len(searches), len(searches))
    return Tuned(tuple(sorted(curves, key=lambda each: -max(each.scores))), len(asked.rows), of)


def settings_of(
    scales: Sequence[Scale], metrics: Sequence[Metric], weights: Sequence[Weights], now: Setting | None
) -> list[Setting]:
    """Returns all combinations, without `sqeuclidean` where `euclidean` gives the same answers (uniform weights).

    `now` is the setting of deploy.yaml, which always stays if it is among them.
    """
    found = [Setting(*each) for each in product(scales, metrics, weights)]
    twins = {Setting(scale, "sqeuclidean", "uniform") for scale in scales} if "euclidean" in metrics else set()
    return [each for each in found if each not in twins or each == now]


Search = Callable[[Scale, Metric, int], Lists]


def _measured(material: Material, how: str, searches: int) -> tuple[Dataset, Search, int]:
    """Returns m rows to answer, a function that finds their neighbours, and the count of all rows.

    The rows are held-out rows, or with `how` leave-one-out, training rows; few enough for `searches` searches.
    """
    training, held_out = material.training, material.held_out
    if how == LEAVE_ONE_OUT:
        chosen, rows, groups = _affordable(len(training.rows), training, searches), training.rows, groups_of(training)

        def search(scale: Scale, metric: Metric, most: int) -> Lists:
            if groups is None:
                return neighbours.leave_one_out(rows, scale, metric, most, chosen)
            return neighbours.leave_group_out(rows, groups, scale, metric, most, chosen)

        return training.take(chosen), search, len(rows)
    if held_out is None:
        raise DataError(f"{training.source}: no rows are held out", hint="test: 0.3, or --by leave-one-out")
    asked = held_out.take(_affordable(len(held_out.rows), training, searches))
    return (
        asked,
        lambda scale, metric, most: neighbours.among(training.rows, asked.rows, scale, metric, most),
        len(held_out.rows),
    )


def _affordable(count: int, training: Dataset, searches: int) -> NDArray[np.int64]:
    return drawn(count, max(_LEAST, _WORK // (training.rows.size * searches)))


def _scores(lists: Lists, known: Any, truth: Any, weights: Weights, score: Score) -> Iterator[float]:
    """Yields the score for each k; `lists` has the neighbours of the rows to answer.

    `known` are the targets of the training rows, or their class indices in each label column; `truth` those of the rows
    to answer.
    """
    if score == "r_squared":
        yield from (r_squared(values, truth, DataError) for values in lists.values(known, weights))
        return
    support = np.bincount(truth[0])
    for labels in zip(*(lists.labels(codes, weights) for codes in known)):
        right = np.logical_and.reduce([found == true for found, true in zip(labels, truth)])
        recalls = np.bincount(truth[0][right], minlength=len(support))[support > 0] / support[support > 0]
        yield float(right.sum() / len(right)) if score == "accuracy" else float(recalls.mean())


def _codes(rows: Dataset, classes: tuple[int | str, ...]) -> list[NDArray[np.int32]]:
    """Returns the (n,) class indices of each label column; `classes` are those of a single column."""
    if rows.targets is None:
        return [codes_of(classes, rows.labels)]
    return list(rows.targets.T.astype(np.int32))

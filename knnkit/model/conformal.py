"""Calibration and check of label sets.

A label set holds all labels that a row may have; the right one is among them with a stated probability, the coverage.
The answer to a training row never has the row itself as a neighbour. So all training rows can be used to calibrate, and
the held-out rows to measure the coverage. Never builds a graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from device_agent.shared import label_sets
from device_agent.shared.protocol.model_info import KnnInfo, LabelSets
from knnkit.data.dataset import drawn_by_class
from knnkit.model.reference.calibration import answer_apart
from knnkit.model.reference.classifier import Reference, ReferenceAnswers

Ints = NDArray[np.int32]
Spare = tuple[NDArray[np.float32], Ints]


def calibrate_sets(
    reference: Reference, coverages: Sequence[float], most: int, seed: int, spare: Spare | None = None
) -> tuple[LabelSets, ...]:
    """Returns for each coverage a threshold for each class, which decides which rows have the class in their label set.

    A row's set holds the classes whose score for the row (low for likely classes: `label_sets.scores`) is at most their
    threshold. At most `most` training and `spare` rows (labelled rows that `reduce` left out), drawn with `seed`,
    calibrate the thresholds.
    """
    codes = reference.classes if spare is None else np.concatenate([reference.classes, spare[1]])
    chosen = drawn_by_class(codes, most, most // reference.n_classes, seed)
    answers = answer_apart(reference, chosen, None if spare is None else spare[0])
    metric, radius = reference.space.metric, reference.space.radius
    found = label_sets.scores(answers.probabilities, answers.distances, metric, reference.k, radius)
    truth = codes[chosen]
    own = [found[truth == code, code] for code in range(reference.n_classes)]
    return tuple(LabelSets(each, tuple(threshold(values, each) for values in own), radius) for each in coverages)


def threshold(scores: NDArray[np.float64], coverage: float) -> float | None:
    """Returns the limit that a new score of a class does not exceed with probability `coverage`; None: no limit.

    Of the class's (n,) calibration `scores` in ascending order, it is number ceil((n + 1) coverage).
    """
    rank = int(np.ceil((len(scores) + 1) * coverage - 1e-9))
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else None


def check_sets(sets: LabelSets, reference: Reference, answers: ReferenceAnswers, truth: Ints) -> LabelSets:
    """Returns `sets` with the mean number of labels in a set, and two counts for each class.

    These are the held-out rows of the class, and those of them whose label set contains the class.
    `answers` are the reference's answers to held-out rows, and `truth` has the (n,) true classes of these rows.
    """
    k, metric = reference.k, reference.space.metric
    inside = label_sets.members(sets, answers.probabilities, answers.distances, metric, k)
    covered = inside[np.arange(len(truth)), truth]
    rows = np.bincount(truth, minlength=reference.n_classes)
    held = np.bincount(truth[covered], minlength=reference.n_classes)
    size = float(inside.sum(axis=1).mean())
    return LabelSets(sets.coverage, sets.thresholds, sets.radius, tuple(rows.tolist()), tuple(held.tolist()), size)


def short_sets(info: KnnInfo) -> tuple[str, ...]:
    """Returns a warning for each class whose rows too rarely have it in their label sets: by over 3 standard errors."""
    return tuple(
        f"label sets with coverage {sets.coverage:g} hold the right label for only {held:,} of {rows:,} held-out rows "
        f"of class {label}: these rows are unlike the training rows"
        for sets in info.label_sets or ()
        for held, rows, label in zip(sets.covered, sets.rows, info.classes)
        if rows * sets.coverage - held > 1.0 + 3.0 * math.sqrt(rows * sets.coverage * (1.0 - sets.coverage))
    )

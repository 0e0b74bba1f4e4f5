"""Training rows in model space, with their classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.protocol.constants import Metric
from knnkit.data.dataset import Dataset, by_text, spelt
from knnkit.errors import BuildError, DataError
from knnkit.model.reference.space import Float32, Float64, Space, Step, make_space


@dataclass(frozen=True)
class Enrolment:
    """The training rows as the model holds them: in model space, with their classes or targets."""

    space: Space  # the map from raw rows to model space
    enrolled: Float32  # (n_train, p) float32 offsets from the space's centre
    codes: NDArray[np.int32]  # (n_train,) int32 class index of each row
    classes: tuple[int | str, ...]  # class index -> label, sorted
    feature_names: tuple[str, ...]  # names of the raw rows' columns
    fingerprint: str  # SHA-256 over the training rows and labels, hexadecimal
    source: str  # name of the data source, for messages
    targets: Float64 | None = None  # (n_train, t) float64 targets of a regression; None for a classifier
    target_names: tuple[str, ...] = ()  # names of the t targets
    #: the labels of each of several label columns; the targets are then indices of labels.
    target_classes: tuple[tuple[int | str, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.enrolled)


def enrol(
    training: Dataset, steps: list[Step], metric: Metric, p: float | None = None, outlier: int | str | None = None
) -> Enrolment:
    """Returns the rows of `training`, mapped into model space by `steps`; `p`: power of minkowski, else None.

    `outlier` is a label that is added to the classes if no row has it; None: no label is added.

    Raises:
        BuildError: a row leaves the range of float32.
    """
    space, enrolled = make_space(training.rows, steps, metric, p, training.where)
    classes, codes = with_class(*encode(training.labels), outlier)
    known = (training.feature_names, training.fingerprint(), training.source)
    answers = (training.targets, training.target_names, training.target_classes)
    return Enrolment(space, enrolled, codes, classes, *known, *answers)


def encode(labels: NDArray[Any]) -> tuple[tuple[int | str, ...], NDArray[np.int32]]:
    """Returns the classes, sorted as numpy sorts them, and the (n,) int32 class index of each label."""
    classes, codes = np.unique(labels, return_inverse=True)
    return tuple(classes.tolist()), codes.reshape(-1).astype(np.int32)


def with_class(
    classes: tuple[int | str, ...], codes: NDArray[np.int32], label: int | str | None
) -> tuple[tuple[int | str, ...], NDArray[np.int32]]:
    """Adds the class `label` unless None or there already; returns the sorted classes and the rows' (n,) class indices.

    Raises:
        BuildError: `label` is a number and the others are text, or the reverse.
    """
    label = spelt(label, classes) if isinstance(label, str) else label
    if label is None or label in classes:
        return classes, codes
    if isinstance(label, str) != isinstance(classes[0], str):
        what, like = ("text", f"'{label}'") if isinstance(classes[0], str) else ("whole numbers", "-1")
        raise BuildError(f"outlier_label is {label!r}, but the labels are {what}", hint=f"outlier_label: {like}")
    wider = tuple(sorted([*classes, label]))
    places = np.array([wider.index(each) for each in classes], np.int32)
    return wider, places[codes]


def codes_of(classes: tuple[int | str, ...], labels: NDArray[np.generic]) -> NDArray[np.int32]:
    """Returns the (n,) class index of each label.

    Raises:
        DataError: a label is not one of the classes.
    """
    places = by_text(classes, range(len(classes)))
    texts = [str(label) for label in labels.tolist()]
    unseen = sorted(set(texts) - set(places))
    if unseen:
        raise DataError(
            f"the held-out rows have a label that no training row has: {unseen[0]!r}",
            hint="give the training set a row of that class, or leave it out of the held-out rows",
        )
    return np.array([places[text] for text in texts], dtype=np.int32)

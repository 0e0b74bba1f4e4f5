"""Rows whose label changes from one model to another.

Both models answer the same rows in float64 (`knnkit.model.stored`). A flip is a row whose label changes: it names the
row, both labels, and the neighbours that decided each label. Reads no file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.release.row_origins import Origins
from knnkit.data.dataset import drawn
from knnkit.evaluation.measure import most_rows, parts_of
from knnkit.model.reference.classifier import ReferenceAnswers
from knnkit.model.stored import StoredModel


@dataclass(frozen=True)
class Asked:
    """Rows on which two models are compared."""

    before: NDArray[np.floating[Any]]  # raw rows as the first model takes them
    after: NDArray[np.floating[Any]]  # raw rows as the second model takes them
    truth: tuple[str, ...]  # true labels; "" if not known
    origins: Origins  # row numbers and ids in the user's data
    numbers: tuple[int, ...]  # indices of the rows in `origins`
    measures: bool = True  # whether they measure the accuracy: no model was trained on them
    #: whether a model may have been trained on some of the rows; rows equal to a training row then measure nothing.
    doubtful: bool = False

    def __len__(self) -> int:
        return len(self.truth)

    def take(self, chosen: NDArray[np.int64]) -> Asked:
        """Returns the rows with the indices `chosen`, in that order."""
        truth, numbers = (tuple(column[row] for row in chosen.tolist()) for column in (self.truth, self.numbers))
        return replace(self, before=self.before[chosen], after=self.after[chosen], truth=truth, numbers=numbers)


@dataclass(frozen=True)
class Neighbour:
    """A training row that voted: its row number and id in the user's data (else its number in the model)."""

    row: int
    id: str | None
    label: str
    distance: float


@dataclass(frozen=True)
class Flip:
    """One row whose label changes, with its neighbours in both models; `truth` is "" if the true label is not known."""

    source: str
    row: int
    id: str | None
    truth: str
    before: str
    after: str
    neighbours_before: tuple[Neighbour, ...]
    neighbours_after: tuple[Neighbour, ...]


@dataclass(frozen=True)
class Kind:
    """The number of flips with the same true label, label before and label after."""

    truth: str
    before: str
    after: str
    rows: int


@dataclass(frozen=True)
class Comparison:
    """Comparison of two models."""

    rows: int
    known: int  # rows with a known true label that neither model was trained on; they measure the accuracy
    right_before: int  # of the known rows
    right_after: int  # of the known rows
    flips: tuple[Flip, ...]  # rows whose label changes

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of flips with their numbers, the commonest first."""
        counts = Counter((flip.truth, flip.before, flip.after) for flip in self.flips)
        return tuple(Kind(*key, rows) for key, rows in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))


def affordable(before: StoredModel, after: StoredModel, asked: Asked) -> Asked:
    """Returns all rows of `asked`, or a random sample that both models can answer in acceptable time."""
    return asked.take(drawn(len(asked), most_rows(before.reference, after.reference)))


def compare(before: StoredModel, after: StoredModel, asked: Sequence[Asked]) -> Comparison:
    """Compares the answers of two models to the same rows, of which each model gets its own form (`Asked`)."""
    flips: list[Flip] = []
    rows = known = right_before = right_after = 0
    for part in [each.take(chosen) for each in asked for chosen in parts_of(np.arange(len(each)))]:
        old, new = before.reference.answer(part.before), after.reference.answer(part.after)
        names = [[model.labels[code] for code in found.label] for model, found in ((before, old), (after, new))]
        rows += len(part)
        if part.measures:
            near = np.minimum(old.distances[:, 0], new.distances[:, 0])
            counted = [bool(truth) and not (part.doubtful and far == 0.0) for truth, far in zip(part.truth, near)]
            known += sum(counted)
            right_before += sum(truth == name for truth, name in compress(zip(part.truth, names[0]), counted))
            right_after += sum(truth == name for truth, name in compress(zip(part.truth, names[1]), counted))
        for place, (one, other) in enumerate(zip(*names)):
            if one != other:
                voters = (_voters(before, old, place), _voters(after, new, place))
                number, origins = part.numbers[place], part.origins
                who = origins.source, origins.row(number), origins.id(number), part.truth[place]
                flips.append(Flip(*who, one, other, *voters))
    return Comparison(rows, known, right_before, right_after, tuple(flips))


def _voters(model: StoredModel, answers: ReferenceAnswers, place: int) -> tuple[Neighbour, ...]:
    origins, found, k = model.training, [], model.info.k
    for index, distance in zip(answers.indices[place, :k].tolist(), answers.distances[place, :k].tolist()):
        label = model.labels[model.reference.classes[index]]
        found.append(Neighbour(origins.row(index), origins.id(index), label, distance))
    return tuple(found)

"""Figures of a classifier on held-out rows, by class.

Computed from counts: a `model_info.Evaluation` of the build, or the confusion matrix of a device's certificate.
The answer "unknown" counts as wrong in accuracy and recall; `coverage` is the share of rows with another answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from device_agent.shared.protocol import constants
from device_agent.shared.protocol.model_info import Evaluation

percent = constants.percent

#: Standard score of a two-sided 95 % interval.
_Z = 1.959963984540054


@dataclass(frozen=True)
class ClassFigures:
    """Counts for the class `label`: its rows (`support`), those answered right, and all rows answered with it."""

    label: str
    support: int
    right: int
    answered: int

    @property
    def recall(self) -> float | None:
        """Share of the rows of this class that were answered with this class; None if it has no rows."""
        return self.right / self.support if self.support else None

    @property
    def precision(self) -> float:
        """Share of the rows answered with this class that belong to it; 0 if no row was answered with it."""
        return self.right / self.answered if self.answered else 0.0


@dataclass(frozen=True)
class Figures:
    """Figures of a classifier."""

    rows: int
    right: int  # rows that were answered right
    answered: int  # rows with another answer than "unknown"
    classes: tuple[ClassFigures, ...]  # sorted by recall, lowest first; classes without rows are last
    of: int | None = None  # number of held-out rows from which these were drawn; None: all were measured

    @property
    def accuracy(self) -> float:
        """Share of all rows with the right answer."""
        return self.right / self.rows

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy."""
        return wilson(self.right, self.rows)

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that have rows."""
        recalls = [each.recall for each in self.classes if each.recall is not None]
        return math.fsum(recalls) / len(recalls)

    @property
    def coverage(self) -> float:
        """Share of all rows that were answered with a class."""
        return self.answered / self.rows

    @property
    def answered_accuracy(self) -> float | None:
        """Share of right answers among the rows that were answered with a class; None if no row was."""
        return self.right / self.answered if self.answered else None


def wilson(right: int, rows: int) -> tuple[float, float]:
    """Returns Wilson's 95 % score interval of the share right / rows (Wilson, J. Am. Stat. Assoc. 22, 1927)."""
    share, weight = right / rows, _Z * _Z / rows
    centre = (share + weight / 2) / (1 + weight)
    half = _Z * math.sqrt(share * (1 - share) / rows + weight / (4 * rows)) / (1 + weight)
    return centre - half if right else 0.0, centre + half if right < rows else 1.0


def of_evaluation(found: Evaluation | None, classes: Sequence[int | str]) -> Figures | None:
    """Returns the figures of `found`, which a build measured.

    None if `found` is None or has no rows, or if its number of classes is not that of `classes`.
    """
    if found is None or not found.rows or not len(classes) == len(found.support) == len(found.right):
        return None
    return _figures(found.rows, tuple(zip(map(str, classes), found.support, found.right, found.answered)), found.of)


def of_confusion(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> Figures | None:
    """Returns the figures of a confusion matrix: a line for each true class, a column for each answer, last "unknown".

    None if it has no rows, or not as many lines as there are classes.
    """
    rows = sum(map(sum, confusion))
    if not rows or len(classes) != len(confusion):
        return None
    columns = [sum(column) for column in zip(*confusion)]
    support, right = [sum(row) for row in confusion], [row[place] for place, row in enumerate(confusion)]
    return _figures(rows, tuple(zip(classes, support, right, columns)))


def document(figures: Figures | None, how: str = "") -> dict[str, object] | None:
    """Returns the figures, and how the rows were held out, as a dictionary for JSON; None if nothing was measured."""
    if figures is None:
        return None
    classes = [
        {"label": each.label, "support": each.support, "recall": each.recall, "precision": each.precision}
        for each in figures.classes
    ]
    return {
        "how": how,
        "rows": figures.rows,
        "of": figures.of or figures.rows,
        "accuracy": figures.accuracy,
        "interval": list(figures.interval),
        "balanced_accuracy": figures.balanced_accuracy,
        "coverage": figures.coverage,
        "answered_accuracy": figures.answered_accuracy,
        "classes": classes,
    }


def _figures(rows: int, counts: tuple[tuple[str, int, int, int], ...], of: int | None = None) -> Figures:
    classes = [ClassFigures(*each) for each in counts]
    classes.sort(key=lambda each: (each.recall is None, each.recall or 0.0, -each.support))
    right, answered = (sum(getattr(each, name) for each in classes) for name in ("right", "answered"))
    return Figures(rows, right, answered, tuple(classes), of)

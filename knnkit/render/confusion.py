"""Confusion matrices or commonest mistakes, for the report."""

from __future__ import annotations

from dataclasses import dataclass

from knnkit.evaluation import metrics
from knnkit.evaluation.metrics import Figures
from knnkit.render.page import Page, certified

#: Most confusion matrices to show.
MATRICES = 4
#: Most classes for a whole table; more do not fit on a screen.
WHOLE = 25
#: Mistakes to list instead of the table.
LISTED = 20


@dataclass(frozen=True)
class Mistake:
    """A wrong `answer` to rows of the class `truth`: how many `rows` got it, and their `share` of the class."""

    truth: str
    answer: str
    rows: int
    share: float


@dataclass(frozen=True)
class Matrix:
    """One confusion matrix."""

    devices: tuple[str, ...]  # names of the devices that share it
    cells: tuple[tuple[int, ...], ...]  # a line for each true class, a column for each answer: number of rows
    shares: tuple[tuple[int, ...], ...]  # the same in percent of the line
    classes: tuple[str, ...]
    unknown: bool  # whether the last column counts "unknown" answers
    mistakes: tuple[Mistake, ...]  # the commonest ones, most rows first
    more: int  # number of pairs of class and wrong answer beyond those
    figures: Figures | None = None

    @property
    def whole(self) -> bool:
        """Whether the report shows the whole table, not only the commonest mistakes."""
        return len(self.cells) <= WHOLE

    @property
    def right(self) -> int:
        """Number of rows with the right answer."""
        return sum(row[truth] for truth, row in enumerate(self.cells))

    @property
    def rows(self) -> int:
        """Number of all rows in the matrix."""
        return sum(map(sum, self.cells))


def matrices(page: Page) -> list[Matrix]:
    """Returns the different confusion matrices of a run, at most MATRICES; those that most devices share come first."""
    shared: dict[tuple[tuple[int, ...], ...], list[str]] = {}
    for device in certified(page):
        proof = device.certificate
        if proof is not None and proof.confusion:
            shared.setdefault(proof.confusion, []).append(device.name)
    ordered = sorted(shared.items(), key=lambda entry: -len(entry[1]))[:MATRICES]
    return [_matrix(cells, tuple(names), page.classes) for cells, names in ordered]


def _matrix(cells: tuple[tuple[int, ...], ...], names: tuple[str, ...], classes: tuple[str, ...]) -> Matrix:
    unknown = any(row[-1] for row in cells if len(row) > len(cells))
    kept = tuple(row if unknown else row[: len(cells)] for row in cells)
    shares = tuple(tuple(round(cell / (sum(row) or 1) * 100) for cell in row) for row in kept)
    labels = classes if len(classes) == len(cells) else tuple(str(index) for index in range(len(cells)))
    answers = (*labels, "unknown")
    mistakes = sorted(
        (
            Mistake(labels[truth], answers[answer], rows, rows / sum(row))
            for truth, row in enumerate(kept)
            for answer, rows in enumerate(row)
            if rows and answer != truth
        ),
        key=lambda mistake: -mistake.rows,
    )
    figures = metrics.of_confusion([(*row, 0)[: len(cells) + 1] for row in cells], labels)
    return Matrix(names, kept, shares, labels, unknown, tuple(mistakes[:LISTED]), len(mistakes[LISTED:]), figures)

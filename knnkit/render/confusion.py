"""What a model takes for what, in a report: whole tables of few classes, the commonest mistakes of many. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from knnkit.render.page import Page, certified

#: Different confusion matrices that are shown.
MATRICES = 4
#: Most classes of which the whole table is shown: no screen is as wide as that of more, nor is anybody's patience.
WHOLE = 25
#: Mistakes that are listed in its place.
LISTED = 20


@dataclass(frozen=True)
class Mistake:
    """Rows of one class that were all answered with the same other one; `share` is percent of that class."""

    truth: str
    answer: str
    rows: int
    share: int


@dataclass(frozen=True)
class Matrix:
    """One confusion matrix and the devices that share it; `shares` are percent of each true class.

    `mistakes` are the commonest, most rows first, and `more` the kinds of them that are not listed.
    """

    devices: tuple[str, ...]
    cells: tuple[tuple[int, ...], ...]
    shares: tuple[tuple[int, ...], ...]
    classes: tuple[str, ...]
    unknown: bool
    mistakes: tuple[Mistake, ...]
    more: int

    @property
    def whole(self) -> bool:
        """Whether all of it is shown."""
        return len(self.cells) <= WHOLE

    @property
    def right(self) -> int:
        """Rows that were answered right."""
        return sum(row[truth] for truth, row in enumerate(self.cells))

    @property
    def rows(self) -> int:
        """Rows that were judged."""
        return sum(map(sum, self.cells))


def matrices(page: Page) -> list[Matrix]:
    """Returns the confusion matrices, each once, the one that most devices share first."""
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
            Mistake(labels[truth], answers[answer], rows, shares[truth][answer])
            for truth, row in enumerate(kept)
            for answer, rows in enumerate(row)
            if rows and answer != truth
        ),
        key=lambda mistake: -mistake.rows,
    )
    return Matrix(names, kept, shares, labels, unknown, tuple(mistakes[:LISTED]), len(mistakes[LISTED:]))

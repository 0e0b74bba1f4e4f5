"""Decision regions of a model with two features.

Usually a device classifies the grid of points, so that the picture shows its real answers. Needs NumPy, not matplotlib.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Cells of the grid along each side.
CELLS = 160


@dataclass(frozen=True)
class Regions:
    """The answers of a model with two features on a grid, and to the evaluation rows."""

    classes: tuple[str, ...]
    features: tuple[str, str]
    low: tuple[float, float]  # corner of the grid, as `high`
    high: tuple[float, float]
    #: (CELLS, CELLS) int32: the class index answered at the centre of each cell, -1 for "unknown"; row 0 has the lowest
    #: value of the second feature.
    grid: NDArray[np.int32]
    points: NDArray[np.float64]  # (n, 2) evaluation rows
    truth: NDArray[np.int32]  # (n,) class indices
    answered: NDArray[np.int32]  # (n,) class indices


@dataclass(frozen=True)
class Mark:
    """One evaluation row in the picture: x and y in percent from its upper left corner, and class indices."""

    x: float
    y: float
    truth: int
    answered: int

    @property
    def wrong(self) -> bool:
        """Whether the answered class is not the true class."""
        return self.truth != self.answered


def survey(
    classify: Callable[[NDArray[np.float64]], NDArray[np.int32]],
    points: NDArray[np.float64],
    truth: NDArray[np.int32],
    classes: tuple[str, ...],
    features: tuple[str, str],
    *,
    around: NDArray[np.float64] | None = None,
) -> Regions:
    """Classifies (n, 2) evaluation rows, `points`, and a grid around them.

    `classify` maps (m, 2) float64 rows to (m,) class indices. `truth` has the (n,) true class indices of the points;
    `classes` and `features` are names. `around` has other rows that the grid must cover, such as training rows.
    """
    covered = points if around is None else np.concatenate([points, around])
    span = np.ptp(covered, axis=0)
    margin = np.where(span > 0, span, 1.0) * 0.04
    low, high = covered.min(axis=0) - margin, covered.max(axis=0) + margin
    steps = (np.arange(CELLS) + 0.5) / CELLS
    x, y = np.meshgrid(low[0] + steps * (high[0] - low[0]), low[1] + steps * (high[1] - low[1]))
    asked = np.concatenate([np.stack([x.ravel(), y.ravel()], axis=1), points])
    answers = np.asarray(classify(asked), np.int32)
    grid, answered = answers[: CELLS * CELLS].reshape(CELLS, CELLS), answers[CELLS * CELLS :]
    edges = ((float(low[0]), float(low[1])), (float(high[0]), float(high[1])))
    return Regions(classes, features, edges[0], edges[1], grid, points, truth, answered)


def outlines(regions: Regions) -> dict[int, str]:
    """Returns class index -> SVG path around the cells with this answer (units: grid cells, y downwards)."""
    paths: dict[int, list[str]] = {}
    for row, line in enumerate(regions.grid[::-1]):
        edges = np.flatnonzero(np.diff(line)) + 1
        starts = [0, *edges.tolist()]
        ends = [*edges.tolist(), len(line)]
        for start, end in zip(starts, ends):
            paths.setdefault(int(line[start]), []).append(f"M{start},{row}h{end - start}v1h{start - end}z")
    return {index: "".join(parts) for index, parts in sorted(paths.items())}


def marks(regions: Regions) -> list[Mark]:
    """Returns the evaluation rows as marks; wrongly answered rows are last, so that they are drawn on top."""
    low, high = np.array(regions.low), np.array(regions.high)
    placed = (regions.points - low) / (high - low) * 100.0
    found = [
        Mark(round(float(x), 2), round(100.0 - float(y), 2), int(truth), int(answered))
        for (x, y), truth, answered in zip(placed, regions.truth, regions.answered)
    ]
    return sorted(found, key=lambda mark: mark.wrong)

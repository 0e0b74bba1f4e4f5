"""Finds the training rows nearest to a device's row.

Uses the float64 classifier in a model file, and gives the raw cells of the rows. Loads no TensorFlow; never reads the
training file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.raw_rows import cells_of, features_of
from knnkit.data.collected import Cell
from knnkit.model.stored import StoredModel

#: Neighbours that are shown, at most.
MOST = 5


@dataclass(frozen=True)
class Beside:
    """A training row near a device's row: label, distance to that row, name in the training data, raw cells."""

    label: str
    distance: float
    name: str
    cells: tuple[Cell, ...]


def neighbours(model: StoredModel, cells: Sequence[Cell]) -> tuple[Beside, ...]:
    """Returns the training rows nearest to a row of raw cells, at most `MOST`; () if the model cannot read the row."""
    rows = _features(model, cells)
    if rows is None:
        return ()
    found = model.reference.answer(rows)
    nearest = zip(found.indices[0, : model.info.k].tolist(), found.distances[0].tolist())
    return tuple(_beside(model, index, distance) for index, distance in list(nearest)[:MOST] if index >= 0)


def _features(model: StoredModel, cells: Sequence[Cell]) -> NDArray[Any] | None:
    """Returns the (1, n_features) features of a row of raw cells; None if the model cannot read the row."""
    try:
        rows = features_of(model.info, [cells])
    except (TypeError, ValueError):
        return None
    return rows if np.isfinite(rows).all() else None


def _beside(model: StoredModel, index: int, distance: float) -> Beside:
    features, origins = model.training_row(index), model.training
    name = origins.id(index) or f"row {origins.row(index)}"
    return Beside(model.labels[model.reference.classes[index]], distance, name, tuple(cells_of(model.info, features)))

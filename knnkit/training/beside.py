"""Training rows nearest to a row from a device.

Uses the float64 classifier in a model file, and gives the raw cells of the rows. Loads no TensorFlow; never reads the
training file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from device_agent.shared.features.coder import collapse
from device_agent.shared.features.parsers import TableJsonParser
from device_agent.shared.protocol.errors import BadInput
from knnkit.data.collected import Cell
from knnkit.model.stored import StoredModel

#: Neighbours that are shown, at most.
MOST = 5


@dataclass(frozen=True)
class Beside:
    """A training row: its label, its distance, its name in the training data, and its raw cells."""

    label: str
    distance: float
    name: str
    cells: tuple[Cell, ...]


def neighbours(model: StoredModel, cells: Sequence[Cell]) -> tuple[Beside, ...]:
    """Returns the nearest training rows of a raw row; none if the model cannot read the row."""
    rows = _features(model, cells)
    if rows is None:
        return ()
    found = model.reference.answer(rows)
    nearest = zip(found.indices[0, : model.info.k].tolist(), found.distances[0].tolist())
    return tuple(_beside(model, index, distance) for index, distance in list(nearest)[:MOST] if index >= 0)


def _features(model: StoredModel, cells: Sequence[Cell]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None:
    """Returns the (1, n_features) features of a raw row; None if the row does not fit the model."""
    try:
        if model.info.table is None:
            rows = np.array([cells], np.float64)
        else:
            rows = TableJsonParser(model.info).parse(json.dumps(cells).encode() + b"\n").rows.astype(np.float64)
    except (BadInput, TypeError, ValueError):
        return None
    good = rows.shape == (1, model.info.n_features) and bool(np.isfinite(rows).all())
    return rows if good else None


def _beside(model: StoredModel, index: int, distance: float) -> Beside:
    features, origins = model.training_row(index), model.training
    cells = features if model.info.table is None else tuple(collapse(model.info.table.columns, features))
    name = (origins.id(index) or f"row {origins.row(index)}") if origins else f"row {index}"
    return Beside(model.labels[model.reference.classes[index]], distance, name, cells)

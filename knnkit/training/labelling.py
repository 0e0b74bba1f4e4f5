"""Labels for the rows of a collection.

A label is saved to disk before `give` returns. Only rows without a label are shown; a skipped row is shown again at the
end. Beside a row stand the training rows nearest to it, by the float64 classifier in a model file. Loads no TensorFlow;
never reads the training file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared.enrolment.enrolled import label_of
from device_agent.shared.raw_rows import cells_of, features_of
from knnkit.data.collected import Cell, Collection, FieldRow, change_label
from knnkit.data.dataset import require_label
from knnkit.errors import DataError
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


class Labelling:
    """A session in which one person labels the rows of one file.

    Args:
        collection: the file of rows to label.
        model: model whose nearest training rows are shown beside each row; None: none are shown.

    Attributes:
        given: number of labels given in this session, without those undone.
    """

    def __init__(self, collection: Collection, model: StoredModel | None) -> None:
        self.path, self.columns, self.given = collection.path, collection.columns, 0
        self._model = model
        self._waiting = deque(row for row in collection.rows if row.label is None)
        self._done: list[FieldRow] = []
        known = () if model is None else model.labels[:-1]
        self._labels = dict.fromkeys([*known, *(row.label for row in collection.rows if row.label is not None)])

    @property
    def row(self) -> FieldRow | None:
        """The row to label now; None if every row has a label."""
        return self._waiting[0] if self._waiting else None

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels to choose from: the model's labels, then other labels in the file."""
        return tuple(self._labels)

    @property
    def numbered(self) -> bool:
        """Whether a person may type a label's number in the list; False if a label is a number itself."""
        return not any(label.lstrip("-").isdecimal() for label in self._labels)

    @property
    def waiting(self) -> int:
        """The number of rows without a label."""
        return len(self._waiting)

    @property
    def can_undo(self) -> bool:
        """Whether `undo` can remove a label that was given in this session."""
        return bool(self._done)

    def beside(self) -> tuple[Beside, ...]:
        """Returns the training rows nearest to the current row; () without a model, or if it has other columns."""
        if self._model is None or self.row is None or self._model.info.columns != self.columns.names:
            return ()
        return neighbours(self._model, self.row.cells)

    def label_for(self, text: str) -> str:
        """Returns the label that the typed `text` means, which may be new: `7` for ` 07` if labels are whole numbers.

        Raises:
            DataError: `text` is not of the type of the model's labels, or cannot be a label.
        """
        classes = self._model.info.classes if self._model else (text.strip(),)
        found = label_of(text.strip(), classes)
        label = text.strip() if found is None else str(found)
        require_label(label, "the label")
        if found is None:
            said = f"the labels of {self.columns.model} are whole numbers, not {label!r}"
            raise DataError(said, hint="type a number")
        return label

    def give(self, text: str, row: str | None = None) -> None:
        """Gives the label `text` to the row with the id `row`; None: to the current row, and the next becomes current.

        Repeating a call with an id does nothing.

        Raises:
            DataError: `text` is not of the type of the model's labels, or the row has another label already.
            UsageError: the label cannot be written.
        """
        label = self.label_for(text)
        chosen = next((each for each in self._waiting if row in (None, each.id)), None)
        if chosen is None:
            there = next((each.label for each in self._done if each.id == row), label)
            self._require_same(str(row), label, there)
            return
        there = change_label(self.path, chosen.id, None, label)
        self._waiting.remove(chosen)
        self._require_same(chosen.id, label, there)
        self._labels.setdefault(label)
        self._done.append(replace(chosen, label=label))
        self.given += 1

    def _require_same(self, row: str, label: str | None, there: str | None) -> None:
        if there != label:
            raise DataError(f"row {row} has the label {there!r} already", hint="undo, or label the next row")

    def skip(self, row: str | None = None) -> None:
        """Moves the current row behind all other rows; does nothing if `row` is the id of another row."""
        if self.row is not None and row in (None, self.row.id):
            self._waiting.rotate(-1)

    def undo(self) -> None:
        """Removes the last label given in this session, if any, and makes its row the current one.

        Raises:
            DataError: the row got another label meanwhile, in another session.
            UsageError: the change cannot be written.
        """
        if self._done:
            row = self._done[-1]
            there = change_label(self.path, row.id, row.label, None)
            self._done.pop()
            self.given -= 1
            self._require_same(row.id, None, there)
            self._waiting.appendleft(replace(row, label=None))

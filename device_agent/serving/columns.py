"""Columns of answers, and the base class of their renderers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared import label_sets
from device_agent.shared.protocol.constants import EXACT_FILE, MAX_MODEL, UNKNOWN_LABEL
from device_agent.shared.protocol.errors import BadInput, ModelUnusable
from device_agent.shared.protocol.input_info import Window
from device_agent.shared.protocol.model_info import KnnInfo, Targets
from device_agent.shared.protocol.record import record, replace
from device_agent.shared.release.model_file import read_member
from device_agent.shared.release.npz import read_arrays

if TYPE_CHECKING:
    from device_agent.enrolment.joined import JoinedKNN
    from device_agent.inference.tflite_knn import Answers, TfliteKNN
    from device_agent.shared.release.row_origins import Origins

Errors = dict[int, tuple[int, str]]
#: Of each column that is kept, its values in the rows that are answered.
Kept = Sequence[Sequence[Any]]


@record
class Columns:
    """Columns to write besides the label. Those of `keep` are copied from the input and come first."""

    proba: bool = False
    neighbors: bool = False
    digest: bool = False
    keep: tuple[str, ...] = ()
    labels: float | None = None  # coverage of the label sets

    @property
    def labels_only(self) -> bool:
        """Whether a line depends on nothing but the class (and the digest)."""
        return not (self.proba or self.neighbors or self.labels is not None)


class Sets:
    """The label sets with the coverage that the user asks for.

    Raises:
        BadInput: the model has no label sets with this coverage.
    """

    def __init__(self, info: KnnInfo, coverage: float) -> None:
        self._info, self._sets = info, label_sets.sets_of(info, coverage)

    def inside(self, answers: Answers) -> NDArray[np.bool_]:
        """Returns (n, n_classes) bool: whether a class is in the label set of a row."""
        how = self._info.metric, self._info.k
        return label_sets.members(self._sets, answers.probabilities, answers.distances, *how)

    def labels(self, answers: Answers) -> list[list[int | str]]:
        """Returns the labels in the label set of each row."""
        return [[self._info.classes[code] for code in np.flatnonzero(row)] for row in self.inside(answers)]


class Values:
    """The values of a regression's answers.

    Attributes:
        key: of a value in JSON.
        columns: of the values in CSV.
        shares: names of the columns of probabilities in CSV.
        numbers: returns the (n, t) float64 values of answers.

    Raises:
        BadInput: probabilities are asked for.
    """

    key = "value"
    shares: Sequence[str] = ()

    def __init__(self, model: TfliteKNN | JoinedKNN, targets: Targets, columns: Columns) -> None:
        self.numbers, self._model, self._targets = model.values_of, model, targets
        one = len(targets.names) == 1
        self.columns = [self.key] if one else [f"{self.key}_{name}" for name in targets.names]
        if columns.proba and not targets.classes:
            raise BadInput("--proba: the model answers values, and has no classes", hint="leave it out")

    def cells(self, answers: Answers) -> list[list[str]]:
        """Returns the values of each row as text; empty where a row is rejected."""
        return [["" if value != value else repr(value) for value in row] for row in self.numbers(answers).tolist()]

    def plain(self, answers: Answers) -> list[Any]:
        """Returns the value of each row, or its values by target; None where it is rejected."""
        rows = [None if row[0] != row[0] else row for row in self.numbers(answers).tolist()]
        names = self._targets.names
        return [None if row is None else row[0] if len(names) == 1 else dict(zip(names, row)) for row in rows]


class LabelColumns(Values):
    """The labels of a model with several label columns, and their probabilities."""

    key = "label"

    def __init__(self, model: TfliteKNN | JoinedKNN, targets: Targets, columns: Columns) -> None:
        super().__init__(model, targets, columns)
        pairs = zip(targets.names, targets.classes)
        self.shares = [f"proba_{name}_{label}" for name, labels in pairs for label in labels]

    def labels(self, answers: Answers) -> list[list[int | str]]:
        """Returns the labels of each row; "unknown" in each column where a row is rejected."""
        from device_agent.shared.label_columns import labels_of

        return labels_of(self._targets.classes, self.numbers(answers))

    def cells(self, answers: Answers) -> list[list[str]]:
        """Returns the labels of each row as text."""
        return [list(map(str, row)) for row in self.labels(answers)]

    def plain(self, answers: Answers) -> list[Any]:
        """Returns the labels of each row, by column."""
        return [dict(zip(self._targets.names, row)) for row in self.labels(answers)]

    def probabilities(self, answers: Answers) -> NDArray[np.float32]:
        """Returns the (n, m) vote shares of the labels of all columns, side by side."""
        from device_agent.inference.answers import shares_of

        return np.concatenate(shares_of(self._model, answers), axis=1)

    def by_label(self, shares: Sequence[float]) -> dict[str, dict[str, float]]:
        """Returns the shares of one row by column and label."""
        rest = iter(shares)
        return {
            name: {str(label): next(rest) for label in labels}
            for name, labels in zip(self._targets.names, self._targets.classes)
        }

    def fields(self) -> list[tuple[str, Any]]:
        """Returns the fields of NPY: int64, or text where a label of the column is text."""
        texts = [np.array([*map(str, labels), UNKNOWN_LABEL]) for labels in self._targets.classes]
        whole = [all(isinstance(label, int) for label in labels) for labels in self._targets.classes]
        never = self._model.info.reject is None
        kinds = [np.dtype(np.int64) if each and never else text.dtype for each, text in zip(whole, texts)]
        return list(zip(self.columns, kinds))


@record
class Local:
    """The rows taught on the device: neighbours from the index `first` on, with these ids."""

    first: int
    ids: tuple[str, ...]

    def id(self, index: int) -> str | None:
        """Returns the id of a neighbour; None if it is a row of the model."""
        return self.ids[index - self.first] if index >= self.first else None

    def nearest(self, indices: NDArray[np.int32]) -> list[str]:
        """Returns, for each row, the id of the nearest taught row among its k neighbours; "" if none was taught.

        `indices` are (n, k), nearest first.
        """
        if indices.max(initial=-1) < self.first:
            return [""] * len(indices)
        there = indices >= self.first
        found = [""] * len(indices)
        for row in np.flatnonzero(there.any(axis=1)).tolist():
            found[row] = self.ids[int(indices[row, there[row].argmax()]) - self.first]
        return found


@record
class Training:
    """What answers report about neighbours: the (n_train,) int32 class indices; `origins` is None for older models."""

    classes: NDArray[np.int32]
    origins: Origins | None
    local: Local | None = None

    def origin(self, index: int) -> tuple[int | None, str | None]:
        """Returns row and id of a neighbour in its source; None for what is not known. A taught row has only an id."""
        taught = self.local.id(index) if self.local else None
        if taught is not None or self.origins is None:
            return None, taught
        return self.origins.row(index), self.origins.id(index)


class Form:
    """Base of the renderers: the model, the columns to write, the release's digest, and what some columns need."""

    #: Type of the entries of an NPY file; None in text formats.
    dtype: np.dtype[Any] | None = None

    def __init__(
        self,
        info: KnnInfo,
        columns: Columns,
        digest: str,
        training: Training | None,
        values: Values | None = None,
        local: Local | None = None,
    ) -> None:
        self._info, self._columns, self._digest, self._training = info, columns, digest, training
        self._values, self._local = values, local
        self._sets = Sets(info, columns.labels) if columns.labels is not None else None
        self._prepare()

    def _prepare(self) -> None:
        """Makes what all answers share."""

    def _shares(self, answers: Answers) -> NDArray[np.float32]:
        """Returns the probabilities of answers; of several label columns, those of all columns side by side."""
        own = self._values
        return own.probabilities(answers) if isinstance(own, LabelColumns) else answers.probabilities


def neighbor_classes(model: str) -> NDArray[np.int32]:
    """Returns the (n_train,) int32 class index of each training row of a model file.

    Raises:
        ModelUnusable: the exact tables in it are damaged.
    """
    data = read_member(model, EXACT_FILE, MAX_MODEL)
    try:
        classes: NDArray[np.int32] = read_arrays(data)["classes"].astype(np.int32)
    except (KeyError, ValueError) as error:
        raise ModelUnusable(f"{EXACT_FILE} inside {model} is damaged: {error}") from None
    return classes


def with_marks(columns: Columns, window: Window) -> Columns:
    """Returns the columns of answers for windows; the first ones identify the window.

    Raises:
        BadInput: a column of `keep` has the name of one of these.
    """
    twice = next((name for name in columns.keep if name in window.marks), None)
    if twice is not None:
        hint = "give the column another name in the samples"
        raise BadInput(f"--keep {twice}: the answers have a column of that name", hint=hint)
    return replace(columns, keep=(*window.marks, *columns.keep))

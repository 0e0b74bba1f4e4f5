"""Columns of answers, and the base class of their renderers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from device_agent.shared import label_sets
from device_agent.shared.protocol.constants import EXACT_FILE, UNKNOWN_LABEL
from device_agent.shared.protocol.errors import BadInput
from device_agent.shared.protocol.input_info import Window
from device_agent.shared.protocol.model_info import KnnInfo, Targets
from device_agent.shared.protocol.record import record, replace
from device_agent.shared.release.npz import arrays_inside

if TYPE_CHECKING:
    from device_agent.enrolment.joined import JoinedKNN
    from device_agent.inference.tflite_knn import Answers, TfliteKNN
    from device_agent.shared.release.row_origins import Origins

#: Index of a bad line in its block -> (line number in the input, message).
Errors = dict[int, tuple[int, str]]
#: For each column that is copied to the answers (`--keep`), its values in the answered rows.
Kept = Sequence[Sequence[Any]]


@record
class Columns:
    """Columns to write besides the label."""

    proba: bool = False  # probabilities
    neighbors: bool = False
    digest: bool = False  # of the release
    keep: tuple[str, ...] = ()  # columns of the input to copy, which come first
    labels: float | None = None  # coverage of the label sets; None: no sets

    @property
    def labels_only(self) -> bool:
        """Whether the answer depends on nothing but the row's class: no probabilities, neighbours or label sets."""
        return not (self.proba or self.neighbors or self.labels is not None)


class Sets:
    """The label sets with the coverage that the user requests.

    A label set has all labels that a row may have; the coverage is the share of rows whose set has the true label.

    Raises:
        BadInput: the model has no label sets with this coverage.
    """

    def __init__(self, info: KnnInfo, coverage: float) -> None:
        self._info, self._sets = info, label_sets.sets_of(info, coverage)

    def inside(self, answers: Answers) -> NDArray[np.bool_]:
        """Returns (n, n_classes) bool: whether each class is in the label set of each row."""
        how = self._info.metric, self._info.k
        return label_sets.members(self._sets, answers.probabilities, answers.distances, *how)

    def labels(self, answers: Answers) -> list[list[int | str]]:
        """Returns, for each row, the list of labels in its label set."""
        return [[self._info.classes[code] for code in np.flatnonzero(row)] for row in self.inside(answers)]


class Values:
    """The values that a regression answers.

    Attributes:
        key: key of a value in JSON.
        columns: names of the value columns in CSV.
        near_key: key of a neighbour's own targets in JSON.
        near_columns: names of their columns in CSV, without the neighbour's number (`_1` for the nearest).
        shares: names of the probability columns in CSV; () for a regression, which has none.
        numbers: function from answers to their (n, t) float64 values.

    Raises:
        BadInput: the user requests probabilities of a regression.
    """

    key, near_key = "value", "target"
    shares: Sequence[str] = ()

    def __init__(self, model: TfliteKNN | JoinedKNN, targets: Targets, columns: Columns) -> None:
        self.numbers, self._model, self._targets = model.values_of, model, targets
        one = len(targets.names) == 1
        self.columns = [self.key] if one else [f"{self.key}_{name}" for name in targets.names]
        self.near_columns = [self.near_key] if one else [f"{self.near_key}_{name}" for name in targets.names]
        if columns.proba and not targets.classes:
            raise BadInput("--proba: the model answers values; it has no classes", hint="leave --proba out")

    def cells(self, answers: Answers) -> list[list[str]]:
        """Returns the values of each row as text; "" for a rejected row."""
        return [["" if value != value else repr(value) for value in row] for row in self.numbers(answers).tolist()]

    def plain(self, answers: Answers) -> list[Any]:
        """Returns for each row its value; a dictionary by target if there are several; None for a rejected row."""
        return [None if row[0] != row[0] else self.by_target(row) for row in self.numbers(answers).tolist()]

    def by_target(self, row: list[Any]) -> Any:
        """Returns the one entry of `row`, or a dictionary by target if there are several."""
        return row[0] if len(row) == 1 else dict(zip(self._targets.names, row))

    def known(self, targets: list[float]) -> list[Any]:
        """Returns the values of a training row, one for each target; `targets` is its row in `Training.targets`."""
        return targets

    def known_arrays(self, targets: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        """Returns NPY field -> array of the values of (n, k) neighbours; `targets` are their (n, k, t) targets."""
        return {"targets": targets}


class LabelColumns(Values):
    """The labels of a model with several label columns, and their probabilities."""

    key = near_key = "label"

    def __init__(self, model: TfliteKNN | JoinedKNN, targets: Targets, columns: Columns) -> None:
        super().__init__(model, targets, columns)
        self.near_columns = [f"class_{name}" for name in targets.names]
        pairs = zip(targets.names, targets.classes)
        self.shares = [f"proba_{name}_{label}" for name, labels in pairs for label in labels]

    def labels(self, answers: Answers) -> list[list[int | str]]:
        """Returns the labels of each row, one per label column; "unknown" in every column of a rejected row."""
        from device_agent.shared.label_columns import labels_of

        return labels_of(self._targets.classes, self.numbers(answers))

    def cells(self, answers: Answers) -> list[list[str]]:
        """Returns for each row its labels as text, one for each label column."""
        return [list(map(str, row)) for row in self.labels(answers)]

    def plain(self, answers: Answers) -> list[Any]:
        """Returns for each row a dictionary from label column to label."""
        return [dict(zip(self._targets.names, row)) for row in self.labels(answers)]

    def known(self, targets: list[float]) -> list[Any]:
        """Returns the labels of a training row, one for each label column."""
        return [labels[int(code)] for labels, code in zip(self._targets.classes, targets)]

    def known_arrays(self, targets: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        """Returns NPY field -> (n, k) labels, one field for each label column."""
        codes = np.moveaxis(targets.astype(np.intp), -1, 0)
        parts = zip(self._targets.names, self._targets.classes, codes)
        return {f"classes_{name}": np.array(labels)[own] for name, labels, own in parts}

    def probabilities(self, answers: Answers) -> NDArray[np.float32]:
        """Returns (n, m) vote shares of m labels: those of the first label column, then of the second, and so on."""
        from device_agent.inference.answers import shares_of

        return np.concatenate(shares_of(self._model, answers), axis=1)

    def by_label(self, shares: Sequence[float]) -> dict[str, dict[str, float]]:
        """Returns the m vote shares of one row as a dictionary: label column -> label -> share."""
        rest = iter(shares)
        return {
            name: {str(label): next(rest) for label in labels}
            for name, labels in zip(self._targets.names, self._targets.classes)
        }

    def fields(self) -> list[tuple[str, Any]]:
        """Returns (name, dtype) of each field in NPY: text if a label is text or rows can be rejected; else int64."""
        texts = [np.array([*map(str, labels), UNKNOWN_LABEL]) for labels in self._targets.classes]
        whole = [all(isinstance(label, int) for label in labels) for labels in self._targets.classes]
        never = self._model.info.reject is None
        kinds = [np.dtype(np.int64) if each and never else text.dtype for each, text in zip(whole, texts)]
        return list(zip(self.columns, kinds))


@record
class Local:
    """The rows taught on the device: the neighbour with index `first + i` has the id `ids[i]`."""

    first: int
    ids: tuple[str, ...]

    def id(self, index: int) -> str | None:
        """Returns the id of the neighbour with this index; None if it is a training row of the model."""
        return self.ids[index - self.first] if index >= self.first else None

    def nearest(self, indices: NDArray[np.int32]) -> list[str]:
        """Returns, for each row, the id of the nearest taught row among its (n, k) neighbours; "" without one."""
        if indices.max(initial=-1) < self.first:
            return [""] * len(indices)
        there = indices >= self.first
        found = [""] * len(indices)
        for row in np.flatnonzero(there.any(axis=1)).tolist():
            found[row] = self.ids[int(indices[row, there[row].argmax()]) - self.first]
        return found


@record
class Training:
    """Facts about neighbours by index: training rows first, then taught rows."""

    classes: NDArray[np.int32]  # (n,) int32 class indices
    origins: Origins  # row numbers and ids of the training rows in the training data
    local: Local | None = None  # the taught rows; None if the release does not allow any
    #: (n, t) float64 targets, or positions of labels in `Targets.classes`; None in a model without.
    targets: NDArray[np.float64] | None = None

    def origin(self, index: int) -> tuple[int | None, str | None]:
        """Returns row number (None for a taught row) and id (None if it has none) of the neighbour with this index."""
        taught = self.local.id(index) if self.local else None
        if taught is not None:
            return None, taught
        return self.origins.row(index), self.origins.id(index)


class Form:
    """Base class of the renderers: holds the model's knn.json, the columns to write, and the data for these."""

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
        shown: Sequence[int | str] | None = None,
    ) -> None:
        self._info, self._columns, self._digest, self._training = info, columns, digest, training
        self._values, self._local = values, local
        #: The labels that have a column `proba_LABEL` in CSV.
        self._shown = info.classes if shown is None else shown
        self._sets = Sets(info, columns.labels) if columns.labels is not None else None
        #: Names of the columns of a neighbour's class or targets, without its number (`_1` for the nearest).
        self._near: Sequence[str] = ()
        if training and (values is None or training.targets is not None):
            self._near = values.near_columns if values else ["class"]
        self._prepare()

    def _prepare(self) -> None:
        """Computes what all answers share; called once."""

    def _shares(self, answers: Answers) -> NDArray[np.float32]:
        """Returns (n, n_classes) vote shares; with label columns (n, m), of the labels of each column in turn."""
        own = self._values
        return own.probabilities(answers) if isinstance(own, LabelColumns) else answers.probabilities


def neighbor_classes(model: str) -> NDArray[np.int32]:
    """Returns the (n_train,) int32 class index of each training row of a model file.

    Raises:
        ModelUnusable: the exact tables in the file are damaged.
    """
    with arrays_inside(model, EXACT_FILE) as tables:
        classes: NDArray[np.int32] = tables["classes"].astype(np.int32)
    return classes


def with_marks(columns: Columns, window: Window) -> Columns:
    """Returns the columns of answers for windows: those that identify the window (`Window.marks`) come first.

    Raises:
        BadInput: a column to copy (`keep`) has the name of one of these columns.
    """
    require_apart(columns.keep, window.marks, "samples")
    return replace(columns, keep=(*window.marks, *columns.keep))


def require_apart(keep: Sequence[str], names: Sequence[str], where: str) -> None:
    """Raises BadInput if a column to copy (`keep`) has one of the `names` of the answers' columns.

    `where` says in the hint where the user can rename the column: "rows" or "samples".
    """
    twice = next((name for name in keep if name in names), None)
    if twice is not None:
        hint = f"give the column another name in the {where}"
        raise BadInput(f"--keep {twice}: the answers already have a column of that name", hint=hint)

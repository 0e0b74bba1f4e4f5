"""Renders answers as an NPY file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from device_agent.serving.columns import Columns, Errors, Form, Kept, LabelColumns
from device_agent.shared.enrolment.enrolled import ID_DIGITS
from device_agent.shared.protocol.constants import UNKNOWN_LABEL
from device_agent.shared.protocol.errors import BadInput

if TYPE_CHECKING:
    from device_agent.inference.tflite_knn import Answers


class NpyRenderer(Form):
    """Renders an array of labels; a structured array if more than labels are requested.

    Fields: `label` (int64, or text if a class is text or a row may be "unknown"), `labels` (n_classes,) bool (classes
    in the label set), `probabilities` (n_classes,) float32. Of the neighbours: `indices` (k,) int32, `distances` (k,)
    float32, labels as `classes` (k,), and numbers in the training data as `rows` (k,) int64 (-1: taught). `digest` S64;
    `id` S32 of the nearest taught row, if the release allows any. A regression has `value` (t,) float64 (NaN for a
    rejected row) instead of `label`, and the neighbours' `targets` (k, t) float64 instead of `classes`. A model with
    several label columns has `label_COLUMN` and `classes_COLUMN` (k,) for each, and `probabilities` holds the vote
    shares of all their labels.
    """

    dtype: np.dtype[Any]

    def _prepare(self) -> None:
        info = self._info
        if self._columns.keep:
            raise BadInput("--keep: an NPY file of answers holds no text", hint="--output-format csv, or jsonl")
        if not info.may_be_unknown and all(isinstance(label, int) for label in info.classes):
            self._labels = np.array([*info.classes, 0], np.int64)
        else:
            self._labels = np.array([str(label) for label in (*info.classes, UNKNOWN_LABEL)])
        self.dtype = self._dtype()

    def header(self) -> bytes:
        """Returns a header for 0 rows; the caller replaces it when the number of rows is known."""
        return npy_header(self.dtype, 0)

    def render(self, answers: Answers | None, count: int, errors: Errors, kept: Kept = ()) -> bytes:
        """Returns the bytes of one entry for each of `answers`; b"" for None. Other arguments are for other formats."""
        if answers is None:
            return b""
        if not self.dtype.names:
            return self.render_labels(answers.label)
        table = self._table(answers.label)
        if isinstance(self._values, LabelColumns):
            for name, labels in zip(self._values.columns, zip(*self._values.labels(answers))):
                table[name] = labels
        elif self._values:
            table["value"] = self._values.numbers(answers)
        if self._sets:
            table["labels"] = self._sets.inside(answers)
        if self._columns.proba:
            table["probabilities"] = self._shares(answers)
        if self._columns.neighbors:
            table["indices"], table["distances"] = answers.indices, answers.distances
            if self._training:
                if not self._values:
                    table["classes"] = self._labels[self._training.classes[answers.indices]]
                elif self._training.targets is not None:
                    for name, known in self._values.known_arrays(self._training.targets[answers.indices]).items():
                        table[name] = known
                origin = self._training.origin
                rows = [[origin(index)[0] for index in indices] for indices in answers.indices.tolist()]
                table["rows"] = [[-1 if row is None else row for row in each] for each in rows]
        if self._local:
            table["id"] = self._local.nearest(answers.indices)
        return table.tobytes()

    def render_labels(self, labels: NDArray[np.int32], kept: Kept = ()) -> bytes:
        """Returns the bytes of entries for (n,) class indices, if the columns are `labels_only`; ignores `kept`."""
        return (self._table(labels) if self.dtype.names else self._labels[labels]).tobytes()

    def _table(self, labels: NDArray[np.int32]) -> NDArray[Any]:
        """Returns an entry for each class index; only `label`, `digest` and an empty `id` are set in it."""
        table = np.empty(len(labels), self.dtype)
        if not self._values:
            table["label"] = self._labels[labels]
        if self._columns.digest:
            table["digest"] = self._digest.encode()
        if self._local:
            table["id"] = b""
        return table

    def _dtype(self) -> np.dtype[Any]:
        info = self._info
        if self._columns == Columns() and not self._values:
            return self._labels.dtype
        fields: list[Any] = [("label", self._labels.dtype)]
        if isinstance(self._values, LabelColumns):
            fields = list(self._values.fields())
        elif self._values:
            fields = [("value", np.float64, (len(self._values.columns),))]
        fields += [("labels", np.bool_, (len(info.classes),))] if self._sets else []
        if self._columns.proba:
            width = len(self._values.shares) if self._values else len(info.classes)
            fields.append(("probabilities", np.float32, (width,)))
        if self._columns.neighbors:
            fields += [("indices", np.int32, (info.k,)), ("distances", np.float32, (info.k,))]
            fields += self._known_fields()
        fields += [("digest", "S64")] * self._columns.digest
        fields += [("rows", np.int64, (info.k,))] if self._training else []
        return np.dtype(fields + [("id", f"S{ID_DIGITS}")] * (self._local is not None))

    def _known_fields(self) -> list[Any]:
        """Returns (name, dtype, shape) of each field for the classes or targets of the neighbours."""
        k, training = self._info.k, self._training
        if training is None:
            return []
        if not self._values:
            return [("classes", self._labels.dtype, (k,))]
        targets = training.targets
        found = {} if targets is None else self._values.known_arrays(np.zeros((0, k, targets.shape[1])))
        return [(name, array.dtype, array.shape[1:]) for name, array in found.items()]


def npy_header(dtype: np.dtype[Any], count: int) -> bytes:
    """Returns the header of a 1-D NPY file; its length does not depend on `count`.

    Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
    """
    described = {"descr": dtype.descr if dtype.names else dtype.str, "fortran_order": False, "shape": (count,)}
    text = repr(described).encode("latin1")
    room = len(text) - len(str(count)) + 20  # a 64-bit count has at most 20 digits
    length = -(-(10 + room + 1) // 64) * 64 - 10
    return b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + text.ljust(length - 1) + b"\n"
